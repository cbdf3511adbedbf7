"""Rate limits per user, casefile and tool, over a minute that slides. Replays cost nothing.

Each process counts for itself. Where several serve one store, they tell each other through `Shared` counts; as long as
those are away, each admits its own part of a limit, and stops sooner where it knows that the others have spent it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

from casekeeper.clock import Clock
from casekeeper.errors import Quota, RateLimited
from casekeeper.journal.events import OperationType
from casekeeper.operations.operation import Operation
from casekeeper.values import value

WINDOW_S: Final = 60
# What a refused caller makes us look at is at most this old.
_STALE_S: Final = 1


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
    """Operations of one key in this minute and in the one before: of this process, and of the others as it knows them.

    A sliding window out of two fixed ones: of the last minute's operations the share counts that is still inside.
    The approximation and its small error are described in Cloudflare's "Counting things, a lot of different things".
    """

    name: str
    key: str
    amount: int
    minute: int
    now: int = 0
    before: int = 0
    others_now: int = 0
    others_before: int = 0
    told: int = 0
    """How many of `now` the others have been told of."""
    heard_s: float = 0
    """When the others were last heard of."""

    def turn(self, minute: int) -> None:
        """Be in this minute."""
        if minute != self.minute:
            follows = minute == self.minute + 1
            self.before, self.others_before = (self.now, self.others_now) if follows else (0, 0)
            self.now = self.others_now = self.told = 0
            self.minute = minute

    def full_s(self, now_s: float, share: int) -> float | None:
        """For how many seconds there is no room; None if there is. `share`: what this process may take alone."""
        passed_s = now_s - self.minute * WINDOW_S
        alone = _full_s(share, self.now, self.before, passed_s)
        together = _full_s(
            self.amount, self.now + self.others_now, self.before + self.others_before, passed_s
        )
        return together if alone is None else max(alone, together or 0)

    def quota(self, now_s: float, share: int, full_s: float | None = None) -> Quota:
        """Where the limit stands."""
        passed_s = now_s - self.minute * WINDOW_S
        left = min(
            share - self.now - _inside(self.before, passed_s),
            self.amount - self.now - self.others_now - _inside(self.before + self.others_before, passed_s),
        )
        reset_s = WINDOW_S - passed_s if full_s is None else full_s
        return Quota(self.name, self.amount, max(0, math.ceil(left)), _whole(reset_s))


class Shared(Protocol):
    """Counts that several processes share. It may be away at any time."""

    @property
    def is_settled(self) -> bool:
        """Whether what it says of the others can be relied on."""
        ...

    @property
    def offset_s(self) -> float:
        """How far the clock of all is ahead of this process's, in seconds."""
        ...

    async def ask(self, counts: Sequence[Count]) -> bool | None:
        """Count one more of each, if all have room by the newest count; None if that could not be learnt in time."""
        ...

    def tell(self, counts: Sequence[Count]) -> None:
        """Tell the others of these soon, and hear of theirs."""
        ...


class Limits:
    """Counts operations against their limits."""

    def __init__(
        self, rates: Rates, clock: Clock, *, processes: int = 1, shared: Shared | None = None
    ) -> None:
        """`processes`: how many serve the store; without word of the others each takes its part of a limit."""
        self._rates = rates
        self._clock = clock
        self._processes = processes
        self._shared = shared
        self._counts: dict[tuple[str, str], Count] = {}
        self._minute = 0

    async def spend(self, user_id: str, casefile_id: str, operation: Operation) -> tuple[Quota, ...]:
        """Count one operation; where its limits stand afterwards.

        Waits for others only where what they do not know yet could exceed a limit by more than a few percent.

        Raises:
            RateLimited: The user's, the casefile's or the tool's minute is full; says when to come back. Nothing
                was counted.
        """
        counts = self._of(user_id, casefile_id, operation)
        shared = self._shared
        is_alone = shared is None or not shared.is_settled
        self._admit(counts, is_alone=is_alone)
        if shared is not None:
            if not is_alone and any(c.now - c.told >= self.slack(c.amount) for c in counts):
                granted = await shared.ask(counts)
                if granted:
                    return self._quotas(counts, is_alone=False)
                is_alone = granted is None
                self._admit(counts, is_alone=is_alone, is_refused=not is_alone)
            shared.tell(counts)
        for count in counts:
            count.now += 1
        return self._quotas(counts, is_alone=is_alone)

    def slack(self, amount: int) -> int:
        """How many operations this process admits before the others know of them.

        All processes together exceed a limit by twice that each at most: what was on its way when the limit was
        reached, and what is admitted before word of that comes back. So 4 % in all.
        """
        return amount // (50 * self._processes)

    def known(self) -> list[Count]:
        """All counts that still count."""
        return list(self._counts.values())

    def now_s(self) -> float:
        """Seconds since 1970 by the clock that all count by."""
        return self._clock().timestamp() + (self._shared.offset_s if self._shared else 0)

    def _share(self, amount: int, is_alone: bool) -> int:
        """What this process may take: with no word of the others its part, which is never nothing."""
        return max(1, amount // self._processes) if is_alone else amount

    def _of(self, user_id: str, casefile_id: str, operation: Operation) -> list[Count]:
        minute = int(self.now_s() // WINDOW_S)
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

    def _admit(self, counts: Sequence[Count], *, is_alone: bool, is_refused: bool = False) -> None:
        """Raise where a count is full; `is_refused`: others have said that one is, whatever it looks like here."""
        now_s, wait_s, full = self.now_s(), 0.0, list[Count]()
        for count in counts:
            count_s = count.full_s(now_s, self._share(count.amount, is_alone))
            if count_s is not None:
                wait_s, full = max(wait_s, count_s), [*full, count]
        if not full and not is_refused:
            return
        fullest = max(full or counts, key=lambda c: c.full_s(now_s, self._share(c.amount, is_alone)) or 0)
        if self._shared and now_s - fullest.heard_s >= _STALE_S:
            self._shared.tell(counts)
        retry_s = _whole(wait_s)
        quotas = [
            c.quota(now_s, self._share(c.amount, is_alone), wait_s if c in full else None) for c in counts
        ]
        policy = f"{fullest.amount} a minute per {fullest.name}"
        retry_at = self._clock() + timedelta(seconds=retry_s)
        raise RateLimited(policy, retry_at, retry_s, tuple(quotas))

    def _quotas(self, counts: Sequence[Count], *, is_alone: bool) -> tuple[Quota, ...]:
        now_s = self.now_s()
        return tuple(count.quota(now_s, self._share(count.amount, is_alone)) for count in counts)


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
