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
from casekeeper.kinds import KINDS
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
        if not KINDS[operation.type].is_rated:
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

    def left(self, inside: float, share: int) -> float:
        """How many may still start; a part of one counts as one. `share`: what this process may take alone."""
        alone = share - self.now - self.before * inside
        others = self.amount - share - self.others_now - self.others_before * inside
        return alone if others >= 0 else alone + others

    def full_s(self, passed_s: float, share: int) -> float:
        """For how many seconds there is no room, where there is none now."""
        together = _full_s(
            self.amount, self.now + self.others_now, self.before + self.others_before, passed_s
        )
        return max(_full_s(share, self.now, self.before, passed_s), together)


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
        quotas = self._admit(counts, is_alone=is_alone)
        if shared is not None:
            if not is_alone and any(c.now - c.told >= self.slack(c.amount) for c in counts):
                granted = await shared.ask(counts)
                if granted:
                    return quotas
                is_alone = granted is None
                quotas = self._admit(counts, is_alone=is_alone, is_refused=not is_alone)
            shared.tell(counts)
        for count in counts:
            count.now += 1
        return quotas

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

    def _admit(
        self, counts: Sequence[Count], *, is_alone: bool, is_refused: bool = False
    ) -> tuple[Quota, ...]:
        """Where the limits will stand when one more of each is counted.

        Raises:
            RateLimited: One is full, or `is_refused`: others have said so, whatever it looks like here.
        """
        passed_s = self.now_s() - self._minute * WINDOW_S
        inside, reset_s = _inside(passed_s), _whole(WINDOW_S - passed_s)
        quotas: list[Quota] = []
        for count in counts:
            left = math.ceil(count.left(inside, self._share(count.amount, is_alone)))
            if left <= 0 or is_refused:
                raise self._refusal(counts, passed_s, is_alone=is_alone)
            quotas.append(Quota(count.name, count.amount, left - 1, reset_s))
        return tuple(quotas)

    def _refusal(self, counts: Sequence[Count], passed_s: float, *, is_alone: bool) -> RateLimited:
        inside, quotas = _inside(passed_s), list[Quota]()
        fullest, wait_s = counts[0], 0.0
        for count in counts:
            share = self._share(count.amount, is_alone)
            left, reset_s = math.ceil(count.left(inside, share)), WINDOW_S - passed_s
            if left <= 0 and (reset_s := count.full_s(passed_s, share)) > wait_s:
                fullest, wait_s = count, reset_s
            quotas.append(Quota(count.name, count.amount, max(0, left), _whole(reset_s)))
        if self._shared is not None and self.now_s() - fullest.heard_s >= _STALE_S:
            self._shared.tell(counts)
        retry_s = _whole(wait_s)
        policy = f"{fullest.amount} a minute per {fullest.name}"
        return RateLimited(policy, self._clock() + timedelta(seconds=retry_s), retry_s, tuple(quotas))


def _inside(passed_s: float) -> float:
    """How much of the last minute is still inside the window."""
    return max(0.0, 1 - passed_s / WINDOW_S)


def _full_s(amount: int, now: int, before: int, passed_s: float) -> float:
    """For how many seconds there is no room: until enough of the last minute is gone, or until the next; 0 if there is."""
    if now >= amount:
        return WINDOW_S - passed_s
    return max(0.0, WINDOW_S * (1 - (amount - now) / before) - passed_s) if before else 0.0


def _whole(seconds: float) -> int:
    # One more than the whole seconds: at the very instant there is no room yet.
    return max(1, min(WINDOW_S, math.floor(seconds) + 1))
