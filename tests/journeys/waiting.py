"""A harness for operations that wait: server processes on one store that can be lost at any moment, and people who call them.

On SQLite one server holds the store at a time; on PostgreSQL and Firestore two are at work. They are killed, told to stop
or held up from here, and others take their place. `waiting_tools` are what they run, `waiting_record` judges afterwards.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.firestore import shared_emulator
from tests.fakes.postgres import selected, shared_postgres
from tests.journeys import waiting_tools
from tests.journeys.support import Answer, Json, bearing, envelope, free_port, request, tool_call
from tests.journeys.waiting_processes import PATIENCE_S, Process, forked
from tests.journeys.waiting_servers import Wanted
from tests.support import Api, open_test_server

STORES = ("sqlite", "postgresql", "firestore")
SHARED_STORES = ("postgresql", "firestore")
"""Those on which several servers are at work."""

_PASSWORD = "the same after every crash"
_CUT = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'casekeeper' AND datname = current_database()"""


@dataclass
class Site:
    """A store, the servers on it, and the people who call them: `owner`, `editor`, `operator` and who else is made."""

    kind: str
    store: str
    data: Path
    marks: Path
    log: Path
    casefile_id: str
    tools: str
    drain_s: float
    tokens: dict[str, str]
    servers: list[Process] = field(default_factory=list[Process])
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def together(self) -> int:
        """How many servers are at work at a time."""
        return 1 if self.kind == "sqlite" else 2

    # Servers

    async def start(self, *, store: str | None = None) -> Process:
        """Start a server and return when it answers; `store` is another way to the same one."""
        number = next(self._numbers)
        wanted = Wanted(
            data=self.data,
            store=self.store if store is None else store,
            search=self.data / f"search-{number}.db",
            port=free_port(),
            marks=self.marks,
            log=self.log,
            tools=self.tools,
            drain_s=self.drain_s,
        )
        server = await asyncio.to_thread(forked, wanted)
        self.servers.append(server)
        async with asyncio.timeout(PATIENCE_S):
            while not await server.answers():
                # A tool may have ended it at a point that a test has asked for.
                if not server.lives:
                    break
                await asyncio.sleep(0.01)
        return server

    async def fill(self) -> list[Process]:
        """Start as many servers as are to be at work."""
        self.servers = [one for one in self.servers if one.lives]
        missing = self.together - len(self.servers)
        await asyncio.gather(*(self.start() for _ in range(missing)))
        return self.servers

    async def kill(self, server: Process) -> None:
        """Lose a server."""
        server.kill()
        await server.gone()
        self.servers.remove(server)

    async def replace(self, server: Process) -> Process:
        """Tell a server to stop, and start another: at once where two may be at work, else when it has stopped."""
        server.terminate()
        if self.together == 1:
            await server.gone()
        other = await self.start()
        await server.gone()
        self.servers.remove(server)
        return other

    @asynccontextmanager
    async def kept_up(self) -> AsyncGenerator[None]:
        """While it lasts, another server follows where one is lost."""

        is_over = asyncio.Event()

        async def keep() -> None:
            while not is_over.is_set():
                await self.fill()
                await asyncio.sleep(0.02)

        keeping = asyncio.create_task(keep())
        try:
            yield
        finally:
            # Not cancelled: a server that is being started must not be forgotten.
            is_over.set()
            await keeping

    async def end(self) -> None:
        """Lose all servers."""
        for server in self.servers:
            server.kill()
        await asyncio.gather(*(server.gone() for server in self.servers))
        self.servers.clear()

    async def cut(self) -> None:
        """PostgreSQL throws out everybody."""
        await selected(self.store, _CUT)

    # People

    async def ask(
        self, who: str, path: str, payload: Json, *, at: Process | None = None, request_id: str | None = None
    ) -> Answer:
        """One call of somebody's.

        Raises:
            OSError, EOFError: The server was lost.
        """
        server = at or random.choice(self.servers)
        return await request(
            server.port, "POST", path, envelope(payload, request_id), bearing(self.tokens[who])
        )

    async def answered(
        self, who: str, path: str, payload: Json, *, at: Process | None = None, request_id: str | None = None
    ) -> Json:
        """The envelope of the answer to a call that is repeated, at any server, until there is one."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    answer = await self.ask(who, path, payload, at=at, request_id=request_id)
                except (OSError, EOFError, IndexError):
                    await asyncio.sleep(0.02)
                    continue
                if answer.status in (200, 202):
                    return answer.json
                if answer.status == 401:
                    await self._log_in(who)
                else:
                    assert answer.json["retryable"], answer.json
                    await asyncio.sleep(0.05)

    async def run(
        self,
        tool: str,
        parameters: Json | None = None,
        *,
        who: str = "owner",
        at: Process | None = None,
        request_id: str | None = None,
        **more: Any,
    ) -> Json:
        """What executing a tool answers; `more` is `casefile_id` or `session_id`, if not the site's casefile, or a timeout."""
        place = (
            more if more.keys() & {"casefile_id", "session_id"} else {"casefile_id": self.casefile_id, **more}
        )
        call = tool_call(tool, parameters) | place
        told = await self.answered(who, "/v1/sessions/execute", call, at=at, request_id=request_id)
        return told["payload"]

    async def stands(self, event_id: str, who: str = "owner", at: Process | None = None) -> Json:
        """How an operation stands."""
        told = await self.answered(who, "/v1/operations/get", {"event_id": event_id}, at=at)
        return told["payload"]

    async def ended(self, event_id: str, who: str = "owner") -> Json:
        """How an operation ended, as soon as it has."""
        async with asyncio.timeout(PATIENCE_S):
            while (told := await self.stands(event_id, who))["success"] is None:
                await asyncio.sleep(0.05)
        return told

    async def wake(self, *event_ids: str, at: Process | None = None, **how: Any) -> Json:
        """Let a server write that what these wait for has come (see the tool `wakes`)."""
        return await self.run("wakes", {"event_ids": list(event_ids), **how}, at=at)

    async def casefile(self, **roles: str) -> str:
        """A new casefile of the owner's, in which people have these roles."""
        made = await self.answered("owner", "/v1/casefiles/create", {"title": "Rent dispute"})
        casefile_id: str = made["payload"]["casefile_id"]
        for who, role in roles.items():
            grant = {"casefile_id": casefile_id, "user_id": user_of(who), "role": role}
            await self.answered("owner", "/v1/permissions/grant", grant)
        return casefile_id

    async def _log_in(self, who: str) -> None:
        login = {"user_id": user_of(who), "password": _PASSWORD}
        headers = {"content-type": "application/json"}
        for server in self.servers:
            with suppress(OSError, EOFError):
                answer = await request(server.port, "POST", "/v1/auth/token", envelope(login), headers)
                self.tokens[who] = answer.json["payload"]["access_token"]
                return

    # Traces

    def ask_to_die(self, *points: str) -> None:
        """Let the first operation that comes by take its process with it, once for each of these points."""
        for point in points:
            (self.marks / f"die-{point}").touch()

    def touch(self, name: str) -> None:
        """Make a file that a tool waits for."""
        (self.marks / name).touch()

    def lines(self, name: str) -> list[list[str]]:
        """The words of each line that tools have left in a file."""
        path = self.marks / name
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    async def traced(self, name: str, count: int = 1) -> list[list[str]]:
        """The lines of a file, as soon as there are so many."""
        async with asyncio.timeout(PATIENCE_S):
            while len(found := self.lines(name)) < count:
                await asyncio.sleep(0.01)
        return found


def user_of(who: str) -> str:
    """The user id of one of the people."""
    return f"{who}@example.com"


async def _address(kind: str) -> str:
    match kind:
        case "postgresql":
            return await shared_postgres().migrated()
        case "firestore":
            return shared_emulator().address()
        case _:
            return ""


@asynccontextmanager
async def open_site(
    kind: str,
    directory: Path,
    *,
    people: Sequence[str] = ("editor",),
    tools: str = f"{waiting_tools.__name__}:tools",
    drain_s: float = 0.2,
) -> AsyncGenerator[Site]:
    """A new store with an owner, an operator and these people; no server runs yet, and none is left at the end.

    `tools`: what the servers run, as `module:function` of a `MakesTools`.
    """
    store, data, marks = await _address(kind), directory / "data", directory / "marks"
    marks.mkdir()
    search = data / "search.db"
    async with open_test_server(data, store=store, search=search) as server, Api.of(server) as api:
        tokens: dict[str, str] = {}
        for who in ("owner", "operator", *people):
            user_id = await api.account(user_of(who), password=_PASSWORD, operator=who == "operator")
            tokens[who] = await api.token(user_id)
        casefile_id = await api.casefile(tokens["owner"])
    site = Site(kind, store, data, marks, directory / "log", casefile_id, tools, drain_s, tokens)
    try:
        yield site
    finally:
        await site.end()
