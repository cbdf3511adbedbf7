"""Keeps a process in step with the clock of the store that it shares (docs/decisions/0015)."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

from casekeeper.clock import AgreedClock, utc_now
from casekeeper.errors import StoreUnavailable

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
    keeping = asyncio.create_task(_keep(clock, store_now, every))
    try:
        yield
    finally:
        keeping.cancel()


async def _keep(clock: AgreedClock, store_now: Callable[[], Awaitable[datetime]], every: timedelta) -> None:
    while True:
        await asyncio.sleep(every.total_seconds())
        # It goes on as it went; what needs the store will say that it is away.
        with suppress(StoreUnavailable):
            await clock.ask(store_now)
