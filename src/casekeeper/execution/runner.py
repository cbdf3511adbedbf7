"""Runs operations: each in a task of its own, with a deadline, stoppable from outside, whatever the tool does."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from casekeeper.errors import CasekeeperError, Denied
from casekeeper.journal.events import Fact, Failure, Kind
from casekeeper.operations.context import NestedFailed
from casekeeper.operations.operation import Finished

GRACE = timedelta(seconds=5)
"""How long a stopped operation may take to clean up before it is left to itself."""

_MESSAGE_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    kind: Kind
    finished: Finished | None = None
    failure: Failure | None = None
    usage: dict[str, int | str] | None = None


@dataclass(eq=False, slots=True)
class Running:
    """One operation under way in this process. `ended` gets its outcome when the terminal fact is on disk."""

    fact: Fact
    user_id: str
    ended: "asyncio.Future[Any]"
    stopping: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    ending: Ending | None = None

    def stop(self, kind: Kind, type_: str, reason: str, *, retryable: bool = False) -> None:
        """Ask the run to end; the first reason counts."""
        if self.ending is None:
            self.ending = Ending(kind, failure=Failure(type=type_, message=reason, retryable=retryable))
        if not self.stopping.done():
            self.stopping.set_result(None)


class Runner:
    """Knows what runs in this process."""

    def __init__(self, grace: timedelta = GRACE) -> None:
        self._running: dict[str, Running] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._grace_s = grace.total_seconds()
        self.is_draining = False

    def find(self, event_id: str) -> Running | None:
        """The operation, if it runs here."""
        return self._running.get(event_id)

    def begin(self, running: Running, life: Coroutine[Any, Any, None]) -> None:
        """Give the operation a life of its own: nobody who waits for it can end it by going away."""
        self.adopt(running, asyncio.ensure_future(life))

    def adopt(self, running: Running, task: "asyncio.Task[None]") -> None:
        """Take a life that has begun already."""
        self._running[running.fact.event_id] = running
        self._tasks.add(task)
        if self.is_draining:
            _interrupt(running)

        def forget(done: asyncio.Task[Any]) -> None:
            self._tasks.discard(done)
            self._running.pop(running.fact.event_id, None)
            if not done.cancelled() and (error := done.exception()) and not running.ended.done():
                running.ended.set_exception(error)

        task.add_done_callback(forget)

    async def run(
        self, running: Running, work: Callable[[], Awaitable[Finished]], within: timedelta
    ) -> Ending:
        """Run to the end, the deadline or a stop; returns how it ended, never raises.

        A tool that ignores its cancellation is left to itself after a grace period; nothing that it does later
        reaches the record, since the operation is closed by then.
        """
        if running.ending is not None:
            # Stopped before its first step: not even that may happen.
            return running.ending
        task = asyncio.ensure_future(_guarded(work))
        await asyncio.wait(
            (task, running.stopping), timeout=within.total_seconds(), return_when=asyncio.FIRST_COMPLETED
        )
        if not task.done():
            running.stop(
                Kind.TIMED_OUT,
                "deadline_exceeded",
                f"It did not end within {within.total_seconds():g} s.",
                retryable=True,
            )
            task.cancel()
            await asyncio.wait((task,), timeout=self._grace_s)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(_swallow(self._tasks))
            return running.ending or Ending(Kind.FAILED)
        return _ending(task, running)

    async def stop(
        self, reason: str, *, casefile_id: str | None = None, user_id: str | None = None
    ) -> list[str]:
        """End what runs for this user, in this casefile, or both; returns the event ids."""
        stopped = [
            r
            for r in self._running.values()
            if casefile_id in (None, r.fact.casefile_id) and user_id in (None, r.user_id)
        ]
        for running in stopped:
            running.stop(Kind.CANCELLED, "rights_lost", reason)
        return [r.fact.event_id for r in stopped]

    async def drain(self, within: timedelta) -> None:
        """End everything: the server stops. Terminal facts are written before this returns, if they can be."""
        self.is_draining = True
        for running in list(self._running.values()):
            _interrupt(running)
        loop = asyncio.get_running_loop()
        until = loop.time() + within.total_seconds()
        # One whose start was on its way to the disk may still join those that are waited for.
        while self._tasks and loop.time() < until:
            await asyncio.wait(set(self._tasks), timeout=until - loop.time())


def _interrupt(running: Running) -> None:
    running.stop(Kind.INTERRUPTED, "server_stopped", "The server was stopped.", retryable=True)


async def _guarded(work: Callable[[], Awaitable[Finished]]) -> Finished:
    try:
        return await work()
    except (SystemExit, KeyboardInterrupt) as error:
        # Let through, it would take the whole server down with the tool.
        raise RuntimeError(f"the operation tried to end the process ({type(error).__name__})") from error


def _ending(task: "asyncio.Task[Finished]", running: Running) -> Ending:
    if task.cancelled():
        return running.ending or Ending(
            Kind.FAILED, failure=Failure(type="operation_raised", message="It cancelled itself.")
        )
    error = task.exception()
    if error is None:
        return Ending(Kind.SUCCEEDED, finished=task.result())
    if running.ending is not None:
        return running.ending
    kind, type_, message, retryable, usage = Kind.FAILED, "operation_raised", _said(error), False, None
    match error:
        case CasekeeperError():
            kind = Kind.DENIED if isinstance(error, Denied) else kind
            type_, message, retryable = error.code, error.detail, error.retryable
        case NestedFailed():
            type_, message, retryable, usage = error.type, error.message, error.retryable, error.usage
        case TimeoutError():
            type_, retryable = "operation_timeout", True
        case _:
            message = f"{type(error).__name__}: {message}"
    # The record is UTF-8, and what a tool says may not be.
    message = message[:_MESSAGE_MAX].encode(errors="backslashreplace").decode()
    return Ending(kind, failure=Failure(type=type_, message=message, retryable=retryable), usage=usage)


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "it cannot say why"


def _swallow(tasks: set[asyncio.Task[Any]]) -> Callable[[asyncio.Task[Any]], None]:
    def done(task: asyncio.Task[Any]) -> None:
        tasks.discard(task)
        if not task.cancelled():
            task.exception()

    return done
