"""`serve --workers N`: several processes behind one port are one server."""

import asyncio
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from casekeeper.cli.exits import UNAVAILABLE, Stop
from casekeeper.cli.workers import Patience, supervise
from casekeeper.settings import Settings
from tests.fakes.firestore import running_emulator
from tests.fakes.postgres import running_postgres, shared_postgres
from tests.journeys.deployed import Deployed, begun, deployed, gone

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=["postgresql", "firestore"])
def empty(request: pytest.FixtureRequest) -> Generator[str]:
    """A store without tables or layout."""
    if request.param == "postgresql":
        yield asyncio.run(shared_postgres().make())
    else:
        with running_emulator() as emulator:
            yield emulator.address()


async def seen(server: Deployed, marks: Path, count: int, but: int = 0) -> set[int]:
    """The process ids of so many workers, without this one, that answer calls."""
    (marks / "go").touch()
    casefile_id, found = await server.casefile(), set[int]()
    async with asyncio.timeout(120):
        while len(found) < count:
            answers = await asyncio.gather(*(server.hold(casefile_id, marks) for _ in range(8)))
            found |= {answer.json["payload"]["outputs"] for answer in answers} - {but}
    return found


async def test_workers_share_a_port_and_one_that_dies_is_replaced(tmp_path: Path, empty: str) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    async with deployed(tmp_path / "data", "--workers", "2", store=empty) as server:
        first = await seen(server, marks, 2)
        killed = first.pop()
        os.kill(killed, signal.SIGKILL)
        await gone(killed)
        then = await seen(server, marks, 2, but=killed)
        code, err = await server.stop()
        for pid in then:
            await gone(pid)

    assert [line["event"] for line in server.lines] == ["first_login", "ready"]
    assert first < then
    assert code == 0
    assert [line.partition(": ")[2] for line in err.splitlines()] == [
        "a worker ended with exit code -9; another takes its place"
    ]


async def test_what_runs_in_workers_ends_while_they_stop(tmp_path: Path) -> None:
    store, marks = await shared_postgres().make(), tmp_path / "marks"
    async with deployed(tmp_path / "data", "--workers", "2", store=store, drain_s="60") as server:
        casefile_id = await server.casefile()
        held = [asyncio.create_task(server.hold(casefile_id, marks)) for _ in range(4)]
        await begun(marks, 4)
        server.process.terminate()
        (marks / "go").touch()
        answers = await asyncio.gather(*held)
        ended = await server.stop()

    assert [answer.json["status"] for answer in answers] == ["completed"] * 4
    assert ended == (0, "")


async def test_workers_end_when_nobody_watches_them_any_more(tmp_path: Path) -> None:
    store, marks = await shared_postgres().make(), tmp_path / "marks"
    marks.mkdir()
    async with deployed(tmp_path / "data", "--workers", "2", store=store) as server:
        workers = await seen(server, marks, 2)
        server.process.kill()
        await server.process.communicate()
        for pid in workers:
            await gone(pid)


async def test_a_server_whose_workers_end_again_and_again_gives_up_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ready: list[str] = []
    with running_postgres() as postgres:
        settings = Settings(data=tmp_path / "data", store=await postgres.migrated(), workers=2, port=0)
        with pytest.raises(Stop, match="ended 2 times in a row, at last with exit code") as stop:
            await supervise(
                settings, lambda _: postgres.kill(), ready.append, Patience(tries=2, pause_s=0.01)
            )

    assert (stop.value.code, ready) == (UNAVAILABLE, [])
    assert caplog.messages.count(f"a worker ended with exit code {UNAVAILABLE}; another takes its place") >= 1
