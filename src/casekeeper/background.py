"""Work in the background: begun, repeated, ended, and logged when it fails, in one way wherever it is done."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

from casekeeper.errors import Unavailable

# What an outage held up is done soon after it; longer periods would make it wait for theirs.
_AGAIN = timedelta(seconds=1)

_log = logging.getLogger("casekeeper.background")


class Every:
    """Work that is done again after each period, and as soon as `woken` is set, one time after the other.

    Where something that it needs is unavailable, that is logged once an outage, and it is tried again after a second, or
    after the period if that is shorter. Any other error ends it and is logged as critical.
    """

    def __init__(
        self,
        period: timedelta,
        work: Callable[[], Awaitable[object]],
        *,
        name: str,
        woken: asyncio.Event | None = None,
        at_once: bool = True,
    ) -> None:
        """`work` may return a timedelta after which it is due again, if that is before the period ends.

        `name` says in the log what is done. Without `at_once` a period passes first.
        """
        self._period_s = period.total_seconds()
        self._work = work
        self._name = name
        self._woken = woken or asyncio.Event()
        self._at_once = at_once
        self._is_unavailable = False

    async def run(self) -> None:
        """Work until cancelled."""
        if not self._at_once:
            await self._pause(self._period_s)
        while True:
            self._woken.clear()
            await self._pause(await self._next_in_s())

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """At work until the context ends."""
        async with in_background(self.run(), self._name):
            yield

    async def _next_in_s(self) -> float:
        try:
            due = await self._work()
        except Unavailable as error:
            if not self._is_unavailable:
                _log.warning("%s: %s; trying again", self._name, error.detail.removesuffix("."))
            self._is_unavailable = True
            return min(self._period_s, _AGAIN.total_seconds())
        self._is_unavailable = False
        return min(self._period_s, due.total_seconds()) if isinstance(due, timedelta) else self._period_s

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass


@asynccontextmanager
async def running(*works: Every) -> AsyncGenerator[None]:
    """All of them at work until the context ends."""
    async with AsyncExitStack() as stack:
        for work in works:
            await stack.enter_async_context(work.running())
        yield


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, None], name: str) -> AsyncGenerator[None]:
    """The work goes on beside the context and is cancelled with it; an error ends it and is logged as critical."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_report)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def _report(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.critical("%s has stopped; restart the server", task.get_name(), exc_info=error)


async def each(*works: Callable[[], Awaitable[object]]) -> None:
    """Do all of them in this order; one that needs something unavailable keeps none of the others from being done.

    Raises:
        Unavailable: The last one that did.
    """
    unavailable: Unavailable | None = None
    for work in works:
        try:
            await work()
        except Unavailable as error:
            unavailable = error
    if unavailable is not None:
        raise unavailable
