"""Stores that go away and come back, or become slow, while a server works on them for several clients."""

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from casekeeper.server import open_server
from casekeeper.settings import Settings
from casekeeper.verify import verify
from tests.fakes.firestore import running_emulator
from tests.fakes.postgres import Postgres, running_postgres
from tests.fakes.proxy import proxy_to
from tests.journeys.deployed import Deployed, deployed
from tests.journeys.support import Answer, Json, bearing, request, soaking, tool_call
from tests.support import stored

pytestmark = pytest.mark.timeout(600 if soaking() else 180)

CLIENTS = 6
OUTAGES = 5 if soaking() else 1
# Each call makes many ways to the store, one after the other.
DELAY_S = 0.5 if soaking() else 0.1
OUTAGE_S = 5.0 if soaking() else 1.0
# Beyond the ten seconds that a call may take, in the long form.
HANG_S = 15.0 if soaking() else 1.0
# Nothing is measured here but in the long form; a server that is not back by then never comes.
_PATIENCE_S = 60


@dataclass
class Load:
    """Clients that work until they are told to stop, and what they were told."""

    server: Deployed
    told: dict[str, Json] = field(default_factory=dict[str, Json])
    refusals: list[Answer] = field(default_factory=list[Answer])
    answers: Counter[int] = field(default_factory=Counter[int])
    stopped: bool = False

    async def client(self, number: int) -> None:
        """Asks, and asks again where it was refused."""
        casefile_id = await self.server.casefile()
        turn = 0
        while not self.stopped:
            request_id = f"client-{number}-{turn}"
            call = tool_call("note_add", {"text": request_id}, casefile_id=casefile_id)
            answer = await self.server.ask("/v1/sessions/execute", call, request_id)
            if answer.status == 200:
                self.told[request_id] = answer.json["payload"]
                self.answers[number] += 1
                turn += 1
            else:
                self.refusals.append(answer)
                await asyncio.sleep(0.05)

    async def each(self, more: int) -> None:
        """Returns when every client was answered so many times more."""
        before = Counter(self.answers)
        async with asyncio.timeout(_PATIENCE_S):
            while any(self.answers[number] < before[number] + more for number in range(CLIENTS)):
                await asyncio.sleep(0.01)

    async def noticed(self) -> None:
        """Returns when somebody was refused once more. Others wait: what ran when the store went away still ends."""
        before = len(self.refusals)
        async with asyncio.timeout(_PATIENCE_S):
            while len(self.refusals) == before:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def loaded(server: Deployed) -> AsyncGenerator[Load]:
    """A server at which clients are at work."""
    load = Load(server)
    clients = [asyncio.create_task(load.client(number)) for number in range(CLIENTS)]
    try:
        await load.each(3)
        yield load
        load.stopped = True
        await asyncio.wait_for(asyncio.gather(*clients), _PATIENCE_S)
    finally:
        for client in clients:
            client.cancel()


async def outages(
    load: Load, cut: Callable[[], Awaitable[None]], mend: Callable[[], Awaitable[None]]
) -> list[float]:
    """Take the store away and bring it back; returns after how many seconds each time all were served again."""
    took_s: list[float] = []
    for _ in range(OUTAGES):
        await cut()
        await load.noticed()
        await asyncio.sleep(OUTAGE_S)
        await mend()
        back = time.perf_counter()
        await load.each(1)
        took_s.append(time.perf_counter() - back)
        await load.each(3)
    return took_s


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Print a figure where it is asked for."""
    if soaking():
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201 - what the long form is run for


async def nothing_lost(load: Load, data: Path, store: str) -> None:
    """What was acknowledged is on the record once, as it was told, and the record verifies."""
    lines: list[bytes] = []
    async with open_server(Settings(data=data, store=store)) as server:
        for session_id, casefile_id in await stored(server, "sessions", "session_id", "casefile_id"):
            lines += [line async for line in server.sessions.recording.of_session(casefile_id, session_id)]
    facts = [json.loads(line) for line in lines]
    ended = {f["header"]["event_id"]: f for f in facts if "ended_at" in f["header"] and f["payload"]}
    starts = Counter(f["header"]["request_id"] for f in facts if f["header"]["kind"] == "started")

    assert [f.message for f in verify(lines).findings] == []
    assert {
        r: json.loads(ended[told["event_id"]]["payload"]).get("outputs") for r, told in load.told.items()
    } == {r: told["outputs"] for r, told in load.told.items()}
    assert {r: starts[r] for r in load.told} == dict.fromkeys(load.told, 1)
    # What ran could not write, or its start was written and the answer to that was lost, so that nobody ran it.
    failures = {told["error"]["type"] for told in load.told.values() if not told["success"]}
    assert failures <= {"process_gone", "store_unavailable"}


def only_unavailable(load: Load) -> None:
    """Who was refused was told that it is not his fault, and when to come back."""
    told = Counter(
        (
            a.status,
            a.headers["content-type"],
            a.json["code"],
            a.json["retryable"],
            int(a.headers["retry-after"]) > 0,
        )
        for a in load.refusals
    )
    assert set(told) <= {
        (503, "application/problem+json", code, True, True) for code in ("store_unavailable", "overloaded")
    }, told


def no_traceback(log: Path) -> None:
    """Nothing happened of which the operator would be told as of a fault in the program."""
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "two workers"])
async def test_postgresql_restarts_under_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    with running_postgres() as postgres:
        store = await postgres.make()
        async with deployed(
            data, *options, log=log, store=store, limit_user="0", limit_casefile="0"
        ) as server:
            async with loaded(server) as load:

                async def kill() -> None:
                    await asyncio.to_thread(postgres.kill)

                async def start() -> None:
                    await asyncio.to_thread(postgres.start)

                took_s = await outages(load, kill, start)
            code, _ = await server.stop()
        tell(capsys, f"PostgreSQL: all clients served again after {[round(s, 2) for s in took_s]} s")

        assert code == 0
        only_unavailable(load)
        no_traceback(log)
        await nothing_lost(load, data, store)


async def test_firestore_restarts_and_hangs_under_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    with running_emulator() as emulator:
        async with proxy_to(emulator.host) as proxy:
            store = emulator.address()
            way = store.replace(emulator.host, proxy.host)
            async with deployed(data, log=log, store=way, limit_user="0", limit_casefile="0") as server:
                async with loaded(server) as load:
                    exported = list[Path]()

                    async def kill() -> None:
                        # It keeps all in memory. What it has answered by now it must have after the restart, too.
                        await proxy.cut()
                        exported.append(await asyncio.to_thread(emulator.export, store, tmp_path))
                        emulator.kill()

                    async def start() -> None:
                        await asyncio.to_thread(emulator.start, exported[-1])
                        await proxy.mend()

                    took_s = await outages(load, kill, start)
                    emulator.signal(signal.SIGSTOP)
                    await asyncio.sleep(HANG_S)
                    emulator.signal(signal.SIGCONT)
                    awake = time.perf_counter()
                    await load.each(1)
                    took_s.append(time.perf_counter() - awake)
                    await load.each(3)
                code, _ = await server.stop()
            tell(capsys, f"Firestore: all clients served again after {[round(s, 2) for s in took_s]} s")

        assert code == 0
        only_unavailable(load)
        no_traceback(log)
        await nothing_lost(load, data, store)


class Slow:
    """A server whose store answers late, and what comes back from it, in order."""

    def __init__(self, server: Deployed) -> None:
        self._server = server
        self.order: list[str] = []

    async def ask(self, name: str, path: str, payload: Json | None = None) -> int:
        """A call; its status."""
        if payload is None:
            answer = await request(self._server.port, "GET", path, headers=bearing(self._server.token))
        else:
            answer = await self._server.ask(path, payload)
        self.order.append(name)
        return answer.status


@pytest.mark.parametrize("kind", ["postgresql", "firestore"])
async def test_a_slow_store_does_not_hold_up_what_does_not_need_it(tmp_path: Path, kind: str) -> None:
    with running_postgres() if kind == "postgresql" else running_emulator() as there:
        store = await there.make() if isinstance(there, Postgres) else there.address()
        host = urlsplit(store).netloc.rpartition("@")[2] if isinstance(there, Postgres) else there.host
        async with (
            proxy_to(host) as proxy,
            deployed(tmp_path / "data", store=store.replace(host, proxy.host)) as server,
        ):
            casefiles = [await server.casefile() for _ in range(3)]
            proxy.delay_s, slow = DELAY_S, Slow(server)
            noted = [
                asyncio.create_task(
                    slow.ask(
                        "noted", "/v1/sessions/execute", tool_call("note_add", {"text": "x"}, casefile_id=one)
                    )
                )
                for one in casefiles
            ]
            await asyncio.sleep(0)
            quick = [await slow.ask("quick", "/livez") for _ in range(20)]
            wrong = [await slow.ask("quick", "/v1/casefiles/get", {"casefile_id": "?"}) for _ in range(3)]
            statuses = await asyncio.gather(*noted)
            proxy.delay_s = 0.0

    assert (quick, wrong, statuses) == ([200] * 20, [422] * 3, [200] * 3)
    assert slow.order == ["quick"] * 23 + ["noted"] * 3
