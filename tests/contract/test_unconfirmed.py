"""Operations of which a process does not know whether it has them, on the stores that several processes share."""

import shutil
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Fact
from casekeeper.journal.operations import (
    NOBODY,
    Held,
    OpenOperation,
    OwnedBy,
    ParkOperation,
    TakeOver,
    operation_of,
)
from casekeeper.storage.opening import open_storage
from casekeeper.storage.unconfirmed import Unconfirmed
from tests.contract.shelf import NOW, Shelf
from tests.fakes.firestore import Emulator
from tests.fakes.postgres import Postgres

pytestmark = pytest.mark.timeout(120)

HELD = Held(depth=0, left=timedelta(seconds=60))


class Site:
    """A store as the process `here` has it."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        commits: Any = shelf.storage.commits
        self.unconfirmed: Unconfirmed = commits.unconfirmed

    def starting(self) -> tuple[Fact, Commit]:
        """An operation that parks, and its start here."""
        fact = self.shelf.started()
        opening = self.shelf.opening(fact, owner="here")
        [row] = [one for one in opening.records if isinstance(one, OpenOperation)]
        return fact, replace(opening, records=(replace(row, held=HELD),))

    async def started(self) -> Fact:
        """An operation that parks, running here."""
        fact, starting = self.starting()
        await self.shelf.commit(starting)
        return fact

    async def park(self, fact: Fact, attempt: int = 1) -> None:
        """Let it wait."""
        owned, park = (
            OwnedBy(operation_of(fact), "here", attempt),
            ParkOperation(operation_of(fact), HELD, NOW),
        )
        await self.shelf.commit(Commit((), (owned,), (park,)))

    def taking_up(self, fact: Fact, attempt: int = 1) -> Commit:
        """Going on with what waited here or elsewhere."""
        waits = OwnedBy(operation_of(fact), NOBODY, attempt)
        return Commit((), (waits,), (TakeOver(operation_of(fact), "here", HELD),))

    async def orphans(self) -> list[str]:
        """What is taken for lost."""
        return [one.row.event_id for one in await self.shelf.storage.events.orphans("here", 10)]


@pytest.fixture(params=["postgresql", "firestore"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Site]:
    """A store, open as `here`."""
    directory = tmp_path / "data"
    if request.param == "firestore":
        emulator: Emulator = request.getfixturevalue("emulator")
        address = emulator.address()
        directory.mkdir()
        shutil.copy(request.getfixturevalue("migrated") / "casekeeper.db", directory / "search.db")
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        address = await postgres.migrated()
    async with open_storage(address, directory, lambda _: None, owner="here") as storage:
        opened = Site(await Shelf.filled(storage))
        # On Firestore a process is known from its first look on.
        assert await opened.orphans() == []
        yield opened


async def test_a_start_in_doubt_is_lost_until_it_was_handed_on(site: Site):
    fact, starting = site.starting()
    await site.shelf.commit(starting)
    site.unconfirmed.add([starting])

    assert await site.orphans() == [fact.event_id]
    await site.park(fact)
    assert await site.orphans() == []


async def test_what_waits_still_though_its_taking_up_is_in_doubt_is_not_lost(site: Site):
    fact = await site.started()
    await site.park(fact)
    site.unconfirmed.add([site.taking_up(fact)])

    assert await site.orphans() == []


async def test_a_taking_up_in_doubt_that_was_written_is_lost(site: Site):
    fact = await site.started()
    await site.park(fact)
    await site.shelf.commit(site.taking_up(fact))
    site.unconfirmed.add([site.taking_up(fact)])

    assert await site.orphans() == [fact.event_id]


async def test_what_was_taken_up_in_a_second_try_is_not_lost(site: Site):
    fact = await site.started()
    await site.park(fact)
    site.unconfirmed.add([site.taking_up(fact)])
    await site.shelf.commit(site.taking_up(fact))

    assert await site.orphans() == []


async def test_what_was_taken_up_again_since_is_not_lost(site: Site):
    fact = await site.started()
    await site.park(fact)
    await site.shelf.commit(site.taking_up(fact))
    site.unconfirmed.add([site.taking_up(fact)])
    await site.park(fact, attempt=2)
    await site.shelf.commit(site.taking_up(fact, attempt=2))

    assert await site.orphans() == []


async def test_a_start_in_doubt_that_is_not_there_is_not_lost(site: Site):
    _, starting = site.starting()
    site.unconfirmed.add([starting])

    assert await site.orphans() == []
    assert site.unconfirmed.event_ids
