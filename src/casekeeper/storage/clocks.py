"""Keeps a process in step with the clock of the store that it shares (docs/decisions/0015)."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial

from casekeeper.background import Every
from casekeeper.clock import AgreedClock, utc_now

# Quartz goes wrong by less than a millisecond in that time.
_EVERY = timedelta(seconds=10)
# Less disturbs nobody who reads the logs of two machines.
_OFF = timedelta(seconds=2)

_log = logging.getLogger("casekeeper.storage")


@asynccontextmanager
async def agreeing(
    clock: AgreedClock, store_now: Callable[[], Awaitable[datetime]] | None, every: timedelta = _EVERY
) -> AsyncGenerator[None]:
    """While the context lasts, the clock is the store's; without one it stays this machine's.

    Raises:
        StoreUnavailable: It does not answer the first time.
    """
    if store_now is None:
        yield
        return
    await clock.ask(store_now)
    off = clock() - utc_now()
    if abs(off) > _OFF:
        direction = "behind" if off > timedelta() else "ahead of"
        _log.warning("this machine's clock is %s %s the store's, which counts", abs(off), direction)
    # During an outage it goes on as it went.
    asking = Every(every, partial(clock.ask, store_now), name="asking the store's clock", at_once=False)
    async with asking.running():
        yield
