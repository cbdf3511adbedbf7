"""Keeps a process in step with the clock of the store that it shares (docs/decisions/0015)."""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial

from casekeeper.background import Every
from casekeeper.clock import AgreedClock, utc_now

# Quartz goes wrong by less than a millisecond in that time.
_EVERY = timedelta(seconds=10)
# Less disturbs nobody who reads the logs of two machines.
_OFF = timedelta(seconds=2)

_log = logging.getLogger("casekeeper.storage")


async def agree(
    clock: AgreedClock, store_now: Callable[[], Awaitable[datetime]], every: timedelta = _EVERY
) -> Every:
    """The clock is the store's from now on, and stays so while what is returned is at work.

    Raises:
        StoreUnavailable: It does not answer this first time. Later it goes on as it went.
    """
    ask = partial(clock.ask, store_now)
    await ask()
    off = clock() - utc_now()
    if abs(off) > _OFF:
        direction = "behind" if off > timedelta() else "ahead of"
        _log.warning("this machine's clock is %s %s the store's, which counts", abs(off), direction)
    return Every(every, ask, name="asking the store's clock", at_once=False)
