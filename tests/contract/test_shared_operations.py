"""What the shared stores promise about operations that several processes may have: one of them, and none for ever."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from casekeeper.journal.commits import Commit
from casekeeper.journal.operations import OpenedOperation, OperationTakenOver
from casekeeper.storage.opening import open_storage
from casekeeper.storage.options import StoreLimits
from tests.contract.holding import holding
from tests.contract.shelf import Shelf
from tests.contract.waiting import park, row_of, running, take_over, waiting
from tests.fakes.firestore import Emulator
from tests.fakes.postgres import Postgres, shared_postgres

pytestmark = pytest.mark.timeout(120)

Shelves = Sequence[Shelf]
# The server that the tests share may have been started just now.
SETTLED = StoreLimits(settle=timedelta())


@pytest.fixture(params=["postgresql", "firestore"])
async def shelves(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> AsyncGenerator[Shelves]:
    """The same store in two processes, `here` and `there`."""
    server: Postgres | None = None
    if request.param == "postgresql":
        server = shared_postgres()
        address = await server.migrated()
    else:
        emulator: Emulator = request.getfixturevalue("emulator")
        address = emulator.address()
    async with AsyncExitStack() as stack:
        opened: list[Shelf] = []
        for owner in ("here", "there"):
            (directory := tmp_path / owner).mkdir()
            shutil.copy(migrated / "casekeeper.db", directory / "search.db")
            storage = await stack.enter_async_context(
                open_storage(address, directory, lambda _: None, limits=SETTLED, owner=owner)
            )
            # From now on it is known to live.
            await storage.events.orphans(owner, 1)
            shelf = await Shelf.filled(storage) if not opened else opened[0]
            opened.append(Shelf(storage, shelf.casefile_id, shelf.session_id, shelf.pseudonyms))
        yield opened
    if server is not None:
        await server.drop(address)


async def test_of_those_who_take_up_the_same_at_once_one_has_it(shelves: Shelves):
    facts = [await waiting(shelves[0], f"waits {number}", until=0) for number in range(20)]
    takers = [(shelf, f"taker {number}") for number, shelf in enumerate((*shelves, *shelves))]

    async def take(shelf: Shelf, owner: str, commit: Commit) -> str | None:
        try:
            await shelf.commit(commit)
        except OperationTakenOver:
            return None
        return owner

    for fact in facts:
        tries = (take(shelf, owner, take_over(fact, owner)) for shelf, owner in takers)
        winners = [owner for owner in await asyncio.gather(*tries) if owner is not None]

        row = await row_of(shelves[1], fact)
        assert [(owner, 2) for owner in winners] == [(row.owner, row.attempt)]


async def test_all_that_waits_is_taken_up_once_by_those_who_race_for_it(shelves: Shelves):
    facts = [await waiting(shelves[0], until=0) for _ in range(20)]
    takers = [(shelf, f"taker {number}") for number, shelf in enumerate((*shelves, *shelves))]

    answers = await asyncio.gather(
        *(shelf.commit(take_over(fact, owner)) for fact in facts for shelf, owner in takers),
        return_exceptions=True,
    )

    refused = [type(one).__name__ for one in answers if isinstance(one, BaseException)]
    assert refused == ["OperationTakenOver"] * 60
    rows = [await row_of(shelves[0], fact) for fact in facts]
    assert {(row.state, row.attempt) for row in rows} == {("running", 2)}
    assert await shelves[0].storage.events.due(100) == []


# Those whose process is lost, or whose answer


def ids(found: Sequence[OpenedOperation]) -> list[str]:
    return [one.row.event_id for one in found]


async def lost_answer(shelf: Shelf, commit: Commit) -> None:
    """As when the store goes away after it was told to commit and before it has answered."""
    commits: Any = shelf.storage.commits
    commits.unconfirmed.add([commit])


async def test_an_orphan_is_found_behind_all_that_lives(shelves: Shelves):
    here, there = shelves
    lost = await running(here, owner="gone")
    for _ in range(3):
        await running(here, owner="there")

    assert ids(await here.storage.events.orphans("here", 1)) == [lost.event_id]
    assert ids(await there.storage.events.orphans("there", 1)) == [lost.event_id]


async def test_what_was_taken_up_without_an_answer_is_an_orphan_though_its_process_lives(shelves: Shelves):
    here, there = shelves
    fact = await waiting(here, until=0)
    taking = take_over(fact, "here")
    await here.commit(taking)
    before = await here.storage.events.orphans("here", 10)

    await lost_answer(here, taking)

    assert before == []
    assert here.storage.is_sweep_due.is_set()
    assert ids(await here.storage.events.orphans("here", 10)) == [fact.event_id]
    # It is this process that does not know; to the others it is one that lives.
    assert await there.storage.events.orphans("there", 10) == []


async def test_what_another_took_up_meanwhile_is_left_to_it(shelves: Shelves):
    here, there = shelves
    fact = await waiting(here, until=0)
    await there.commit(take_over(fact, "there"))

    await lost_answer(here, take_over(fact, "here"))

    assert await here.storage.events.orphans("here", 10) == []


# Held up


async def test_what_waits_for_a_casefile_that_somebody_holds_holds_up_no_other(database: str, tmp_path: Path):
    async with open_storage(database, tmp_path, lambda _: None) as storage:
        shelf = await Shelf.filled(storage)
        other = await shelf.casefile("cf_260301_ffffff")
        session = await shelf.session(casefile_id=other.casefile_id)
        held = await running(shelf)
        free = await running(shelf, session_id=session.session_id, casefile_id=other.casefile_id)
        async with holding(database, shelf.casefile_id):
            waits = asyncio.create_task(shelf.commit(park(held)))
            async with asyncio.timeout(10):
                await shelf.commit(park(free))
            was_done = waits.done()
        await waits

        assert not was_done
