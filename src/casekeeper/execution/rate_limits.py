"""Rate limits per user, casefile and tool, over a minute that slides. Replays cost nothing.

Where several processes serve one store, Redis counts for all of them. While it is unavailable, each admits its own part
of a limit, by what it has counted itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

from casekeeper.clock import Clock
from casekeeper.errors import Quota, RateLimited
from casekeeper.kinds import KINDS
from casekeeper.operations.operation import Operation
from casekeeper.values import value

WINDOW_S: Final = 60


@value
class Rates:
    """How many operations may start a minute. 0 means: no limit.

    Attributes:
        tool: Of each tool that declares no limit itself.
        tools: Of single tools, by name; stronger than what they declare.
    """

    user: int = 0
    casefile: int = 0
    tool: int = 0
    tools: Mapping[str, int] = field(default_factory=dict[str, int])

    def of(self, operation: Operation) -> int:
        """The operation's own limit."""
        if not KINDS[operation.type].is_rated:
            return 0
        declared = self.tool if operation.limit is None else operation.limit
        return self.tools.get(operation.name, declared)


@dataclass(slots=True, eq=False)
class Count:
    """Operations of one key that this process has started, in this minute and in the one before."""

    name: str
    key: str
    amount: int
    minute: int
    now: int = 0
    before: int = 0

    def turn(self, minute: int) -> None:
        """Be in this minute."""
        if minute != self.minute:
            self.before = self.now if minute == self.minute + 1 else 0
            self.now, self.minute = 0, minute


@value
class Spent:
    """What was spent of an amount before this operation, in this minute and in the one before.

    A sliding window out of two fixed ones: of the last minute's operations the share counts that is still inside.
    The approximation and its small error are described in Cloudflare's "Counting things, a lot of different things".
    """

    amount: int
    now: int
    before: int

    def left(self, inside: float) -> int:
        """How many may still start; a part of one counts as one."""
        return math.ceil(self.amount - self.now - self.before * inside)

    def full_s(self, passed_s: float) -> float:
        """For how many seconds there is no room: until enough of the last minute is gone, or until the next."""
        if self.now >= self.amount:
            return WINDOW_S - passed_s
        return max(0.0, WINDOW_S * (1 - (self.amount - self.now) / self.before) - passed_s)


@value
class Taken:
    """What all processes together had spent of each count, and whether each had room for one more, which is counted."""

    is_granted: bool
    spent: Sequence[Spent]


class Shared(Protocol):
    """Counts that several processes share. It may be unavailable at any time."""

    @property
    def offset_s(self) -> float:
        """How far the clock of all is ahead of this process's, in seconds."""
        ...

    async def take(self, counts: Sequence[Count], inside: float) -> Taken | None:
        """Count one more of each, if all have room; None if that cannot be learnt in time.

        `inside`: how much of the last minute still counts.
        """
        ...


class Limits:
    """Counts operations against their limits."""

    def __init__(
        self, rates: Rates, clock: Clock, *, processes: int = 1, shared: Shared | None = None
    ) -> None:
        """`processes`: how many serve the store; where nobody counts for all, each takes its part of a limit."""
        self._rates = rates
        self._clock = clock
        self._processes = processes
        self._shared = shared
        self._counts: dict[tuple[str, str], Count] = {}
        self._minute = 0

    async def spend(self, user_id: str, casefile_id: str, operation: Operation) -> tuple[Quota, ...]:
        """Count one operation; where its limits stand afterwards.

        Raises:
            RateLimited: The user's, the casefile's or the tool's minute is full; says when to come back. Nothing
                was counted.
        """
        now_s = self._clock().timestamp() + (self._shared.offset_s if self._shared else 0)
        counts = self._of(user_id, casefile_id, operation, int(now_s // WINDOW_S))
        if not counts:
            return ()
        passed_s = now_s - self._minute * WINDOW_S
        inside = _inside(passed_s)
        taken = await self._shared.take(counts, inside) if self._shared else None
        taken = taken or self._alone(counts, inside)
        if not taken.is_granted:
            raise self._refusal(counts, taken.spent, passed_s)
        reset_s = _whole(WINDOW_S - passed_s)
        for count in counts:
            count.now += 1
        return tuple(
            Quota(count.name, count.amount, spent.left(inside) - 1, reset_s)
            for count, spent in zip(counts, taken.spent, strict=True)
        )

    def known(self) -> list[Count]:
        """All counts that still count."""
        return list(self._counts.values())

    def _alone(self, counts: Sequence[Count], inside: float) -> Taken:
        """By what this process knows: its part of each limit, which is never nothing."""
        spent = [Spent(max(1, count.amount // self._processes), count.now, count.before) for count in counts]
        return Taken(all(one.left(inside) > 0 for one in spent), spent)

    def _of(self, user_id: str, casefile_id: str, operation: Operation, minute: int) -> list[Count]:
        if minute != self._minute:
            self._minute = minute
            # Once a minute: whoever was not here in this one or the last starts from nothing.
            self._counts = {k: c for k, c in self._counts.items() if c.minute >= minute - 1}
        rates, counts = self._rates, list[Count]()
        for name, key, amount in (
            ("user", user_id, rates.user),
            ("casefile", casefile_id, rates.casefile),
            ("tool", operation.name, rates.of(operation)),
        ):
            if not amount:
                continue
            count = self._counts.get((name, key))
            if count is None:
                count = self._counts[name, key] = Count(name, key, amount, minute)
            count.turn(minute)
            counts.append(count)
        return counts

    def _refusal(self, counts: Sequence[Count], spent: Sequence[Spent], passed_s: float) -> RateLimited:
        inside, quotas = _inside(passed_s), list[Quota]()
        fullest, wait_s = counts[0], 0.0
        for count, one in zip(counts, spent, strict=True):
            left, reset_s = one.left(inside), WINDOW_S - passed_s
            if left <= 0 and (reset_s := one.full_s(passed_s)) > wait_s:
                fullest, wait_s = count, reset_s
            quotas.append(Quota(count.name, count.amount, max(0, left), _whole(reset_s)))
        retry_s = _whole(wait_s)
        policy = f"{fullest.amount} a minute per {fullest.name}"
        return RateLimited(policy, self._clock() + timedelta(seconds=retry_s), retry_s, tuple(quotas))


def _inside(passed_s: float) -> float:
    """How much of the last minute is still inside the window."""
    return max(0.0, 1 - passed_s / WINDOW_S)


def _whole(seconds: float) -> int:
    # One more than the whole seconds: at the very instant there is no room yet.
    return max(1, min(WINDOW_S, math.floor(seconds) + 1))
