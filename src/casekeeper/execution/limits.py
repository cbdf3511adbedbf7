"""Rate limits per casefile and per user, over a minute that slides.

Counted in this process's memory: the embedded store has one process. Replays cost nothing.
"""

import math
from datetime import timedelta

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from casekeeper.clock import Clock
from casekeeper.errors import RateLimited


class Limits:
    """How many operations may start a minute. 0 means: no limit."""

    def __init__(self, per_user: int, per_casefile: int, clock: Clock) -> None:
        self._clock = clock
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._policies: list[tuple[str, RateLimitItem | None]] = [
            ("user", RateLimitItemPerMinute(per_user) if per_user else None),
            ("casefile", RateLimitItemPerMinute(per_casefile) if per_casefile else None),
        ]

    def spend(self, user_id: str, casefile_id: str) -> None:
        """Count one operation.

        Raises:
            RateLimited: The user's or the casefile's minute is full; says when to come back.
        """
        for (name, policy), key in zip(self._policies, (user_id, casefile_id), strict=True):
            if policy is not None and not self._limiter.hit(policy, name, key):
                now = self._clock()
                stats = self._limiter.get_window_stats(policy, name, key)
                wait_s = min(60, max(1, math.ceil(stats.reset_time - now.timestamp())))
                raise RateLimited(
                    f"{policy.amount} a minute per {name}", now + timedelta(seconds=wait_s), wait_s
                )
