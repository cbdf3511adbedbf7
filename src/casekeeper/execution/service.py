"""`SessionService`: the five verbs of sessions."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import KW_ONLY, field, fields
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, WithJsonSchema
from pydantic_core import to_json

from casekeeper.clock import Clock, to_us
from casekeeper.errors import Quota, SessionNotFound
from casekeeper.execution.calls import Call, Started
from casekeeper.execution.corridor import Executor
from casekeeper.execution.following import follow
from casekeeper.execution.outcomes import Outcome
from casekeeper.execution.session_changes import SessionChanges
from casekeeper.execution.status import Executed, Operations, UpdatedScopes, not_ended, updated_scopes
from casekeeper.identity.logins import Logins
from casekeeper.identity.principal import Principal
from casekeeper.ids import CasefileId, SessionId
from casekeeper.journal.events import Fact, Kind
from casekeeper.journal.feed import Watch
from casekeeper.journal.requests import Ask, Requests
from casekeeper.operations.operation import OperationCall
from casekeeper.paging import Cursors, Page
from casekeeper.sessions.manager import At, CasefileSessionManager, Purpose, SessionContext
from casekeeper.sessions.reading import EventPage, FactPage, OpenView, Reading
from casekeeper.sessions.session import (
    CloseSession,
    CreateSession,
    ListSessions,
    SessionClosedAnswer,
    SessionFilter,
    SessionStore,
    UnifiedSession,
)
from casekeeper.sessions.statistics import statistics
from casekeeper.sessions.streamed import StreamedDelta, StreamedFact
from casekeeper.strict import Strict
from casekeeper.values import value

_OF_THE_SESSION = [f.name for f in fields(UnifiedSession) if f.name != "metadata"]


class Execute(Strict):
    """Run an operation in a session, or in a casefile, whose auto session is then used."""

    casefile_id: CasefileId | None = None
    session_id: SessionId | None = None
    operation: OperationCall
    mode: Literal["wait", "background"] = "wait"
    timeout_s: float | None = Field(
        default=None, gt=0, le=86_400, description="Seconds; never more than the operation's own limit."
    )


class GetSession(Strict):
    """Read a session and a page of its record."""

    session_id: SessionId
    casefile_id: CasefileId | None = None
    include_events: bool = True
    events: EventPage = EventPage()


@value
class SessionCreated:
    """A new session."""

    session_id: str
    casefile_id: str
    session_type: str
    created_at: datetime
    user_permission: str
    permission_from_cache: bool
    updated_scopes: UpdatedScopes | None = None


@value
class SessionDetail(UnifiedSession):
    """A session, a page of its record, and what has not ended. `metadata` is JSON already."""

    _: KW_ONLY
    metadata: Annotated[Any, WithJsonSchema({"type": "object", "additionalProperties": True})] = field(
        default_factory=dict[str, Any]
    )
    events: FactPage | None
    open: list[OpenView]
    user_permission: str
    permission_from_cache: bool
    updated_scopes: UpdatedScopes | None = None


Streamed = StreamedFact | StreamedDelta | Executed | None
Counted = Callable[[Sequence[Quota]], None]
"""Called with the state of the rate limits once a call is counted; not called for a repeat."""


class SessionService:
    """Create, execute, get, list and close sessions."""

    def __init__(
        self,
        manager: CasefileSessionManager,
        executor: Executor,
        operations: Operations,
        changes: SessionChanges,
        reading: Reading,
        sessions: SessionStore,
        requests: Requests,
        logins: Logins,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._manager = manager
        self._executor = executor
        self._operations = operations
        self._changes = changes
        self._reading = reading
        self._sessions = sessions
        self._requests = requests
        self._logins = logins
        self._cursors = cursors
        self._clock = clock

    async def create_session(
        self, caller: Principal, command: CreateSession, ask: Ask
    ) -> tuple[SessionCreated, bool]:
        """Open a session in a casefile."""

        planned = await self._manager.plan(caller, command)

        async def make() -> SessionContext:
            return await self._changes.open(planned, command, ask)

        async def again(session_id: str) -> SessionContext:
            return await self._manager.validate_and_get_session(caller, At(session_id), Purpose.READ)

        context, repeated = await self._requests.once(ask, make, again)
        session = context.session
        created = SessionCreated(
            session.session_id,
            session.casefile_id,
            session.session_type,
            session.created_at,
            context.access.role_name,
            context.access.is_from_cache,
            await updated_scopes(self._logins, context),
        )
        return created, repeated

    async def execute_operation(
        self, caller: Principal, command: Execute, ask: Ask, counted: Counted | None = None
    ) -> tuple[Executed, bool]:
        """Take an operation through the corridor and answer how it ended, or, in the background, that it runs.

        A caller who is cancelled while waiting takes the run along, unless the request can be repeated.

        Raises:
            StillRunning: A repeat whose first request has not ended within ten seconds.
        """
        until = "ended" if command.mode == "wait" else "started"
        call = _call(caller, command, ask, counted, until=until)
        context, got = await self._executor.execute(call)
        match got:
            case str():
                outcome = await self._operations.of_repeat(caller, got, command.mode)
                return await self._operations.executed(outcome, context), True
            case Started():
                outcome = not_ended(got)
            case Outcome():
                outcome = got
        return await self._operations.executed(outcome, context, created=context.is_new), False

    async def stream_operation(
        self, caller: Principal, command: Execute, ask: Ask, counted: Counted | None = None
    ) -> AsyncGenerator[Streamed]:
        """The facts and deltas of an operation and its children, last how it ended; None is a heartbeat."""
        with ExitStack() as stack:
            watches: list[Watch] = []

            def watch(fact: Fact) -> None:
                watches.append(stack.enter_context(self._reading.watch(fact.session_id)))

            context, started = await self._executor.execute(_call(caller, command, ask, counted, watch))
            assert not isinstance(started, Outcome)
            if isinstance(started, str):
                outcome = await self._operations.of_repeat(caller, started, command.mode)
                yield await self._operations.executed(outcome, context)
                return
            try:
                async with aclosing(follow(self._reading, started, watches[0])) as stream:
                    async for item in stream:
                        yield item
                outcome = await asyncio.shield(started.running.ended)
            except (GeneratorExit, asyncio.CancelledError):
                _client_gone(started)
                raise
            yield await self._operations.executed(outcome, context, created=context.is_new)

    async def get_session(self, caller: Principal, command: GetSession) -> SessionDetail:
        """A session with a page of its record. Costs the same on a long session as on a short one."""
        place = At(command.session_id, command.casefile_id)
        context = await self._manager.validate_and_get_session(caller, place, Purpose.READ)
        known = {name: getattr(context.session, name) for name in _OF_THE_SESSION}
        return SessionDetail(
            **known,
            metadata=orjson.Fragment(to_json(context.session.metadata)),
            events=await self._reading.page(context, command.events) if command.include_events else None,
            open=await self._reading.open(context),
            user_permission=context.access.role_name,
            permission_from_cache=context.access.is_from_cache,
            updated_scopes=await updated_scopes(self._logins, context),
        )

    async def list_sessions(self, caller: Principal, command: ListSessions) -> Page[UnifiedSession]:
        """A page of the sessions that the caller may see, newest first."""
        if command.casefile_id is not None:
            await self._manager.enter(caller, command.casefile_id)
        wanted = SessionFilter(**command.model_dump(exclude={"limit", "cursor"}))
        query = f"sessions {caller.user_id} {wanted}"
        before = None
        if command.cursor:
            created_us, session_id = self._cursors.open(query, command.cursor)
            before = (int(created_us), str(session_id))
        rows = await self._sessions.sessions_seen_by(
            caller.user_id, self._clock(), wanted, before, command.limit + 1
        )
        return self._cursors.page(
            query, rows, command.limit, [(to_us(s.created_at), s.session_id) for s in rows]
        )

    async def close_session(
        self, caller: Principal, command: CloseSession, ask: Ask
    ) -> tuple[SessionClosedAnswer, bool]:
        """Close a session for good; closing it again gives the same answer.

        Raises:
            SessionBusy: Operations have not ended, and `cancel` was not asked for.
        """
        place = At(command.session_id, command.casefile_id)
        context = await self._manager.validate_and_get_session(caller, place, Purpose.CLOSE)

        async def make() -> SessionClosedAnswer:
            if context.session.active:
                await self._changes.close(caller, place, command, ask)
            return await self._closed(command.session_id)

        return await self._requests.once(ask, make, self._closed)

    async def _closed(self, session_id: str) -> SessionClosedAnswer:
        session = await self._sessions.session(session_id)
        if session is None or session.closed_at is None:
            raise SessionNotFound(session_id)
        figures = statistics(session, await self._sessions.totals(session_id))
        return SessionClosedAnswer(session_id=session_id, closed_at=session.closed_at, statistics=figures)


def _call(
    caller: Principal,
    command: Execute,
    ask: Ask,
    on_counted: Counted | None,
    on_started: Callable[[Fact], None] | None = None,
    until: Literal["started", "ended"] = "started",
) -> Call:
    timeout = timedelta(seconds=command.timeout_s) if command.timeout_s else None
    outlives = ask.is_repeatable or command.mode == "background"
    place = At(command.session_id, command.casefile_id)
    return Call(
        caller,
        place,
        command.operation,
        ask,
        timeout,
        until=until,
        outlives_caller=outlives,
        on_started=on_started,
        on_counted=on_counted,
    )


def _client_gone(started: Started) -> None:
    # A request that can be repeated will be asked for again; nobody will ever see the end of any other.
    if not started.call.outlives_caller:
        started.running.stop(Kind.CANCELLED, "client_gone", "The client went away.")
