"""A page of a list costs the same, however long the list is. Counted in steps of the database, never in time."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from casekeeper.acl import Role
from casekeeper.casefiles.casefile import Status
from casekeeper.clock import to_us
from casekeeper.storage.opening import open_storage
from casekeeper.storage.sql.casefiles import SqlCasefiles
from tests.contract.shelf import NOW, OWNER, Shelf
from tests.journeys.counted import Counted

FEW, MANY = 20, 1_000
PAGE = 10


@pytest.fixture
async def counted(tmp_path: Path) -> dict[int, Counted]:
    """A store in which the owner has a few casefiles, and one with many; one of each has as many members."""
    found: dict[int, Counted] = {}
    for size in (FEW, MANY):
        async with open_storage("", tmp_path / str(size), lambda _: None) as storage:
            shelf = await Shelf.filled(storage)
            made = (
                shelf.casefile(f"cf_260301_{number:06x}", created_at=NOW + timedelta(seconds=number))
                for number in range(size)
            )
            await asyncio.gather(*made)
            await asyncio.gather(*(shelf.grant(f"u{n:04}@example.com", Role.VIEWER) for n in range(size)))
        found[size] = Counted(tmp_path / str(size) / "casekeeper.db")
    return found


@pytest.mark.parametrize("status", [None, Status.ACTIVE])
@pytest.mark.parametrize("behind", [None, (to_us(NOW + timedelta(seconds=15)), "cf_260301_00000f")])
async def test_a_page_of_casefiles_costs_the_same_however_many_there_are(
    counted: dict[int, Counted], status: Status | None, behind: tuple[int, str] | None
) -> None:
    steps: dict[int, int] = {}
    for size, reads in counted.items():
        page = await SqlCasefiles(reads).casefiles_of(OWNER, NOW, status, behind, PAGE)
        steps[size] = reads.taken()
        newest = 15 if behind else size
        wanted = [f"cf_260301_{number:06x}" for number in range(newest - 1, newest - 1 - PAGE, -1)]
        assert [casefile.casefile_id for casefile, _ in page] == wanted

    assert steps[MANY] == steps[FEW]


@pytest.mark.parametrize("after", ["", "u0005@example.com"])
async def test_a_page_of_members_costs_the_same_however_many_there_are(
    counted: dict[int, Counted], after: str
) -> None:
    steps: dict[int, int] = {}
    for size, reads in counted.items():
        page = await SqlCasefiles(reads).grants("cf_260301_abc123", after, PAGE)
        assert len(page) == PAGE
        steps[size] = reads.taken()

    # The owner of the casefile comes first; behind it they are the same in both.
    assert steps[MANY] == steps[FEW]
