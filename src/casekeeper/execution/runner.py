"""Runs operations: each in a task of its own, with a deadline, stoppable from outside, whatever the tool does."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from traceback import TracebackException
from typing import Any

from casekeeper.acl import Role
from casekeeper.errors import CasekeeperError, Denied
from casekeeper.journal.events import Fact, Failure, Kind
from casekeeper.journal.operations import AT_ONCE
from casekeeper.operations.context import NestedFailed, Parked
from casekeeper.operations.operation import Finished
from casekeeper.values import value

GRACE = timedelta(seconds=5)
"""How long a stopped operation may take to clean up before it is left to itself."""

# Past the grace, for the terminal facts to get to the disk.
_WRITING = timedelta(seconds=2)

_MESSAGE_MAX = 2_000


@value
class Ending:
    """How a run ended."""

    kind: Kind
    finished: Finished | None = None
    failure: Failure | None = None
    usage: dict[str, int | str] | None = None


End = Callable[[Ending | Parked], Coroutine[Any, Any, None]]
"""Records how a run ended, or that it waits."""


MayGoOn = Callable[[Role, frozenset[str]], bool]


def _always(role: Role, tags: frozenset[str]) -> bool:
    return True


@dataclass(eq=False, slots=True)
class Running:
    """One operation under way in this process. `ended` gets its outcome when the terminal fact is on disk.

    `may_go_on` judges it again by a role and the casefile's tags, `ends_at` is when the caller's grant ends.
    `is_tainted`: what it asks for may follow what somebody else has written.

    `ending` is set when it is stopped from outside; that is how it ends then, whatever its tool makes of it. Only what
    `parks` is let wait instead where the server stops. `is_settled`: how it ends, or that it waits, is decided and on its
    way to the disk, so no stop reaches it here any more.

    `inside` has the outcomes to come of what it has called and runs here; `leaves_open`: something that it called waits, or
    may.
    """

    fact: Fact
    user_id: str
    ended: "asyncio.Future[Any]"
    may_go_on: MayGoOn = _always
    ends_at: datetime | None = None
    is_tainted: bool = False
    parks: bool = False
    is_settled: bool = False
    ending: Ending | None = None
    interrupt: Callable[[], None] | None = None
    inside: "set[asyncio.Future[Any]]" = field(default_factory=set["asyncio.Future[Any]"])
    leaves_open: bool = False

    async def nested_ended(self) -> None:
        """Wait until nothing that this operation called runs here any more, or is about to."""
        while self.inside:
            await asyncio.wait(set(self.inside))
            # Those who are told first make place for others.
            await asyncio.sleep(0)

    def stop(self, kind: Kind, type_: str, reason: str, *, retryable: bool = False) -> None:
        """Ask the run to end; the first reason counts."""
        if self.ending is not None or self.is_settled:
            return
        self.ending = Ending(kind, failure=Failure(type=type_, message=reason, retryable=retryable))
        if self.interrupt is not None:
            self.interrupt()


class Runner:
    """Runs the operations of this process and keeps track of them.

    It stops in three steps: `is_leaving` goes on as before, but wants no new callers; `is_draining` begins nothing new
    and lets what runs end; `is_ending` has interrupted what ran still.
    """

    def __init__(self, grace: timedelta = GRACE) -> None:
        self._running: dict[str, Running] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.grace = grace
        self.is_leaving = self.is_draining = self.is_ending = False

    def all(self) -> list[Running]:
        """What runs here now."""
        return list(self._running.values())

    def find(self, event_id: str) -> Running | None:
        """The operation, if it runs here."""
        return self._running.get(event_id)

    def adopt(self, running: Running, task: "asyncio.Task[None]") -> None:
        """Keep a task that lives for the operation until it is done.

        A run of an earlier attempt that is still under way here is stopped: it has lost the operation, and whatever it does
        is refused.
        """
        earlier = self._running.get(running.fact.event_id)
        if earlier is not None and earlier is not running:
            _interrupt(earlier)
        self._running[running.fact.event_id] = running
        self._tasks.add(task)
        if self.is_ending:
            _interrupt(running)

        def forget(done: asyncio.Task[Any]) -> None:
            self._tasks.discard(done)
            if self._running.get(running.fact.event_id) is running:
                del self._running[running.fact.event_id]
            if not done.cancelled() and (error := done.exception()) and not running.ended.done():
                running.ended.set_exception(error)

        task.add_done_callback(forget)

    async def run(
        self, running: Running, work: Callable[[], Awaitable[Finished]], within: timedelta, end: End
    ) -> None:
        """Run to the end, the deadline or a stop, in the present task, then `end` it once; never raises what `work` did.

        A tool that ignores its cancellation for a grace period is ended over its head; nothing that it does later
        reaches the record, since the operation is closed by then.
        """
        if within <= timedelta(0):
            _expire(running, within)
        if running.ending is not None:
            # Stopped before its first step: not even that may happen.
            await end(_settle(running, running.ending))
            return
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        timers = [loop.call_later(within.total_seconds(), _expire, running, within)]
        left = False

        def leave() -> None:
            nonlocal left
            left = True
            assert running.ending is not None
            self.adopt(running, asyncio.ensure_future(end(_settle(running, running.ending))))

        def interrupt() -> None:
            task.cancel()
            timers.append(loop.call_later(self.grace.total_seconds(), leave))

        running.interrupt = interrupt
        ending = await _ending_of(work)
        running.interrupt = None
        for timer in timers:
            timer.cancel()
        if not left:
            await end(_settle(running, ending))

    def stop_inside(self, event_id: str) -> None:
        """End what this operation called and still runs here: it is about to end itself."""
        for running in self._running.values():
            if running.fact.parent_event_id == event_id:
                running.stop(Kind.CANCELLED, "cancelled", "The operation around this one has ended.")

    def stop(self, reason: str, *, casefile_id: str | None = None, user_id: str | None = None) -> None:
        """End what runs for this user, in this casefile, or both."""
        for running in self._running.values():
            if casefile_id in (None, running.fact.casefile_id) and user_id in (None, running.user_id):
                running.stop(Kind.CANCELLED, "rights_lost", reason)

    async def drain(self, within: timedelta) -> None:
        """Begin nothing new, and interrupt what has not ended within this time: the server stops.

        Terminal facts are written before this returns, if they can be; it takes some seconds longer than `within` at most.
        """
        self.is_leaving = self.is_draining = True
        if not self.is_ending:
            await self._wait(within.total_seconds())
        self.is_ending = True
        for running in list(self._running.values()):
            _interrupt(running)
        await self._wait(self.grace.total_seconds() + _WRITING.total_seconds())

    async def _wait(self, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        # One whose start was on its way to the disk may still join those that are waited for.
        while self._tasks and loop.time() < until:
            await asyncio.wait(set(self._tasks), timeout=until - loop.time())


def _settle(running: Running, came: Ending | Parked) -> Ending | Parked:
    """What becomes of a run of which this came, and what was asked of it from outside."""
    running.is_settled = True
    asked = running.ending
    if asked is not None and asked.kind is Kind.INTERRUPTED and running.parks:
        # The server stops, which need not be the end of this: it goes on elsewhere, from where it is.
        has_come = isinstance(came, Parked) or came.finished is not None
        return came if has_come else Parked(AT_ONCE)
    if asked is not None:
        return asked
    if isinstance(came, Parked) and not running.parks:
        said = "It parked, and does not say that it does."
        return Ending(Kind.FAILED, failure=Failure(type="operation_raised", message=said))
    return came


def _interrupt(running: Running) -> None:
    running.stop(Kind.INTERRUPTED, "server_stopped", "The server was stopped.", retryable=True)


def _expire(running: Running, within: timedelta) -> None:
    reason = f"It did not end within {within.total_seconds():g} s."
    running.stop(Kind.TIMED_OUT, "deadline_exceeded", reason, retryable=True)


async def _ending_of(work: Callable[[], Awaitable[Finished]]) -> Ending | Parked:
    """How the work ends. Let through, a tool's SystemExit would take the whole server down with it."""
    try:
        return Ending(Kind.SUCCEEDED, finished=await work())
    except Parked as parked:
        return parked
    except BaseException as error:
        if not isinstance(error, asyncio.CancelledError):
            return _ending(error)
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        return Ending(Kind.FAILED, failure=Failure(type="operation_raised", message="It cancelled itself."))


def _ending(error: BaseException) -> Ending:
    kind, type_, message, retryable, usage = Kind.FAILED, "operation_raised", _said(error), False, None
    match error:
        case CasekeeperError():
            kind = Kind.DENIED if isinstance(error, Denied) else kind
            type_, message, retryable = error.code, error.detail, error.retryable
        case NestedFailed():
            type_, message, retryable, usage = error.type, error.message, error.retryable, error.usage
        case TimeoutError():
            type_, retryable = "operation_timeout", True
        case SystemExit() | KeyboardInterrupt():
            message = f"It tried to end the process ({type(error).__name__})."
        case _:
            message = f"{type(error).__name__}: {message}"
    # The record is UTF-8, and what a tool says may not be.
    message = message[:_MESSAGE_MAX].encode(errors="backslashreplace").decode()
    return Ending(kind, failure=Failure(type=type_, message=message, retryable=retryable), usage=usage)


def _said(error: BaseException) -> str:
    # Careful where `str` is not: an error may be unable to say what it is.
    return str(TracebackException(type(error), error, None))
