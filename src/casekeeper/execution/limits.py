"""Rate limits per casefile and per user, over a minute that slides.

Counted in this process's memory: the embedded store has one process. Replays cost nothing.
"""

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from casekeeper.clock import Clock
from casekeeper.errors import RateLimited

_WINDOW_S: Final = 60


class Limits:
    """How many operations may start a minute. 0 means: no limit."""

    def __init__(self, per_user: int, per_casefile: int, clock: Clock) -> None:
        self._clock = clock
        self._windows = [("user", _Window(per_user)), ("casefile", _Window(per_casefile))]

    def spend(self, user_id: str, casefile_id: str) -> None:
        """Count one operation.

        Raises:
            RateLimited: The user's or the casefile's minute is full; says when to come back.
        """
        now = self._clock()
        now_s = now.timestamp()
        for (name, window), key in zip(self._windows, (user_id, casefile_id), strict=True):
            wait_s = window.hit(key, now_s) if window.amount else None
            if wait_s is not None:
                raise RateLimited(
                    f"{window.amount} a minute per {name}", now + timedelta(seconds=wait_s), wait_s
                )


@dataclass(slots=True)
class _Count:
    """Hits of one key in this minute and in the one before."""

    minute: int
    now: int = 0
    before: int = 0


class _Window:
    """A sliding window out of two fixed ones: of the last minute's hits the share counts that is still inside.

    The approximation and its small error are described in Cloudflare's "Counting things, a lot of different things".
    A library would do, but the one that fits starts a thread every ten milliseconds to forget old keys.
    """

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self._counts: dict[str, _Count] = {}
        self._minute = 0

    def hit(self, key: str, now_s: float) -> int | None:
        """Count a hit; None, or if there is no room for it, the whole seconds until there may be."""
        minute = int(now_s // _WINDOW_S)
        if minute != self._minute:
            self._minute = minute
            # Once a minute: whoever was not here in this one or the last starts from nothing.
            self._counts = {k: c for k, c in self._counts.items() if c.minute >= minute - 1}
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count(minute)
        elif count.minute != minute:
            count.before = count.now if count.minute == minute - 1 else 0
            count.minute, count.now = minute, 0
        passed_s = now_s - minute * _WINDOW_S
        inside = count.before * (1 - passed_s / _WINDOW_S)
        if count.now + inside < self.amount:
            count.now += 1
            return None
        # One more than the whole seconds: at the very instant there is no room yet.
        return min(_WINDOW_S, math.floor(self._full_s(count, passed_s)) + 1)

    def _full_s(self, count: _Count, passed_s: float) -> float:
        """For how many seconds there is no room: until enough of the last minute is gone, or until the next."""
        if count.now < self.amount:
            return _WINDOW_S * (1 - (self.amount - count.now) / count.before) - passed_s
        return _WINDOW_S - passed_s
