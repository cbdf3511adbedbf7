"""How long what a worker knows counts, and what it costs to know it."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta

import pytest

from casekeeper.acl import Role
from casekeeper.acl_feed import ANY, AccessSnapshot, AclFeed, Change, FeedHead
from casekeeper.casefiles.freshness import LEASE_S, POLL_S, SOONEST_POLL_S, Freshness
from casekeeper.casefiles.grants import FreshGrants
from casekeeper.errors import StoreUnavailable, TokenRejected
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit, PermissionChanged
from tests.unit.support import ANNA, BEN, NOW, House

CASEFILE = "cf_251023_000001"


class Line:
    """The store's feed behind a line that can be held up or cut; notes what was asked."""

    def __init__(self, behind: AclFeed) -> None:
        self.behind = behind
        self.asked: list[str] = []
        self.is_cut = False
        self.free = asyncio.Event()
        self.free.set()

    async def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.is_cut:
            raise StoreUnavailable("The line is cut.")
        await self.free.wait()

    async def head(self) -> FeedHead:
        head = await self.behind.head()
        await self._ask("head")
        return head

    async def changes(self, after: int) -> Sequence[Change]:
        await self._ask("changes")
        return await self.behind.changes(after)

    async def number_before(self, instant_us: int) -> int:
        await self._ask("number before")
        return await self.behind.number_before(instant_us)

    async def user_changed(self, user_id: str) -> int:
        await self._ask("user changed")
        return await self.behind.user_changed(user_id)

    async def snapshot(self, user_id: str, casefile_ids: Collection[str], now_us: int) -> AccessSnapshot:
        return await self.behind.snapshot(user_id, casefile_ids, now_us)


class Worker:
    """A worker that hears of changes by polling only, unless it is told to listen."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.line = Line(house.storage.accounts)
        self.freshness = Freshness(self.line, house.clock, monotonic=house.clock.monotonic)
        self.grants = FreshGrants(house.stored, self.freshness, house.clock)

    async def believes(self, caller: Principal, casefile_id: str = CASEFILE) -> bool:
        """Whether it believes the caller's token now, all polls that this began being over."""
        believed = await self.freshness.believes(caller, casefile_id)
        await settle()
        return believed

    async def source(self, caller: Principal, casefile_id: str) -> str | None:
        """Where it finds the caller's permission."""
        found = await self.grants.find(caller, casefile_id)
        return found and found.source


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def change(house: House, casefile_id: str = CASEFILE, user_id: str = ANNA) -> None:
    record = PermissionChanged(casefile_id, user_id, "revoked", NOW)
    await house.commits.commit(Commit(records=(record,)))


@pytest.fixture
def worker(house: House) -> Worker:
    return Worker(house)


@pytest.fixture
async def anna(house: House) -> Principal:
    return await house.caller(ANNA)


# The lease


async def test_nothing_is_read_while_the_lease_lives(worker: Worker, house: House, anna: Principal):
    await worker.believes(anna)
    worker.line.asked.clear()

    for _ in range(100):
        house.clock.elapse(POLL_S / 200)
        assert await worker.believes(anna)
        assert await worker.freshness.stands(ANNA, anna.epoch, anna.asof)

    assert worker.line.asked == []


async def test_a_check_renews_the_lease_in_passing(worker: Worker, house: House, anna: Principal):
    await worker.believes(anna)
    for _ in range(10):
        house.clock.elapse(POLL_S)
        await worker.believes(anna)

    assert worker.freshness.counters.polls == 11


@pytest.mark.parametrize(("took", "apart"), [(0.0, POLL_S), (0.03, POLL_S - 0.06), (0.1, SOONEST_POLL_S)])
async def test_the_slower_the_answers_the_sooner_the_next_poll(
    worker: Worker, house: House, anna: Principal, took: float, apart: float
):
    worker.line.free.clear()
    first = asyncio.ensure_future(worker.believes(anna))
    await settle()
    house.clock.elapse(took)
    worker.line.free.set()
    assert await first

    house.clock.elapse(apart - took - 0.001)
    await worker.believes(anna)
    before = worker.freshness.counters.polls
    house.clock.elapse(0.002)
    await worker.believes(anna)

    assert (before, worker.freshness.counters.polls) == (1, 2)


async def test_nobody_polls_while_nobody_asks(worker: Worker, house: House, anna: Principal):
    await worker.believes(anna)
    worker.line.asked.clear()

    house.clock.elapse(3600)
    await settle()

    assert worker.line.asked == []


async def test_what_the_worker_was_not_told_counts_when_the_lease_is_over(
    worker: Worker, house: House, anna: Principal
):
    await worker.believes(anna)
    await change(house)
    house.clock.elapse(LEASE_S)

    assert not await worker.believes(anna)


async def test_a_renewal_brings_what_the_worker_was_not_told(worker: Worker, house: House, anna: Principal):
    await worker.believes(anna)
    await change(house)
    house.clock.elapse(POLL_S)

    assert await worker.believes(anna), "the check itself does not wait for the poll"
    assert not await worker.believes(anna)


async def test_a_lease_counts_from_the_sending_of_the_poll(worker: Worker, house: House, anna: Principal):
    worker.line.free.clear()
    first = asyncio.ensure_future(worker.believes(anna))
    await settle()
    house.clock.elapse(LEASE_S - 0.01)
    worker.line.free.set()
    assert await first
    worker.line.asked.clear()

    house.clock.elapse(0.01)
    await worker.believes(anna)

    assert worker.line.asked == ["head"]


async def test_checks_that_wait_share_a_poll(worker: Worker, anna: Principal):
    worker.line.free.clear()
    checks = [asyncio.ensure_future(worker.believes(anna)) for _ in range(5)]
    await settle()
    worker.line.free.set()

    assert all(await asyncio.gather(*checks))
    # Those who came when it was sent already ask once more together, unless its lease does.
    assert worker.freshness.counters.polls == 1


async def test_a_check_does_not_trust_a_poll_from_before_it_that_took_too_long(
    worker: Worker, house: House, anna: Principal
):
    worker.line.free.clear()
    early = asyncio.ensure_future(worker.freshness.believes(anna, CASEFILE))
    await settle()
    house.clock.elapse(LEASE_S)
    await change(house)
    late = asyncio.ensure_future(worker.freshness.believes(anna, CASEFILE))
    await settle()
    worker.line.free.set()

    assert (await early, await late) == (True, False)


async def test_whoever_goes_away_leaves_the_poll_to_the_others(worker: Worker, anna: Principal):
    worker.line.free.clear()
    gone, waits = (asyncio.ensure_future(worker.believes(anna)) for _ in range(2))
    await settle()
    gone.cancel()
    await settle()
    worker.line.free.set()

    assert await waits
    assert gone.cancelled()


# Outages


async def test_without_lease_and_store_nobody_is_let_in(worker: Worker, house: House, anna: Principal):
    await worker.believes(anna)
    house.clock.elapse(LEASE_S)
    worker.line.is_cut = True

    with pytest.raises(StoreUnavailable):
        await worker.believes(anna)
    with pytest.raises(StoreUnavailable):
        await worker.freshness.stands(ANNA, anna.epoch, anna.asof)


async def test_an_outage_shorter_than_the_lease_is_not_noticed(worker: Worker, house: House, anna: Principal):
    await worker.believes(anna)
    house.clock.elapse(POLL_S)
    worker.line.is_cut = True
    assert await worker.believes(anna)

    worker.line.is_cut = False
    house.clock.elapse(LEASE_S - POLL_S)

    assert await worker.believes(anna)


async def test_a_poll_that_is_cancelled_leaves_the_next_one_room(anna: Principal, worker: Worker):
    worker.line.free.clear()
    check = asyncio.ensure_future(worker.believes(anna))
    await settle()
    (poll,) = (task for task in asyncio.all_tasks() if task.get_coro().__qualname__ == "Freshness._poll")  # type: ignore[union-attr]
    poll.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check
    worker.line.free.set()

    assert await worker.believes(anna)


# Pushes


async def test_a_pushed_change_counts_at_once(house: House, anna: Principal):
    await house.freshness.believes(anna, CASEFILE)

    await change(house)

    assert not await house.freshness.believes(anna, CASEFILE)
    assert await house.freshness.believes(await house.caller(ANNA), CASEFILE)
    assert house.freshness.counters.polls == 1


async def test_pushes_may_be_doubled_and_out_of_order(worker: Worker, anna: Principal):
    await worker.believes(anna)
    pushes = [Change(anna.asof + n, CASEFILE, ANNA) for n in (3, 1, 3, 2)]

    worker.freshness.push(pushes)

    seen = [Principal(ANNA, "p", False, anna.epoch, anna.asof + n, NOW) for n in (2, 3)]
    assert [await worker.believes(principal) for principal in seen] == [False, True]


async def test_a_push_is_no_poll(worker: Worker, house: House, anna: Principal):
    await worker.believes(anna)
    await change(house)
    worker.freshness.push([Change(anna.asof + 2, CASEFILE, BEN)])
    house.clock.elapse(LEASE_S)

    assert not await worker.believes(anna), "the push of the second change hid the first"


async def test_a_push_before_the_first_poll_is_kept(worker: Worker, anna: Principal):
    worker.freshness.push([Change(anna.asof + 1, CASEFILE, ANNA)])

    assert not await worker.believes(anna)


# What a worker remembers


async def test_what_the_store_said_is_remembered(worker: Worker, house: House, anna: Principal):
    casefile = await house.casefile(anna)
    await worker.believes(anna)

    sources = [await worker.source(anna, casefile.casefile_id) for _ in range(3)]

    assert sources == ["store", "worker", "worker"]
    counters = worker.freshness.counters
    assert (counters.checks, counters.token, counters.worker, counters.store) == (3, 0, 2, 1)


async def test_a_token_comes_before_the_memory(worker: Worker, house: House, anna: Principal):
    casefile = await house.casefile(anna)
    await worker.source(anna, casefile.casefile_id)

    assert (
        await worker.source(await house.caller(ANNA, casefile.casefile_id), casefile.casefile_id) == "token"
    )
    assert worker.freshness.counters.token == 1


async def test_a_change_ends_the_memory(worker: Worker, house: House, anna: Principal):
    casefile_id = (await house.casefile(anna)).casefile_id
    await house.account(BEN)
    await house.grant(anna, casefile_id, BEN, Role.EDITOR)
    ben = await house.caller(BEN)
    await worker.believes(ben)
    before = [await worker.source(ben, casefile_id) for _ in range(2)]

    await house.revoke(anna, casefile_id, BEN)
    house.clock.elapse(LEASE_S)

    assert before == ["store", "worker"]
    assert await worker.source(ben, casefile_id) is None


async def test_the_memory_ends_with_the_grant(worker: Worker, house: House, anna: Principal):
    casefile_id = (await house.casefile(anna)).casefile_id
    await house.account(BEN)
    await house.grant(anna, casefile_id, BEN, Role.EDITOR, until=NOW + timedelta(seconds=1.5))
    ben = await house.caller(BEN)
    await worker.believes(ben)
    before = [await worker.source(ben, casefile_id) for _ in range(2)]

    house.clock.advance(seconds=1.5)

    assert before == ["store", "worker"]
    assert await worker.source(ben, casefile_id) is None


async def test_no_grant_is_never_remembered(worker: Worker, house: House, anna: Principal):
    public = (await house.casefile(anna, public_role="viewer")).casefile_id
    closed = (await house.casefile(anna)).casefile_id
    await house.account(BEN)
    ben = await house.caller(BEN)
    await worker.believes(ben)
    before = [await worker.source(ben, casefile_id) for casefile_id in (public, closed, public, closed)]

    # Nobody pushes, and the lease lives on.
    for casefile_id in (public, closed):
        await house.grant(anna, casefile_id, BEN, Role.EDITOR)
        found = await worker.grants.find(ben, casefile_id)
        assert found is not None
        assert found.role is Role.EDITOR

    assert before == ["store", None, "store", None]


async def test_what_was_read_before_the_feed_is_not_believed(worker: Worker, house: House, anna: Principal):
    casefile_id = (await house.casefile(anna)).casefile_id

    sources = [await worker.source(anna, casefile_id) for _ in range(3)]

    assert sources == ["store", "store", "worker"]


async def test_asking_again_reads_and_remembers_anew(worker: Worker, house: House, anna: Principal):
    casefile_id = (await house.casefile(anna)).casefile_id
    await worker.believes(anna)
    await worker.source(anna, casefile_id)
    await change(house, casefile_id)

    found = await worker.grants.find(anna, casefile_id, again=True)
    remembered = await worker.grants.find(anna, casefile_id)

    assert found is not None
    assert remembered is not None
    assert (found.source, remembered.source, remembered.asof) == ("store", "worker", found.asof)


async def test_the_memory_is_bounded(worker: Worker, house: House, anna: Principal):
    casefiles = [(await house.casefile(anna)).casefile_id for _ in range(3)]
    grants = FreshGrants(house.stored, worker.freshness, house.clock, remembered_max=2)
    await worker.believes(anna)
    for casefile_id in (*casefiles, casefiles[2]):
        await grants.find(anna, casefile_id)

    found = [await grants.find(anna, casefile_id) for casefile_id in reversed(casefiles)]

    assert [f and f.source for f in found] == ["worker", "worker", "store"]


async def test_what_was_read_for_a_newer_token_is_not_for_one_that_has_ended(
    worker: Worker, house: House, anna: Principal
):
    casefile_id = (await house.casefile(anna)).casefile_id
    await worker.believes(anna)
    await change(house, ANY)
    house.clock.elapse(LEASE_S)
    newer = await house.caller(ANNA)
    await worker.believes(newer)
    sources = [await worker.source(newer, casefile_id) for _ in range(2)]

    with pytest.raises(TokenRejected):
        await worker.source(anna, casefile_id)

    assert sources == ["store", "worker"]


async def test_a_grant_that_ends_while_the_check_waits_lets_nobody_in(
    worker: Worker, house: House, anna: Principal
):
    casefile_id = (await house.casefile(anna)).casefile_id
    await house.account(BEN)
    await house.grant(anna, casefile_id, BEN, Role.EDITOR, until=NOW + timedelta(seconds=2))
    ben = await house.caller(BEN, casefile_id)
    worker.line.free.clear()
    check = asyncio.ensure_future(worker.source(ben, casefile_id))
    await settle()

    house.clock.advance(seconds=2)
    worker.line.free.set()

    assert await check is None
