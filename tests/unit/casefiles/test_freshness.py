import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest

from casekeeper.acl import Role
from casekeeper.acl_feed import ANY, AccessSnapshot, AclFeed, Change, FeedHead
from casekeeper.casefiles.freshness import LEASE_S, Freshness
from casekeeper.identity.account_commands import UpdateAccount
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit, PermissionChanged
from tests.unit.support import ANNA, BEN, NOW, ROOT, House

CASEFILE, OTHER = "cf_251023_000001", "cf_251023_000002"


async def change(house: House, casefile_id: str, user_id: str) -> int:
    """A permission change; returns its number."""
    record = PermissionChanged(casefile_id, user_id, "granted", NOW)
    await house.commits.commit(Commit(records=(record,)))
    return (await house.storage.accounts.head()).number


async def restore(house: House) -> None:
    """Put another feed into the place of this one, as a restored backup does."""
    restored = sqlite3.connect(house.storage.directory / "casekeeper.db")
    with restored:
        restored.execute("UPDATE acl_head SET epoch = 'restored', number = 0")
    restored.close()
    # The store lets go of what it saw before with its next commit.
    await house.commits.commit(Commit())
    house.clock.elapse(LEASE_S)


async def anna_now(house: House) -> Principal:
    """Anna with a token of this moment, on a worker that has looked at the feed before."""
    await house.freshness.stands(ANNA, "", 0)
    return await house.caller(ANNA)


async def test_a_scope_is_believed_while_nothing_is_newer(house: House):
    anna = await anna_now(house)

    assert await house.freshness.believes(anna, CASEFILE)


@pytest.mark.parametrize(
    ("casefile_id", "user_id"),
    [(CASEFILE, ANNA), (CASEFILE, ANY), (ANY, ANNA)],
    ids=["the pair", "the whole casefile", "the whole account"],
)
async def test_a_newer_change_ends_the_belief(house: House, casefile_id: str, user_id: str):
    anna = await anna_now(house)

    await change(house, casefile_id, user_id)

    assert not await house.freshness.believes(anna, CASEFILE)


@pytest.mark.parametrize(
    ("casefile_id", "user_id"),
    [(CASEFILE, BEN), (OTHER, ANNA), (OTHER, ANY), (ANY, BEN)],
    ids=["another user", "another casefile", "all of another casefile", "another account"],
)
async def test_a_change_of_others_costs_nothing(house: House, casefile_id: str, user_id: str):
    anna = await anna_now(house)

    await change(house, casefile_id, user_id)

    assert await house.freshness.believes(anna, CASEFILE)


async def test_a_token_made_after_the_change_is_believed(house: House):
    await anna_now(house)
    await change(house, CASEFILE, ANNA)

    assert await house.freshness.believes(await house.caller(ANNA), CASEFILE)


async def test_a_worker_that_starts_believes_tokens_from_before(house: House):
    await change(house, OTHER, BEN)
    anna = await house.caller(ANNA)
    await change(house, CASEFILE, BEN)

    started = Freshness(house.storage.accounts, house.clock)

    assert await started.believes(anna, OTHER)
    assert not await started.believes(replace(anna, user_id=BEN), CASEFILE)


async def test_a_token_older_than_what_the_worker_has_read_is_not_believed(house: House):
    anna = await house.caller(ANNA)
    await change(house, OTHER, BEN)
    house.clock.advance(minutes=21)

    assert not await Freshness(house.storage.accounts, house.clock).believes(anna, CASEFILE)


async def test_a_token_as_old_as_what_the_worker_has_seen_is_believed(house: House):
    await change(house, OTHER, BEN)
    anna = await house.caller(ANNA)

    assert await Freshness(house.storage.accounts, house.clock).believes(anna, CASEFILE)


async def test_a_token_older_than_what_the_worker_has_read_still_stands(house: House):
    anna = await house.caller(ANNA)
    await change(house, OTHER, BEN)
    house.clock.advance(minutes=21)
    started = Freshness(house.storage.accounts, house.clock)

    assert await started.stands(ANNA, anna.epoch, anna.asof)
    assert started.counters.store == 1


async def test_an_ended_token_does_not_stand_even_on_a_worker_that_starts_later(house: House):
    anna, root = await house.caller(ANNA), await house.caller(ROOT)
    await house.accounts.update(root, UpdateAccount(user_id=ANNA, password="0123456789"), house.ask(root))
    await change(house, OTHER, BEN)
    house.clock.advance(minutes=21)

    assert not await Freshness(house.storage.accounts, house.clock).stands(ANNA, anna.epoch, anna.asof)


async def test_a_token_stands_whatever_happens_to_single_casefiles(house: House):
    anna = await anna_now(house)

    await change(house, CASEFILE, ANNA)

    assert await house.freshness.stands(ANNA, anna.epoch, anna.asof)


async def test_a_token_of_another_epoch_is_never_believed(house: House):
    anna = await anna_now(house)
    await restore(house)

    assert not await house.freshness.believes(anna, CASEFILE)
    assert not await house.freshness.stands(ANNA, anna.epoch, anna.asof)


async def test_after_a_restore_new_tokens_are_believed(house: House):
    await anna_now(house)
    await restore(house)

    assert await house.freshness.believes(await house.caller(ANNA), CASEFILE)


async def test_the_memory_is_bounded_and_forgetting_only_costs_belief(house: House):
    freshness = Freshness(house.storage.accounts, house.clock, monotonic=house.clock.monotonic, pairs_kept=3)
    old = await house.caller(ANNA)
    await freshness.believes(old, CASEFILE)
    for number in range(4):
        await change(house, f"cf_251023_{number:06x}", BEN)
        house.clock.elapse(LEASE_S)
        await freshness.believes(old, CASEFILE)

    forgotten = await freshness.believes(old, "cf_251023_ffffff")
    fresh = await freshness.believes(await house.caller(ANNA), CASEFILE)

    assert (forgotten, fresh) == (False, True)


class Slow:
    """The store's feed, in which something may happen between the read of the head and that of the changes."""

    def __init__(self, behind: AclFeed, house: House) -> None:
        self.behind, self.house = behind, house

    async def head(self) -> FeedHead:
        head = await self.behind.head()
        await change(self.house, CASEFILE, BEN)
        return head

    async def changes(self, after: int) -> Sequence[Change]:
        return await self.behind.changes(after)

    async def number_before(self, instant_us: int) -> int:
        return await self.behind.number_before(instant_us)

    async def user_changed(self, user_id: str) -> int:
        return await self.behind.user_changed(user_id)

    async def snapshot(self, user_id: str, casefile_ids: Collection[str], now_us: int) -> AccessSnapshot:
        return await self.behind.snapshot(user_id, casefile_ids, now_us)


async def test_changes_that_come_while_reading_are_taken_in_once(house: House):
    slow = Slow(house.storage.accounts, house)
    freshness = Freshness(slow, house.clock, monotonic=house.clock.monotonic)
    ben = await house.caller(BEN)
    for _ in range(3):
        house.clock.elapse(LEASE_S)
        await freshness.believes(ben, OTHER)

    assert await freshness.believes(await house.caller(BEN), OTHER)
    assert not await freshness.believes(ben, CASEFILE)


# The same, through the gate


async def test_a_permission_comes_from_the_token_when_it_can_be_believed(house: House):
    owner = await anna_now(house)
    casefile = await house.casefile(owner)
    anna = await house.caller(ANNA, casefile.casefile_id)

    access = await house.gate.look(anna, casefile.casefile_id)

    assert access is not None
    assert (access.role, access.source, access.asof) == (Role.OWNER, "token", anna.asof)


async def test_a_believed_scope_counts_as_used(house: House):
    owner = await anna_now(house)
    casefile = await house.casefile(owner)
    anna = await house.caller(ANNA, casefile.casefile_id)

    await house.gate.look(anna, casefile.casefile_id)

    assert list(anna.used) == [casefile.casefile_id]


async def test_a_permission_that_the_token_lacks_comes_from_the_store(house: House):
    anna = await anna_now(house)
    casefile = await house.casefile(anna)

    access = await house.gate.look(anna, casefile.casefile_id)

    assert access is not None
    assert (access.role, access.source) == (Role.OWNER, "store")


async def test_a_scope_that_has_ended_is_not_believed(house: House):
    owner = await anna_now(house)
    casefile = await house.casefile(owner)
    await house.account(BEN)
    house.clock.advance(milliseconds=500)
    until = house.clock().replace(microsecond=0).replace(minute=5)
    await house.grant(owner, casefile.casefile_id, BEN, Role.EDITOR, until=until)
    ben = await house.caller(BEN, casefile.casefile_id)
    before = await house.gate.look(ben, casefile.casefile_id)

    house.clock.now = until

    assert before is not None
    assert before.source == "token"
    assert await house.gate.look(ben, casefile.casefile_id) is None
