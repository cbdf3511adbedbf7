"""Helpers of the tests: a server that opens fast, tools that misbehave on demand, a small client, people with roles."""

import asyncio
import atexit
import functools
import hashlib
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import httpx2
import pytest
import uvicorn
from argon2 import PasswordHasher
from fastapi import FastAPI

from casekeeper.acl import Effect
from casekeeper.asgi import create_app
from casekeeper.clock import Clock, utc_now
from casekeeper.documents.document import NewDocument
from casekeeper.identity.accounts import Account, PutAccount, StoredAccount
from casekeeper.identity.passwords import Passwords
from casekeeper.ids import new_pseudonym
from casekeeper.journal.commits import Commit
from casekeeper.operations.context import MDSContext
from casekeeper.operations.operation import ToolCall
from casekeeper.operations.tools import Tool, tool
from casekeeper.server import Server, open_server
from casekeeper.settings import Settings
from casekeeper.storage.sqlite.opening import migrate

Json = dict[str, Any]

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROLES = ("viewer", "editor", "admin")


def unavailable(what: str) -> NoReturn:
    """Skip because a backend is missing here; in CI nothing may be missing, so there it is a failure."""
    if os.environ.get("CI") == "true":  # noqa: TID251 - CI is not a setting of casekeeper
        pytest.fail(f"{what} is missing, and in CI nothing may be")
    pytest.skip(f"{what} is missing here")


class SteppableClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def step(self, **duration: float) -> None:
        """Go on by `timedelta(**duration)`."""
        self.now += timedelta(**duration)


@dataclass
class Workshop:
    """Tools that tests control: `waits` runs until `release` is set, `runs` counts how often each began."""

    release: asyncio.Event = field(default_factory=asyncio.Event)
    runs: Counter[str] = field(default_factory=Counter[str])
    ended: Counter[str] = field(default_factory=Counter[str])

    async def until_running(self, name: str, times: int = 1) -> None:
        """Return when a tool has begun that often."""
        async with asyncio.timeout(10):
            while self.runs[name] < times:
                await asyncio.sleep(0.002)

    def tools(self) -> list[Tool]:
        """All tools, bound to this workshop."""
        return [*_harmless_tools(self), *_waiting_tools(self), *_misbehaving_tools(self)]


def _harmless_tools(shop: Workshop) -> list[Tool]:
    @tool(effects={Effect.READ})
    async def noop(call: MDSContext) -> dict[str, Any]:
        """Do nothing."""
        shop.runs["noop"] += 1
        return {}

    @tool(effects={Effect.READ})
    async def echo(call: MDSContext, value: Any = None) -> Any:
        """Return what came in."""
        shop.runs["echo"] += 1
        return value

    @tool(effects={Effect.WRITE})
    async def touch(call: MDSContext) -> str:
        """Need the role of an editor."""
        shop.runs["touch"] += 1
        return call.event_id

    @tool(effects={Effect.DESTRUCTIVE})
    async def shred(call: MDSContext) -> str:
        """Need the role of an admin."""
        return call.event_id

    @tool(effects={Effect.READ})
    async def progress(call: MDSContext, steps: int = 3) -> int:
        """Tell of each step."""
        for step in range(steps):
            call.progress({"step": step})
            await asyncio.sleep(0)
        return steps

    @tool(effects={Effect.READ})
    async def nested(call: MDSContext, name: str, parameters: dict[str, Any] | None = None) -> Any:
        """Run another tool inside this one."""
        return await call.invoke(ToolCall(operation_type="tool", tool_name=name, parameters=parameters or {}))

    return [noop, echo, touch, shred, progress, nested]


def _waiting_tools(shop: Workshop) -> list[Tool]:
    @tool(effects={Effect.WRITE})
    async def waits_writing(call: MDSContext) -> str:
        """Wait until the test says go, with an editor's rights."""
        shop.runs["waits_writing"] += 1
        await shop.release.wait()
        return "released"

    @tool(effects={Effect.READ})
    async def waits(call: MDSContext) -> str:
        """Wait until the test says go."""
        shop.runs["waits"] += 1
        try:
            await shop.release.wait()
        finally:
            shop.ended["waits"] += 1
        return "released"

    @tool(effects={Effect.READ}, timeout=timedelta(seconds=0.1))
    async def hangs(call: MDSContext) -> None:
        """Never end."""
        await asyncio.Event().wait()

    @tool(effects={Effect.READ}, timeout=timedelta(seconds=0.1))
    async def ignores_cancellation(call: MDSContext) -> str:
        """End when the test says so, however often it is cancelled."""
        shop.runs["ignores_cancellation"] += 1
        while not shop.release.is_set():
            try:
                await shop.release.wait()
            except asyncio.CancelledError:
                shop.ended["ignores_cancellation"] += 1
        return "too late"

    @tool(effects={Effect.WRITE})
    async def writes_on_and_on(call: MDSContext) -> None:
        """File notes until it is stopped."""
        for number in range(100_000):
            raw = f"{call.event_id} {number}".encode()
            note = NewDocument(kind="note", title="n", raw=raw, sha256=raw.hex(), source="test")
            await call.documents.add([note])
            shop.runs["writes_on_and_on"] += 1

    return [waits_writing, waits, hangs, ignores_cancellation, writes_on_and_on]


class _CannotBeTold(Exception):
    def __str__(self) -> str:
        raise ValueError("nor can this")


def _misbehaving_tools(shop: Workshop) -> list[Tool]:
    @tool(effects={Effect.READ})
    async def raises(call: MDSContext, message: str = "the tool broke") -> None:
        """Raise."""
        raise ValueError(message)

    @tool(effects={Effect.READ})
    async def raises_surrogates(call: MDSContext) -> None:
        """Raise with a message that is no text."""
        raise ValueError("half a pair: \ud800")

    @tool(effects={Effect.READ})
    async def raises_unprintable(call: MDSContext) -> None:
        """Raise what cannot be turned into text."""
        raise _CannotBeTold

    @tool(effects={Effect.READ})
    async def exits(call: MDSContext) -> None:
        """Try to end the process."""
        sys.exit(3)

    @tool(effects={Effect.READ})
    async def returns_bytes(call: MDSContext, size: int) -> str:
        """Return this much text."""
        return "x" * size

    @tool(effects={Effect.READ})
    async def returns_object(call: MDSContext) -> object:
        """Return what is not JSON."""
        return object()

    @tool(effects={Effect.READ})
    async def returns_nan(call: MDSContext) -> float:
        """Return a number that JSON does not know."""
        return float("nan")

    @tool(effects={Effect.READ})
    async def returns_nested(call: MDSContext, depth: int) -> list[Any]:
        """Return lists in lists."""
        value: list[Any] = []
        for _ in range(depth):
            value = [value]
        return value

    @tool(effects={Effect.READ})
    async def tells_objects(call: MDSContext) -> str:
        """Tell progress that is not JSON."""
        call.progress({"object": object(), "big": 2**70})
        await asyncio.sleep(0.05)
        return "told"

    return [
        raises,
        raises_surrogates,
        raises_unprintable,
        exits,
        returns_bytes,
        returns_object,
        returns_nan,
        returns_nested,
        tells_objects,
    ]


@functools.cache
def _migrated() -> Path:
    """A data directory at the newest schema; migrating takes most of the time that opening takes."""
    directory = Path(tempfile.mkdtemp(prefix="casekeeper-template-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    migrate(directory / "casekeeper.db")
    return directory


def chosen_store() -> str:
    """On which store the tests of the doors run."""
    return os.environ.get("TEST_STORE", "sqlite")  # noqa: TID251 - not a setting of casekeeper


_databases: dict[Path, str] = {}


async def _database_of(directory: Path) -> str:
    from tests.fakes.postgres import shared_postgres

    if directory not in _databases:
        _databases[directory] = await shared_postgres().migrated()
    return _databases[directory]


async def drop_databases_of(directory: Path) -> None:
    """Take away the databases of all servers whose data lay in the directory."""
    from tests.fakes.postgres import shared_postgres

    for made in [one for one in _databases if one.is_relative_to(directory)]:
        await shared_postgres().drop(_databases.pop(made))


def cheap_passwords() -> Passwords:
    """Hashes that cost nothing."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def _project_of(directory: Path) -> str:
    from tests.fakes.firestore import shared_emulator

    project = "test-" + hashlib.sha256(str(directory).encode()).hexdigest()[:20]
    return f"firestore://{project}?emulator={shared_emulator().host}"


@asynccontextmanager
async def open_test_server(
    directory: Path,
    *,
    workshop: Workshop | None = None,
    clock: Clock = utc_now,
    sweep_every: timedelta = timedelta(seconds=30),
    **settings: Any,
) -> AsyncGenerator[Server]:
    """A server on this data directory, made if missing, with the workshop's tools on top of the built-in ones.

    With TEST_STORE=postgresql its store is a database, made with the directory and the same whenever it is opened;
    with TEST_STORE=firestore a project of the emulator, likewise.
    """
    values: Json = {"drain_s": 0, "public_url": "https://casekeeper.test", **settings}
    if "store" in values:
        directory.mkdir(parents=True, exist_ok=True)
    elif chosen_store() == "postgresql":
        values["store"] = await _database_of(directory)
    elif chosen_store() == "firestore":
        values |= {"store": _project_of(directory), "search": directory / "casekeeper.db"}
    if chosen_store() != "postgresql" and not directory.exists():
        shutil.copytree(_migrated(), directory)
    chosen = Settings(data=directory, **values)
    tools = (workshop or Workshop()).tools()
    passwords = cheap_passwords()
    async with open_server(
        chosen, clock=clock, tools=tools, passwords=passwords, sweep_every=sweep_every
    ) as server:
        yield server


@dataclass
class House:
    """A casefile with one user in each role, and two who have none. Values of `tokens` by that word."""

    casefile_id: str
    users: dict[str, str]
    tokens: dict[str, str]

    def __getitem__(self, who: str) -> str:
        """The access token of this role (`owner`, `admin`, `editor`, `viewer`, `stranger`, `operator`)."""
        return self.tokens[who]


@dataclass
class Api:
    """The HTTP door in process; no socket, no port."""

    server: Server
    http: httpx2.AsyncClient
    app: FastAPI

    @classmethod
    @asynccontextmanager
    async def of(cls, server: Server) -> "AsyncGenerator[Api]":
        """A client of this server. What escapes the application is raised here, as a test wants it."""
        app = create_app()
        app.state.server = server
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://casekeeper.test") as http:
            yield cls(server, http, app)

    async def post(
        self,
        path: str,
        payload: Any,
        *,
        token: str | None = None,
        request_id: str | None = None,
        user_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """POST the payload in its envelope."""
        body: Json = {"payload": payload}
        body |= {"request_id": request_id} if request_id is not None else {}
        body |= {"user_id": user_id} if user_id is not None else {}
        return await self.http.post(path, json=body, headers={**bearer(token), **(headers or {})})

    async def get(
        self, path: str, *, token: str | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """GET a path."""
        return await self.http.get(path, headers={**bearer(token), **(headers or {})})

    async def ask(self, path: str, payload: Any, *, token: str, request_id: str | None = None) -> Any:
        """The payload of an answer that must be a good one."""
        response = await self.post(path, payload, token=token, request_id=request_id)
        assert response.status_code in (200, 202), response.text
        return response.json()["payload"]

    async def run(
        self, token: str, tool_name: str, parameters: Json | None = None, /, **more: Any
    ) -> httpx2.Response:
        """Execute a tool; `more` is `casefile_id`, `session_id`, `mode`, `timeout_s`, or `request_id`."""
        request_id = more.pop("request_id", None)
        operation = {"operation_type": "tool", "tool_name": tool_name, "parameters": parameters or {}}
        payload = {"operation": operation, **more}
        return await self.post("/v1/sessions/execute", payload, token=token, request_id=request_id)

    async def account(self, user_id: str, *, password: str | None = None, operator: bool = False) -> str:
        """Make an account; returns its user id."""
        made = Account(
            user_id=user_id,
            is_operator=operator,
            created_at=self.server.clock(),
            pseudonym=new_pseudonym(),
        )
        password_hash = await cheap_passwords().hash(password) if password else None
        stored = StoredAccount(made, password_hash)
        await self.server.storage.commits.commit(Commit(records=(PutAccount(stored),)))
        return user_id

    async def token(self, user_id: str) -> str:
        """A fresh access token that carries no scopes."""
        return (await self.server.identity.logins.mint_for(user_id)).access_token

    async def user(self, name: str) -> tuple[str, str]:
        """A new account `name@example.com` and its token."""
        user_id = await self.account(f"{name}@example.com")
        return user_id, await self.token(user_id)

    async def casefile(self, token: str, title: str = "Rent dispute", **fields: Any) -> str:
        """Make a casefile; returns its id."""
        made = await self.ask("/v1/casefiles/create", {"title": title, **fields}, token=token)
        return made["casefile_id"]

    async def grant(self, token: str, casefile_id: str, user_id: str, role: str, **more: Any) -> None:
        """Give a role."""
        payload = {"casefile_id": casefile_id, "user_id": user_id, "role": role, **more}
        await self.ask("/v1/permissions/grant", payload, token=token)

    async def session(self, token: str, casefile_id: str, **fields: Any) -> str:
        """Open a session; returns its id."""
        made = await self.ask("/v1/sessions/create", {"casefile_id": casefile_id, **fields}, token=token)
        return made["session_id"]

    async def house(self, prefix: str = "", **fields: Any) -> House:
        """A casefile with an owner, an admin, an editor and a viewer; a stranger and an operator outside."""
        users = {who: f"{prefix}{who}@example.com" for who in ("owner", *ROLES, "stranger", "operator")}
        for who, user_id in users.items():
            await self.account(user_id, operator=who == "operator")
        tokens = {who: await self.token(user_id) for who, user_id in users.items()}
        casefile_id = await self.casefile(tokens["owner"], **fields)
        for role in ROLES:
            await self.grant(tokens["owner"], casefile_id, users[role], role)
        return House(casefile_id, users, tokens)

    async def facts(self) -> list[tuple[str, str, str]]:
        """(session id, kind, event id) of every fact in the store, in the order in which they were written."""
        return await stored(self.server, "events", "session_id", "kind", "event_id", by="rid")


async def stored(server: Server, table: str, *names: str, by: str = "") -> list[Any]:
    """These columns, or fields, of all that a store holds of a kind, read past the doors."""
    if server.settings.store.startswith("firestore:"):
        from tests.fakes.firestore import documents_in

        return documents_in(server.settings.store, table, *names)
    order = f" ORDER BY {by}" if by else ""
    return await rows_of(server, f"SELECT {', '.join(names)} FROM {table}{order}")


async def rows_of(server: Server, sql: str) -> list[Any]:
    """All rows of a statement, read past the doors."""
    if server.settings.store:
        from tests.fakes.postgres import selected

        return await selected(server.settings.store, sql)
    with closing(sqlite3.connect(server.settings.data / "casekeeper.db")) as connection:
        return connection.execute(sql).fetchall()


def bearer(token: str | None) -> dict[str, str]:
    """The header that carries a token."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def listening(server: Server) -> AsyncGenerator[str]:
    """The address of a real HTTP server on loopback: streams and broken connections need sockets."""
    app = create_app()
    app.state.server = server
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        web = uvicorn.Server(config)
        serving = asyncio.ensure_future(web.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(10):
                while not web.started:
                    await asyncio.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            web.should_exit = True
            await serving
