"""Rate limits per casefile and per user, over a minute that slides.

Counted in this process's memory: the embedded store has one process. Replays cost nothing.
"""

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from casekeeper.clock import Clock
from casekeeper.errors import RateLimited

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.strategies import RateLimiter


class Limits:
    """How many operations may start a minute. 0 means: no limit."""

    def __init__(self, per_user: int, per_casefile: int, clock: Clock) -> None:
        self._clock = clock
        self._amounts = (("user", per_user), ("casefile", per_casefile))
        self._limiter: RateLimiter | None = None
        self._policies: list[tuple[str, RateLimitItem | None]] = []

    def spend(self, user_id: str, casefile_id: str) -> None:
        """Count one operation.

        Raises:
            RateLimited: The user's or the casefile's minute is full; says when to come back.
        """
        limiter = self._limiter or self._open()
        for (name, policy), key in zip(self._policies, (user_id, casefile_id), strict=True):
            if policy is not None and not limiter.hit(policy, name, key):
                now = self._clock()
                stats = limiter.get_window_stats(policy, name, key)
                wait_s = min(60, max(1, math.ceil(stats.reset_time - now.timestamp())))
                raise RateLimited(
                    f"{policy.amount} a minute per {name}", now + timedelta(seconds=wait_s), wait_s
                )

    def _open(self) -> "RateLimiter":
        # The library takes longer to import than the server to open; the first operation pays for it.
        from limits import RateLimitItemPerMinute
        from limits.storage import MemoryStorage
        from limits.strategies import SlidingWindowCounterRateLimiter

        self._policies = [(name, RateLimitItemPerMinute(n) if n else None) for name, n in self._amounts]
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        return self._limiter
