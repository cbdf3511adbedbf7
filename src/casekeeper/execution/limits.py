"""Rate limits per user, casefile and tool, over a minute that slides. Replays cost nothing.

Each process counts for itself. Where several serve one store, each admits its own part of a limit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from casekeeper.clock import Clock
from casekeeper.errors import Quota, RateLimited
from casekeeper.journal.events import OperationType
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
        if operation.type is not OperationType.TOOL:
            return 0
        declared = self.tool if operation.limit is None else operation.limit
        return self.tools.get(operation.name, declared)


@dataclass(slots=True, eq=False)
class Count:
    """Operations of one key in this minute and in the one before.

    A sliding window out of two fixed ones: of the last minute's operations the share counts that is still inside.
    The approximation and its small error are described in Cloudflare's "Counting things, a lot of different things".
    """

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
            self.minute, self.now = minute, 0

    def full_s(self, now_s: float, share: int) -> float | None:
        """For how many seconds there is no room for more than `share`; None if there is."""
        return _full_s(share, self.now, self.before, now_s - self.minute * WINDOW_S)

    def quota(self, now_s: float, share: int, full_s: float | None = None) -> Quota:
        """Where the limit stands."""
        passed_s = now_s - self.minute * WINDOW_S
        left = share - self.now - _inside(self.before, passed_s)
        reset_s = WINDOW_S - passed_s if full_s is None else full_s
        return Quota(self.name, self.amount, max(0, math.ceil(left)), _whole(reset_s))


class Limits:
    """Counts operations against their limits."""

    def __init__(self, rates: Rates, clock: Clock, *, processes: int = 1) -> None:
        """`processes`: how many serve the store; each takes its part of a limit."""
        self._rates = rates
        self._clock = clock
        self._processes = processes
        self._counts: dict[tuple[str, str], Count] = {}
        self._minute = 0

    async def spend(self, user_id: str, casefile_id: str, operation: Operation) -> tuple[Quota, ...]:
        """Count one operation; where its limits stand afterwards.

        Raises:
            RateLimited: The user's, the casefile's or the tool's minute is full; says when to come back. Nothing
                was counted.
        """
        counts = self._of(user_id, casefile_id, operation)
        self._admit(counts)
        for count in counts:
            count.now += 1
        return self._quotas(counts)

    def _share(self, amount: int) -> int:
        return max(1, amount // self._processes)

    def _of(self, user_id: str, casefile_id: str, operation: Operation) -> list[Count]:
        minute = int(self._clock().timestamp() // WINDOW_S)
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

    def _admit(self, counts: Sequence[Count]) -> None:
        now_s, wait_s, full = self._clock().timestamp(), 0.0, list[Count]()
        for count in counts:
            count_s = count.full_s(now_s, self._share(count.amount))
            if count_s is not None:
                wait_s, full = max(wait_s, count_s), [*full, count]
        if not full:
            return
        fullest = max(full, key=lambda c: c.full_s(now_s, self._share(c.amount)) or 0)
        retry_s = _whole(wait_s)
        quotas = [c.quota(now_s, self._share(c.amount), wait_s if c in full else None) for c in counts]
        policy = f"{fullest.amount} a minute per {fullest.name}"
        retry_at = self._clock() + timedelta(seconds=retry_s)
        raise RateLimited(policy, retry_at, retry_s, tuple(quotas))

    def _quotas(self, counts: Sequence[Count]) -> tuple[Quota, ...]:
        now_s = self._clock().timestamp()
        return tuple(count.quota(now_s, self._share(count.amount)) for count in counts)


def _inside(before: int, passed_s: float) -> float:
    """How much of the last minute's count is still inside the window."""
    return before * max(0.0, 1 - passed_s / WINDOW_S)


def _full_s(amount: int, now: int, before: int, passed_s: float) -> float | None:
    """For how many seconds there is no room: until enough of the last minute is gone, or until the next."""
    if now + _inside(before, passed_s) < amount:
        return None
    if now < amount:
        return WINDOW_S * (1 - (amount - now) / before) - passed_s
    return WINDOW_S - passed_s


def _whole(seconds: float) -> int:
    # One more than the whole seconds: at the very instant there is no room yet.
    return max(1, min(WINDOW_S, math.floor(seconds) + 1))
