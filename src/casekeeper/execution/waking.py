"""The waker: resumes every waiting operation when it is due, whatever it waited for.

What is due stands in the rows (`wake_at`), which any commit can change (`Wake`); a hint only makes it quicker. Several
processes may find the same row: the commit that takes it up lets one of them have it.
"""

import asyncio
import logging
from datetime import timedelta
from time import monotonic
from typing import Protocol

from casekeeper.background import Every
from casekeeper.clock import Clock
from casekeeper.errors import Overloaded, StoreUnavailable
from casekeeper.execution.calls import Started
from casekeeper.execution.runner import Runner
from casekeeper.journal.operations import OpenedOperation, OpenOperations

LOOKED_EVERY = timedelta(seconds=1)
"""How late it is noticed that another process woke something; a hint in this process is followed at once."""

_PAGE = 100
# More at a time would only make each slower; what is left is due still, also for other processes.
_AT_ONCE = 100
# Until something that could not be taken up, for a reason that is not expected, is tried again.
_AGAIN_S = 60.0

_log = logging.getLogger("casekeeper.waking")


class Takes(Protocol):
    """Resumes waiting operations."""

    async def resume(self, opened: OpenedOperation) -> Started | None:
        """Take one up; None where it is not."""
        ...


class Waker:
    """Takes up what is due while `looking` runs, until the server stops."""

    def __init__(
        self,
        store: OpenOperations,
        takes: Takes,
        runner: Runner,
        clock: Clock,
        due: asyncio.Event,
        every: timedelta = LOOKED_EVERY,
    ) -> None:
        """`due` is set by those who wake something in this process."""
        self._store = store
        self._takes = takes
        self._runner = runner
        self._clock = clock
        self._every = every
        self._hinted = due
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, float] = {}
        self.looking = Every(every, self._look, name="taking up what is due", woken=due)

    def hint(self) -> None:
        """Look at once: something may be due."""
        self._hinted.set()

    async def _look(self) -> timedelta | None:
        """Take up what is due now; returns when the next is, if that is known."""
        if self._runner.is_leaving:
            return None
        # What is under way, or set aside, must not hide what is behind it.
        found = await self._store.due(_PAGE + len(self._tasks) + len(self._failed))
        now = self._clock()
        due = [one for one in found if one.row.wake_at is not None and one.row.wake_at <= now]
        for one in due:
            if len(self._tasks) < _AT_ONCE and self._is_free(one.row.event_id):
                self._begin(one)
        later = [one.row.wake_at for one in found if one.row.wake_at is not None and one.row.wake_at > now]
        return later[0] - now if later else None

    def _is_free(self, event_id: str) -> bool:
        failed_s = self._failed.get(event_id)
        if failed_s is not None and monotonic() - failed_s > _AGAIN_S:
            del self._failed[event_id]
            failed_s = None
        return failed_s is None and event_id not in self._tasks

    def _begin(self, opened: OpenedOperation) -> None:
        event_id = opened.row.event_id
        task = self._tasks[event_id] = asyncio.create_task(self._take_up(opened))

        def done(ended: asyncio.Task[None]) -> None:
            del self._tasks[event_id]
            # There may be more than could be taken up at a time.
            self._hinted.set()
            if not ended.cancelled() and (error := ended.exception()):
                self._failed[event_id] = monotonic()
                _log.error("the waiting operation %s cannot be resumed", event_id, exc_info=error)

        task.add_done_callback(done)

    async def _take_up(self, opened: OpenedOperation) -> None:
        try:
            started = await self._takes.resume(opened)
        except (StoreUnavailable, Overloaded):
            # It is due still; the pause keeps an outage from being hammered at.
            await asyncio.sleep(self._every.total_seconds())
            return
        if started is not None:
            # It counts among those that are under way until it has ended or waits again.
            await asyncio.wait((started.running.ended,))
