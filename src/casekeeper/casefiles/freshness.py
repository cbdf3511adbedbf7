"""When a cached permission may be believed, without asking the store.

A permission was read at one number of the permission feed, `asof`. This worker keeps, for each (casefile, user), the
number of the newest change that it has heard of. What was read stands while the worker holds a lease and no change
of that pair, of the whole casefile or of the whole account is newer than `asof`.

Lease. While there is traffic, polls read the feed: 220 ms apart, down to 125 ms where the store takes long to answer.
A poll sent at s on the monotonic clock, once every change up to the head that it found is taken in, grants a lease
until s + 250 ms. Without one, a check waits for a poll of its own; if the store does not answer, nobody is let in.
Nothing is polled while nobody asks.

Proof. Say a check that began at b is answered from here at t, and a change r of that permission was acknowledged
before both b and t - 250 ms. Either the lease lives, so its poll was sent after t - 250 ms, or a poll was sent after
b; either way after r was acknowledged. Numbers follow the order of commits and the poll sees whatever was
acknowledged before it, so its head is at least r, and `changed` is too. The check asks `changed` <= `asof`, so
r <= `asof`: what was read had seen r. Pushes only raise `changed`, which can only turn a yes into a no. What commits
after the check and before an operation starts is caught by the commit's `Fence`. docs/decisions/0006 has it in full.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from casekeeper.acl_feed import ANY, AclFeed, Change, FeedHead
from casekeeper.clock import Clock, Monotonic, to_us
from casekeeper.identity.tokens import LIFETIME

LEASE_S = 0.25
POLL_S = 0.22
"""From the sending of a poll to that of the next, where answers come at once."""
SOONEST_POLL_S = 0.125
"""The same where the store takes its time: twice what it took is kept free before the lease ends."""

# Far more pairs than change within a token's life; past it the worker forgets the older half, which only costs reads.
_PAIRS_KEPT = 100_000
# At start, the changes of this long are read: no valid token is older, so all are believed over a restart.
_LOOKS_BACK = 2 * LIFETIME


class Stamped(Protocol):
    """A user's permissions as of a number of a feed: a token, or what was read for one."""

    @property
    def user_id(self) -> str:
        """Whose they are."""
        ...

    @property
    def epoch(self) -> str:
        """The feed that numbers them."""
        ...

    @property
    def asof(self) -> int:
        """The number up to which they are true."""
        ...


@dataclass(slots=True)
class Counters:
    """How permissions were found on this worker since it started.

    Attributes:
        checks: Permissions looked up: `token` + `worker` + those that took a store read or ended in an error.
        token: Answered from the caller's token.
        worker: Answered from what an earlier read had found.
        store: Reads of the store, for single permissions and for accounts of old tokens.
        polls: Reads of the feed, for everybody.
    """

    checks: int = 0
    token: int = 0
    worker: int = 0
    store: int = 0
    polls: int = 0


class Freshness:
    """What this worker knows of the permission feed."""

    def __init__(
        self,
        feed: AclFeed,
        clock: Clock,
        *,
        monotonic: Monotonic = monotonic,
        pairs_kept: int = _PAIRS_KEPT,
    ) -> None:
        self._feed = feed
        self._clock = clock
        self._monotonic = monotonic
        self._pairs_kept = pairs_kept
        self._changed: dict[tuple[str, str], int] = {}
        self._epoch = ""
        self._applied = -1
        self._floor = -1
        self._lease = self._due = float("-inf")
        self._polling: asyncio.Task[None] | None = None
        self._answered = 0
        self.counters = Counters()

    @property
    def epoch(self) -> str:
        """The feed that this worker follows; empty until it has read it."""
        return self._epoch

    async def believes(self, read: Stamped, casefile_id: str) -> bool:
        """Whether what was read of the user's permission in the casefile is provably current.

        Raises:
            StoreUnavailable: The lease has run out and the feed cannot be read.
        """
        await self._be_current()
        if read.epoch != self._epoch or read.asof < self._floor:
            return False
        return self._newest(casefile_id, read.user_id) <= read.asof

    async def stands(self, user_id: str, epoch: str, asof: int) -> bool:
        """Whether no user-wide change (logout, deactivation, stolen key) is newer than the token.

        Raises:
            StoreUnavailable: The lease has run out and the feed cannot be read.
        """
        await self._be_current()
        if epoch != self._epoch:
            return False
        if asof < self._floor:
            self.counters.store += 1
            return await self._feed.user_changed(user_id) <= asof
        return self._changed.get((ANY, user_id), 0) <= asof

    def push(self, changes: Sequence[Change]) -> None:
        """Hear of changes before the next poll. A hint: it may be lost, doubled, late or out of order."""
        for change in changes:
            self._note(change)

    def _newest(self, casefile_id: str, user_id: str) -> int:
        changed = self._changed
        return max(
            changed.get((casefile_id, user_id), 0),
            changed.get((casefile_id, ANY), 0),
            changed.get((ANY, user_id), 0),
        )

    def _note(self, change: Change) -> None:
        pair = (change.casefile_id, change.user_id)
        if change.number > self._changed.get(pair, 0):
            self._changed[pair] = change.number

    async def _be_current(self) -> None:
        """Returns while the lease lives, or after a poll that was sent later than this was called."""
        now = self._monotonic()
        if now < self._lease:
            if now >= self._due and self._polling is None:
                self._send()
            return
        wanted = self.counters.polls + 1
        while self._answered < wanted and self._monotonic() >= self._lease:
            # Others may wait for the same poll: nobody's leaving ends it.
            await asyncio.shield(self._polling or self._send())

    def _send(self) -> "asyncio.Task[None]":
        sent = self._monotonic()
        self._due = sent + SOONEST_POLL_S
        self.counters.polls += 1
        self._polling = asyncio.create_task(self._poll(self.counters.polls, sent))
        self._polling.add_done_callback(_heard)
        return self._polling

    async def _poll(self, number: int, sent: float) -> None:
        try:
            head = await self._feed.head()
            after = self._applied
            if head.epoch != self._epoch:
                looked_back = await self._feed.number_before(to_us(self._clock() - _LOOKS_BACK))
                after = min(looked_back, head.number)
            changes = await self._feed.changes(after) if head.number > after else ()
            # All at once from here: a check in between must not see half of it.
            self._take_in(head, after, changes)
            self._extend(sent)
            self._answered = number
        finally:
            self._polling = None

    def _take_in(self, head: FeedHead, after: int, changes: Sequence[Change]) -> None:
        if head.epoch != self._epoch:
            if self._epoch:
                # A restored backup counts anew. At start there may be pushes already, which stay.
                self._changed.clear()
            self._epoch, self._floor = head.epoch, after
        for change in changes:
            self._note(change)
        self._applied = max([after, *(change.number for change in changes)])
        if len(self._changed) > self._pairs_kept:
            self._forget()

    def _extend(self, sent: float) -> None:
        # Counted from the sending: how long the answer took says nothing about when the store looked.
        self._lease = sent + LEASE_S
        took = self._monotonic() - sent
        self._due = sent + max(SOONEST_POLL_S, POLL_S - 2 * took)

    def _forget(self) -> None:
        """Forget the older half; what was read before that takes the slow path."""
        middle = sorted(self._changed.values())[len(self._changed) // 2]
        self._floor = max(self._floor, middle)
        self._changed = {pair: number for pair, number in self._changed.items() if number > self._floor}


def _heard(poll: "asyncio.Task[None]") -> None:
    # Whoever waits gets the error; if nobody does, the lease runs out and the next check meets it.
    if not poll.cancelled():
        poll.exception()
