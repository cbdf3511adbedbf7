"""No permission outlives its revoke: the real code in a world where everything comes late, twice, or not at all.

`PERMISSIONS_SEED=n` replays a seed, which is printed; `SOAK=1` makes more than five million steps.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from casekeeper.acl import Role
from casekeeper.acl_feed import Change, FeedHead
from casekeeper.casefiles.casefile import Fence
from casekeeper.casefiles.freshness import Freshness
from casekeeper.casefiles.grants import FoundGrant, FreshGrants
from casekeeper.errors import StoreUnavailable
from casekeeper.identity.principal import Principal
from tests.journeys.permissions import Plan, Violation, simulate
from tests.journeys.support import soaking

SEED = "PERMISSIONS_SEED"
# A fault that is not noticed by then would not be noticed at all.
MUTANT_STEPS = 1_000_000
# Always the same stories: a rare fault must not be missed by bad luck.
MUTANT_SEED = 2


def seed(usual: int | None = None) -> int:
    """The seed of this run, said aloud so that it can be replayed."""
    drawn = int(os.environ.get(SEED) or usual or secrets.randbelow(1_000_000))  # noqa: TID251 - not a setting of casekeeper
    sys.stdout.write(f"{SEED}={drawn}\n")
    return drawn


@pytest.mark.timeout(1800)
async def test_no_permission_outlives_its_revoke():
    steps = 6_000_000 if soaking() else 150_000

    tally = await simulate(seed(), steps)

    sys.stdout.write(f"{tally}\n")
    assert tally.steps >= steps
    # A world in which nothing is ever believed, refused or fenced would prove nothing.
    few = steps // 1_000
    assert min(tally.token, tally.worker, tally.store, tally.refused, tally.started, tally.fenced) > few


# Faults, each planted alone


class NoLease(Freshness):
    """Once read is known for ever."""

    def _extend(self, sent: float) -> None:
        self._lease = self._due = float("inf")


class LeaseFromReply(Freshness):
    """The lease begins when the answer arrives."""

    def _extend(self, sent: float) -> None:
        super()._extend(self._monotonic())


class LeaseBeforeChanges(Freshness):
    """The lease is granted when the head is known, before the changes are."""

    async def _poll(self, number: int, sent: float) -> None:
        try:
            head = await self._feed.head()
            first = head.epoch != self._epoch
            after = 0 if first else self._applied
            self._take_in(head, after, ())
            self._extend(sent)
            self._answered = number
            self._take_in(head, after, await self._feed.changes(after))
        finally:
            self._polling = None


class NoCatchUp(Freshness):
    """The head is taken for read, the changes are not read."""

    def _take_in(self, head: FeedHead, after: int, changes: Sequence[Change]) -> None:
        super()._take_in(head, head.number, ())


class ChangesIgnored(Freshness):
    """Nothing newer ever matters to a scope."""

    def _newest(self, casefile_id: str, user_id: str) -> int:
        return 0


class PairsOnly(Freshness):
    """Changes of a whole casefile or account are overlooked."""

    def _newest(self, casefile_id: str, user_id: str) -> int:
        return self._changed.get((casefile_id, user_id), 0)


class CasefilesOverlooked(Freshness):
    """Changes of a whole account are overlooked when tokens are judged."""

    async def stands(self, user_id: str, epoch: str, asof: int) -> bool:
        await self._be_current()
        return epoch == self._epoch


class FailsOpen(Freshness):
    """Without a store the last knowledge will do."""

    async def _be_current(self) -> None:
        try:
            await super()._be_current()
        except StoreUnavailable:
            return


class PushIsPoll(Freshness):
    """What was pushed counts as read up to there."""

    def push(self, changes: Sequence[Change]) -> None:
        super().push(changes)
        self._applied = max(self._applied, *(change.number for change in changes))


class PushExtends(Freshness):
    """A push renews the lease."""

    def push(self, changes: Sequence[Change]) -> None:
        super().push(changes)
        if self._epoch:
            self._extend(self._monotonic())


class FloorIgnored(Freshness):
    """What was forgotten counts as never happened."""

    def _forget(self) -> None:
        super()._forget()
        self._floor = -1


class StaleJoined(Freshness):
    """Any poll that ends will do, whenever it was sent."""

    async def _be_current(self) -> None:
        if self._monotonic() >= self._lease:
            await asyncio.shield(self._polling or self._send())


class ExpiryIgnored(FreshGrants):
    """Grants have no end."""

    def _is_live(self, ends_at: datetime | None) -> bool:
        return True


class AbsentAllows(FreshGrants):
    """A casefile that the token does not name is open."""

    async def _cached(self, caller: Principal, casefile_id: str) -> FoundGrant | None:
        if casefile_id not in caller.scopes:
            return FoundGrant(Role.VIEWER, "token", caller.asof)
        return await super()._cached(caller, casefile_id)


class Knows(Freshness):
    """Tells up to where it has read the feed."""

    @property
    def applied(self) -> int:
        return self._applied


class StampedAtEnd(FreshGrants):
    """What was read is remembered as of when the answer arrived."""

    def _remember(self, user_id: str, casefile_id: str, epoch: str, found: FoundGrant | None) -> None:
        if found is not None:
            assert isinstance(self._freshness, Knows)
            found = replace(found, asof=self._freshness.applied)
        super()._remember(user_id, casefile_id, epoch, found)


class AbsenceRemembered(FreshGrants):
    """Who had no grant once has none."""

    def __init__(self, *parts: Any, **more: Any) -> None:
        super().__init__(*parts, **more)
        self.absent: set[tuple[str, str]] = set()

    async def find(self, caller: Principal, casefile_id: str, *, again: bool = False) -> FoundGrant | None:
        key = (caller.user_id, casefile_id)
        if key in self.absent:
            return None
        found = await super().find(caller, casefile_id, again=again)
        if found is None:
            self.absent.add(key)
        return found


class TokensOfOneKind(FreshGrants):
    """What was remembered for a newer token counts for one that has ended since."""

    def _remember(self, user_id: str, casefile_id: str, epoch: str, found: FoundGrant | None) -> None:
        super()._remember(user_id, casefile_id, epoch, found and replace(found, user_changed=0))


class MemoryOfAll(FreshGrants):
    """What was remembered for one counts for everybody."""

    async def _cached(self, caller: Principal, casefile_id: str) -> FoundGrant | None:
        for (_, place), known in self._remembered.items():
            if place == casefile_id and await self._freshness.believes(known, casefile_id):
                return FoundGrant(known.role, "worker", known.asof, known.ends_at)
        return await super()._cached(caller, casefile_id)


class Overtaken(FreshGrants):
    """What was remembered is believed without asking whether it still stands."""

    async def _cached(self, caller: Principal, casefile_id: str) -> FoundGrant | None:
        known = self._remembered.get((caller.user_id, casefile_id))
        return FoundGrant(known.role, "worker", known.asof, known.ends_at) if known else None


class NoFence(Fence):
    """Whatever changed since the decision is let pass."""

    def refusal(self, found: Any) -> Exception | None:
        return None


MUTANTS = {
    "no lease": Plan(freshness=NoLease),
    "lease from the reply": Plan(freshness=LeaseFromReply),
    "lease before the changes": Plan(freshness=LeaseBeforeChanges),
    "poll without catch-up": Plan(freshness=NoCatchUp),
    "changes ignored": Plan(freshness=ChangesIgnored),
    "wide changes overlooked": Plan(freshness=PairsOnly),
    "ended accounts overlooked": Plan(freshness=CasefilesOverlooked),
    "fails open": Plan(freshness=FailsOpen),
    "a push moves what was read": Plan(freshness=PushIsPoll),
    "a push renews the lease": Plan(freshness=PushExtends),
    "floor ignored": Plan(freshness=FloorIgnored, pairs_kept=2),
    "an old poll will do": Plan(freshness=StaleJoined),
    "expiry ignored": Plan(grants=ExpiryIgnored),
    "absent is allowed": Plan(grants=AbsentAllows),
    "cache stamped at the read's end": Plan(freshness=Knows, grants=StampedAtEnd),
    "absence remembered": Plan(grants=AbsenceRemembered),
    "memory shared by tokens": Plan(grants=TokensOfOneKind),
    "memory shared by users": Plan(grants=MemoryOfAll),
    "memory not judged": Plan(grants=Overtaken),
    "no fence": Plan(fence=NoFence),
    "sequence instead of a counter row": Plan(numbers_before_commit=True),
    "asof after the read": Plan(asof_after_read=True),
}


# The slowest takes ten seconds by itself; under coverage, beside other tests, several times that.
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", MUTANTS)
async def test_a_planted_fault_is_noticed(name: str):
    with pytest.raises(Violation) as noticed:
        await simulate(seed(MUTANT_SEED), MUTANT_STEPS, MUTANTS[name])

    sys.stdout.write(f"{noticed.value}\n")
