"""What a commit costs on PostgreSQL, counted in round trips and never in time, and whom it wakes."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from casekeeper.acl import Role
from casekeeper.acl_feed import Change
from casekeeper.casefiles.casefile import CasefileIsActive
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Fact, Kind
from casekeeper.journal.operations import OperationIsOpen, operation_of
from casekeeper.journal.requests import AlreadyClaimed, Claim, ReleaseClaim
from casekeeper.storage.opening import open_storage
from tests.contract.shelf import GUEST, LATER, NOW, Shelf
from tests.fakes.postgres import selected
from tests.fakes.proxy import Proxy, proxy_to

pytestmark = pytest.mark.timeout(120)


class RoundTrips:
    """Counts how often a PostgreSQL server says that it is ready for the next query."""

    def __init__(self) -> None:
        self.count = 0
        self._begun: dict[object, bytes] = {}

    def hear(self, connection: object, data: bytes) -> None:
        """Take in a piece of what it answers: messages of a letter, their length and the rest."""
        data = self._begun.get(connection, b"") + data
        while len(data) > 4 and len(data) > (size := int.from_bytes(data[1:5], "big")):
            self.count += data[:1] == b"Z"
            data = data[size + 1 :]
        self._begun[connection] = data


class Counted:
    """A store whose commits are counted, with every statement prepared that they take."""

    def __init__(self, proxy: Proxy, shelf: Shelf) -> None:
        self._trips = RoundTrips()
        self._shelf = shelf
        proxy.overhears = self._trips.hear

    async def commit(self, *commits: Commit) -> int:
        """How many round trips it takes to make these together."""
        before = self._trips.count
        await asyncio.gather(*map(self._shelf.commit, commits))
        return self._trips.count - before


@pytest.fixture
async def counted(database: str, tmp_path: Path) -> AsyncGenerator[tuple[Shelf, Counted]]:
    parts = urlsplit(database)
    async with proxy_to(f"{parts.hostname}:{parts.port}") as proxy:
        # The answer to whether it speaks TLS is no message.
        address = f"postgresql://{parts.username}@{proxy.host}{parts.path}?sslmode=disable"
        async with open_storage(address, tmp_path, lambda _: None) as store:
            shelf = await Shelf.filled(store)
            yield shelf, Counted(proxy, shelf)


async def both(shelf: Shelf, parent: Fact) -> tuple[Commit, Commit]:
    """The start and the end of an operation in another one, with all that may go with them."""
    fact = shelf.started(parent=parent)
    claim = Claim(fact.event_id, "fingerprint", fact.event_id, NOW, None)
    conditions = (
        claim,
        await shelf.fence(),
        CasefileIsActive(shelf.casefile_id),
        OperationIsOpen(operation_of(parent)),
    )
    opening, ending = shelf.opening(fact), shelf.ending(fact, 1)
    return (
        Commit(opening.facts, (*opening.conditions, *conditions), (*opening.records, claim)),
        Commit(ending.facts, ending.conditions, (*ending.records, ReleaseClaim(fact.event_id, LATER))),
    )


async def test_the_start_and_the_end_of_an_operation_take_four_round_trips_each(
    counted: tuple[Shelf, Counted],
):
    shelf, store = counted
    parent = shelf.started()
    await shelf.commit(shelf.opening(parent))
    took: list[tuple[int, int]] = []
    for _ in range(20):
        start, end = await both(shelf, parent)
        took.append((await store.commit(start), await store.commit(end)))

    # At first the statements are prepared, on each of the connections.
    assert took[-5:] == [(4, 4)] * 5


async def test_many_commits_take_as_many_round_trips_as_one(counted: tuple[Shelf, Counted]):
    shelf, store = counted
    took: list[int] = []
    for _ in range(20):
        some = [Commit((shelf.fact(Kind.DENIED),)) for _ in range(10)]
        took.append(await store.commit(*some))

    assert took[-5:] == [4] * 5


@pytest.mark.parametrize("together", [True, False])
async def test_a_claim_that_is_released_makes_room_in_the_same_transaction(
    database: str, tmp_path: Path, together: bool
):
    ends = NOW + timedelta(hours=1)
    claims = [Claim("k", "fingerprint", f"evt_{n}", NOW if n < 3 else ends, None) for n in (1, 2, 3)]
    async with open_storage(database, tmp_path, lambda _: None) as store:
        shelf = await Shelf.filled(store)
        # What is about one casefile and waits at once is one transaction, in this order.
        here = CasefileIsActive(shelf.casefile_id)
        first, *others = (Commit((), (here, claim), (claim,)) for claim in claims)
        release = Commit((), (here,), (ReleaseClaim("evt_1", ends),))
        if not together:
            await shelf.commit(first)
        some = [*([first] if together else []), release, *others]
        results = await asyncio.gather(*map(shelf.commit, some), return_exceptions=True)

    assert [type(result) for result in results[-3:]] == [list, AlreadyClaimed, list]
    kept = await selected(database, "SELECT key, made, expires_us FROM requests")
    assert kept == [("k", "evt_3", None)]


async def test_a_commit_that_changes_no_permission_tells_of_no_change(database: str, tmp_path: Path):
    told: list[Sequence[Change]] = []
    async with open_storage(database, tmp_path, lambda _: None, told.append, heard=lambda _: None) as store:
        shelf = await Shelf.filled(store)
        told.clear()
        await shelf.operation()
        await shelf.grant(GUEST, Role.EDITOR)

    assert [[change.user_id for change in changes] for changes in told] == [[GUEST]]
