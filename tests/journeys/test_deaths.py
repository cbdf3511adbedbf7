"""Two servers on one PostgreSQL, of which one dies, or only loses its way to the database."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from casekeeper.storage.postgres.locks import lock_number
from tests.fakes.postgres import running_postgres, selected, shared_postgres
from tests.journeys.support import Answer, Json, Nursery, bearing, envelope, request, tool_call
from tests.support import Api, House, open_test_server

pytestmark = pytest.mark.timeout(180)

# Nothing here waits for the sweep: it never comes.
NEVER = timedelta(days=1)
_UP_S = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"
_HOLDERS = """SELECT pid FROM pg_locks
WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32) | objid::bigint = {number}"""


@dataclass
class Pair:
    """A server in this process, which looks on, and one in a process of its own, which works."""

    store: str
    api: Api
    house: House
    nursery: Nursery
    marks: Path

    async def run(self, name: str, parameters: Json) -> Answer:
        """Run a tool at the other server."""
        body = envelope(tool_call(name, parameters, casefile_id=self.house.casefile_id))
        headers = bearing(self.house["editor"])
        return await request(self.nursery.port, "POST", "/v1/sessions/execute", body, headers)

    async def facts(self, *kinds: str) -> list[Json]:
        """What is on the record of these kinds, as this server reads it."""
        wanted = {"casefile_id": self.house.casefile_id, "view": "journal", "kinds": kinds}
        found = await self.api.ask("/v1/events/query", wanted, token=self.house["editor"])
        return found["items"]

    async def until(self, *kinds: str) -> Json:
        """The first fact of these kinds, as soon as there is one."""
        async with asyncio.timeout(60):
            while not (found := await self.facts(*kinds)):
                await asyncio.sleep(0.02)
        return found[0]

    async def connections(self) -> list[int]:
        """The database's processes by which the other server is known to live."""
        [(owner,)] = await selected(self.store, "SELECT owner FROM open_operations")
        held = await selected(self.store, _HOLDERS.format(number=lock_number(f"process {owner}")))
        return [pid for (pid,) in held]


@asynccontextmanager
async def pair(directory: Path, store: str) -> AsyncGenerator[Pair]:
    """Both servers at work, on a database that has been up for long enough."""
    while (await selected(store, _UP_S))[0][0] < 16:
        await asyncio.sleep(0.5)
    async with (
        open_test_server(directory / "a", store=store, sweep_every=NEVER) as server,
        Api.of(server) as api,
    ):
        house = await api.house()
        shutil.copytree(directory / "a" / "keys", directory / "b" / "keys")
        nursery = Nursery(directory / "b", directory / "marks", store)
        try:
            await nursery.start()
            yield Pair(store, api, house, nursery, directory / "marks")
        finally:
            nursery.close()


async def test_what_a_killed_server_ran_is_closed_long_before_a_sweep(tmp_path: Path) -> None:
    async with pair(tmp_path, await shared_postgres().migrated()) as both:
        running = asyncio.create_task(both.run("mark", {"marker": "lost", "pause_ms": 600_000}))
        started = await both.until("started")

        both.nursery.kill()
        ended = await both.until("interrupted", "succeeded", "failed")
        await asyncio.gather(running, return_exceptions=True)

    assert (ended["event_id"], ended["kind"]) == (started["event_id"], "interrupted")
    assert ended["error"]["retryable"]


async def test_a_busy_server_whose_connections_are_all_cut_keeps_its_work(tmp_path: Path) -> None:
    async with pair(tmp_path, await shared_postgres().migrated()) as both:
        hogging = {"marker": "busy", "busy_ms": 2_500, "pause_ms": 2_500}
        running = asyncio.create_task(both.run("hog", hogging))
        async with asyncio.timeout(60):
            while not (tmp_path / "busy").exists():
                await asyncio.sleep(0.01)

        before = await both.connections()
        await selected(both.store, f"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY{before}) AS pid")
        answer = (await running).json
        facts = await both.facts("succeeded", "interrupted", "failed")

    assert len(before) == 2
    assert answer["payload"]["success"], answer
    assert [fact["kind"] for fact in facts] == ["succeeded"]


async def test_a_restart_of_the_database_costs_a_server_that_comes_back_late_nothing(tmp_path: Path) -> None:
    with running_postgres() as server:
        async with pair(tmp_path, await server.migrated()) as both:
            running = asyncio.create_task(both.run("mark", {"marker": "kept", "pause_ms": 3_000}))
            await both.until("started")

            # Far too late, were the server of the database not known to have been away.
            os.kill(both.nursery.pid, signal.SIGSTOP)
            server.kill()
            server.start()
            await asyncio.sleep(4)
            os.kill(both.nursery.pid, signal.SIGCONT)
            answer = (await running).json
            facts = await both.facts("succeeded", "interrupted", "failed")

    assert answer["payload"]["success"], answer
    assert [fact["kind"] for fact in facts] == ["succeeded"]
