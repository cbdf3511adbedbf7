"""How processes come to know of each other's counts: one message at a time, about all counts that have changed.

A message holds, for each count, this process's own number in this minute and in the one before, not what was added:
sent twice, late or after the other end lost everything, it makes the same true again. What comes back is the sum of the
others'. Operations that must not start before that wait for it together, as commits do for a disk.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from casekeeper.execution.limits import WINDOW_S, Count, Limits
from casekeeper.values import value

ASK_S: Final = 0.1
"""How long an operation waits for word of the others, at most."""

# Nobody waits for what is only told; a message for each operation would cost more than the operation.
_PACE_S = 0.02
_BATCH_MAX = 200


@value
class Told:
    """A count as it goes out. `inside`: the share of the last minute that still counts."""

    name: str
    key: str
    amount: int
    minute: int
    inside: float
    now: int
    before: int
    wanted: int


@value
class Heard:
    """What comes back: how many of those wanted may start and are counted, and the others' counts."""

    granted: int
    others_now: int
    others_before: int


class Wire(Protocol):
    """The way to the others. It may be cut at any time."""

    @property
    def is_settled(self) -> bool:
        """Whether it is there, and all processes have had time to come back to it."""
        ...

    @property
    def offset_s(self) -> float:
        """How far its clock is ahead of this process's, in seconds."""
        ...

    async def exchange(self, told: Sequence[Told]) -> Sequence[Heard] | None:
        """Send and receive, in the same order; None if the wire is cut. Ends within a second."""
        ...


@dataclass(slots=True, eq=False)
class _Asking:
    counts: Sequence[Count]
    done: "asyncio.Future[bool | None]"


class Telling:
    """Implements `Shared` over a wire."""

    def __init__(self, wire: Wire, ask_s: float = ASK_S) -> None:
        """`ask_s`: how long an operation waits at most, in seconds."""
        self._wire = wire
        self._ask_s = ask_s
        self._dirty: dict[Count, None] = {}
        self._asking: list[_Asking] = []
        self._is_back = False
        self._woken = asyncio.Event()
        self._asked = asyncio.Event()

    @property
    def is_settled(self) -> bool:
        """See `Shared`."""
        return self._wire.is_settled

    @property
    def offset_s(self) -> float:
        """See `Shared`."""
        return self._wire.offset_s

    def tell(self, counts: Sequence[Count]) -> None:
        """See `Shared`."""
        self._dirty.update(dict.fromkeys(counts))
        self._woken.set()

    def tell_all(self) -> None:
        """The wire is new, and whoever is at its end may have forgotten everything."""
        self._is_back = True
        self._woken.set()
        self._asked.set()

    async def ask(self, counts: Sequence[Count]) -> bool | None:
        """See `Shared`."""
        asking = _Asking(counts, asyncio.get_running_loop().create_future())
        self._asking.append(asking)
        self._woken.set()
        self._asked.set()
        try:
            async with asyncio.timeout(self._ask_s):
                return await asking.done
        except TimeoutError:
            # The answer may have come at the same moment: then it is counted already.
            done = asking.done
            return None if done.cancelled() or not done.done() else done.result()

    async def run(self, limits: Limits) -> None:
        """Tell and ask until cancelled."""
        while True:
            await self._woken.wait()
            if not self._asking:
                try:
                    async with asyncio.timeout(_PACE_S):
                        await self._asked.wait()
                except TimeoutError:
                    pass
            self._woken.clear()
            self._asked.clear()
            if self._is_back:
                self._is_back = False
                self._dirty.update(dict.fromkeys(limits.known()))
            await self._round(limits)
            if self._asking or self._dirty:
                self._woken.set()

    async def _round(self, limits: Limits) -> None:
        asking, self._asking = self._asking[:_BATCH_MAX], self._asking[_BATCH_MAX:]
        asking = [one for one in asking if not one.done.done()]
        wanted = Counter(count for one in asking for count in one.counts)
        counts = [*wanted, *[count for count in self._dirty if count not in wanted][:_BATCH_MAX]]
        for count in counts:
            self._dirty.pop(count, None)
        now_s = limits.now_s()
        told = [_told(count, now_s, wanted[count]) for count in counts]
        heard = await self._wire.exchange(told)
        if heard is None:
            # Each will go by what is known here. The rest is told when the wire is back.
            for one in asking:
                if not one.done.done():
                    one.done.set_result(None)
            return
        left = dict.fromkeys(counts, 0)
        for count, out, back in zip(counts, told, heard, strict=True):
            left[count] = back.granted
            self._take_in(count, out, back, now_s)
        for one in asking:
            if not one.done.done():
                one.done.set_result(_granted(one.counts, left))
        # What was granted and not used is given back by telling the true number.
        self.tell([count for count, granted in left.items() if granted])

    def _take_in(self, count: Count, out: Told, back: Heard, now_s: float) -> None:
        if count.minute != out.minute:
            # The minute ended meanwhile; what was told of it is told again as the one before.
            self.tell([count])
            return
        is_settled = self._wire.is_settled
        # Where things were lost, the others may not have told theirs again yet: what was known of them still holds.
        count.others_now = back.others_now if is_settled else max(back.others_now, count.others_now)
        count.others_before = (
            back.others_before if is_settled else max(back.others_before, count.others_before)
        )
        count.told, count.heard_s = out.now + back.granted, now_s


def _told(count: Count, now_s: float, wanted: int) -> Told:
    minute = int(now_s // WINDOW_S)
    count.turn(minute)
    inside = 1 - (now_s - minute * WINDOW_S) / WINDOW_S
    return Told(count.name, count.key, count.amount, minute, inside, count.now, count.before, wanted)


def _granted(counts: Sequence[Count], left: dict[Count, int]) -> bool:
    """Count one of each, if each has one left."""
    if any(left[count] <= 0 for count in counts):
        return False
    for count in counts:
        left[count] -= 1
        count.now += 1
    return True
