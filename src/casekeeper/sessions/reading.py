"""Reading the record: pages of one session, events across sessions, and following a session live."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import field
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Protocol

import orjson
from pydantic import AwareDatetime, Field, StringConstraints, WithJsonSchema

from casekeeper.acl import Action
from casekeeper.casefiles.access import Gate
from casekeeper.clock import Clock
from casekeeper.errors import OperationNotFound, SessionNotFound
from casekeeper.identity.principal import Principal
from casekeeper.ids import CasefileId, EventId, SessionId, UserId
from casekeeper.journal.events import Kind, OperationType, StoredFact
from casekeeper.journal.feed import LiveFeed, Watch
from casekeeper.journal.operations import OpenedOperation, WaitingFor, WaitsFor
from casekeeper.paging import DEFAULT_LIMIT, Cursors, Limit
from casekeeper.sessions.following import HEARTBEAT, PAGE, Following, Heads
from casekeeper.sessions.manager import At, CasefileSessionManager, Purpose, SessionContext
from casekeeper.sessions.streamed import StreamedBreak, StreamedDelta, StreamedFact, StreamedRefusal
from casekeeper.strict import Strict
from casekeeper.values import value

# Stored JSON is passed on as it is; this says what it looks like.
_EVENTS = {"type": "array", "items": {"x-schema": "ExecutionEvent"}}


class EventFilter(Strict):
    """Which facts are wanted; what is not given does not restrict."""

    operation_type: OperationType | None = None
    operation_name: Annotated[str, StringConstraints(max_length=200)] | None = None
    kinds: Annotated[list[Kind], Field(max_length=len(Kind))] = Field(default=[])
    actor: UserId | None = Field(default=None, description="User id of the account whose rights were used.")
    parent_event_id: EventId | None = None
    request_id: Annotated[str, StringConstraints(max_length=128)] | None = None
    after: AwareDatetime | None = Field(default=None, description="At this instant or later.")
    before: AwareDatetime | None = Field(default=None, description="Before this instant.")
    text: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None,
        description="Text in inputs or outputs, ASCII letters in any case; large ones are not searched.",
    )

    @property
    def restricts(self) -> bool:
        """Whether anything is asked for at all."""
        return not _FILTERS.isdisjoint(self.model_fields_set) and bool(
            self.model_dump(exclude_defaults=True, include=_FILTERS)
        )


_FILTERS = set(EventFilter.model_fields)


class EventPage(EventFilter):
    """Which page of a session's record."""

    view: Literal["operations", "journal"] = Field(
        default="operations", description="`operations`: how each operation ended. `journal`: every fact."
    )
    order: Literal["asc", "desc"] = "asc"
    limit: Limit = DEFAULT_LIMIT
    cursor: str | None = None


class QueryEvents(EventPage):
    """Events by their ids, or by filters, across all sessions that the caller may read. Ordered by time."""

    event_ids: Annotated[list[EventId], Field(max_length=200)] = Field(default=[])
    casefile_id: CasefileId | None = None
    session_ids: Annotated[list[SessionId], Field(max_length=100)] = Field(default=[])
    order: Literal["asc", "desc"] = "desc"


@value
class FactPage:
    """A page of facts as JSON that needs no more work."""

    items: Annotated[list[Any], WithJsonSchema(_EVENTS)]
    next_cursor: str | None
    has_more: bool


@value
class WaitingForView:
    """What a pending operation waits for; `until` is when it goes on without."""

    kind: WaitsFor
    id: str | None = None
    until: datetime | None = None


@value
class OpenView:
    """An operation that has not ended."""

    event_id: str
    parent_event_id: str | None
    operation_type: str
    operation_name: str
    state: str
    started_at: datetime
    user_id: str
    waiting_for: Annotated[
        list[WaitingForView], Field(description="What it waits for; empty unless it waits.")
    ] = field(default_factory=list[WaitingForView])


def waiting_view(waiting_for: Sequence[WaitingFor]) -> list[WaitingForView]:
    """What an operation waits for, as readers see it."""
    return [WaitingForView(one.kind, one.id, one.until) for one in waiting_for]


class EventStore(Heads, Protocol):
    """The record as a store reads it."""

    async def facts(
        self, session_id: str, wanted: EventPage, beyond: int | None, limit: int
    ) -> Sequence[StoredFact]:
        """Facts of one session by seq, beyond a seq in the wanted order. Cost does not grow with history."""
        ...

    async def facts_seen_by(
        self,
        user_id: str,
        now: datetime,
        wanted: QueryEvents,
        beyond: tuple[int, str, int] | None,
        limit: int,
    ) -> Sequence[StoredFact]:
        """Facts of all sessions that the user may read now, by (at_us, session_id, seq)."""
        ...

    async def operation(self, event_id: str) -> Sequence[StoredFact]:
        """All facts of one operation, by seq."""
        ...

    async def children(self, event_id: str) -> Sequence[StoredFact]:
        """All facts of the operations that this one called, by seq."""
        ...

    async def open_operations(self, session_id: str) -> Sequence[OpenedOperation]:
        """What runs or waits in a session, oldest first."""
        ...


class Reading:
    """The record, for those who may read it."""

    def __init__(
        self,
        store: EventStore,
        manager: CasefileSessionManager,
        gate: Gate,
        live: LiveFeed,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._store = store
        self._manager = manager
        self._gate = gate
        self._live = live
        self._cursors = cursors
        self._clock = clock
        self._following = Following(self._journal, manager, live)

    async def page(self, context: SessionContext, wanted: EventPage) -> FactPage:
        """A page of one session's record, by seq."""
        session_id = context.session.session_id
        beyond = None
        if wanted.cursor:
            beyond = int(self._cursors.open(_query(session_id, wanted), wanted.cursor)[0])
        rows = await self._store.facts(session_id, wanted, beyond, wanted.limit + 1)
        return self._page(session_id, wanted, rows, lambda row: (row.seq,))

    async def open(self, context: SessionContext) -> list[OpenView]:
        """What has not ended in the session."""
        return [open_view(o) for o in await self._store.open_operations(context.session.session_id)]

    async def query(self, caller: Principal, wanted: QueryEvents) -> FactPage:
        """Events across sessions. What the caller may not read is not there."""
        if wanted.casefile_id:
            await self._gate.enter(caller, wanted.casefile_id, Action.WORK)
        beyond = None
        if wanted.cursor:
            at_us, session_id, seq = self._cursors.open(_query(caller.user_id, wanted), wanted.cursor)
            beyond = (int(at_us), str(session_id), int(seq))
        rows = await self._store.facts_seen_by(
            caller.user_id, self._clock(), wanted, beyond, wanted.limit + 1
        )
        return self._page(caller.user_id, wanted, rows, lambda row: (row.at_us, row.session_id, row.seq))

    async def operation(
        self, caller: Principal, event_id: str
    ) -> tuple[SessionContext, Sequence[StoredFact]]:
        """All facts of one operation, with the proof that the caller may read its session.

        Raises:
            OperationNotFound: Missing, or in a session that the caller may not see.
        """
        facts = await self._store.operation(event_id)
        # What is missing costs the reads of what is another's, so that the time tells nothing: no session has this id.
        place = At(session_id=facts[0].session_id if facts else event_id)
        try:
            context = await self._manager.validate_and_get_session(caller, place, Purpose.READ)
        except SessionNotFound as error:
            raise OperationNotFound(event_id) from error
        return context, facts

    def watch(self, session_id: str) -> AbstractContextManager[Watch]:
        """Collect a session's progress from now on, for a `follow` that begins later."""
        return self._live.watch(session_id)

    @property
    def is_ended(self) -> bool:
        """Whether nobody can follow a session any more."""
        return self._following.is_ended

    def end(self) -> None:
        """End all streams that follow a session, each with the id behind which it can be resumed elsewhere."""
        self._following.end()

    def follow(
        self,
        context: SessionContext,
        after: int,
        heartbeat: timedelta = HEARTBEAT,
        watched: Watch | None = None,
        until: Callable[[], bool] | None = None,
    ) -> AsyncGenerator[StreamedFact | StreamedDelta | StreamedBreak | StreamedRefusal | None]:
        """The session's facts behind `after`, then what comes; None is a heartbeat.

        Permission is checked again before anything is sent and at every heartbeat; the stream ends with
        the refusal when it is gone. A break is the last item where the server stops, which a `watched` stream outlives: it
        ends with what it is about. Facts come once each, in order, whatever happens to wake-ups. Deltas come behind the
        start of their operation and before its end.

        `until` is asked after each read when there is nothing more to send. Once it is true, what was committed before is
        sent and the stream ends without a further item. Call `wake` of the `watched` when it becomes true; otherwise that
        is noticed with the next fact, delta or heartbeat.

        The store is read when facts were announced and at every heartbeat, not for deltas.
        """
        return self._following.follow(context, after, heartbeat, watched, until)

    async def _journal(self, session_id: str, after: int) -> Sequence[StoredFact]:
        return await self._store.facts(session_id, _JOURNAL, after, PAGE)

    def _page(
        self,
        where: str,
        wanted: EventPage,
        rows: Sequence[StoredFact],
        place: Callable[[StoredFact], Sequence[int | str]],
    ) -> FactPage:
        limit, cursor = wanted.limit, None
        if more := len(rows) > limit:
            cursor = self._cursors.seal(_query(where, wanted), place(rows[limit - 1]))
        return FactPage([orjson.Fragment(row.json()) for row in rows[:limit]], cursor, more)


_JOURNAL = EventPage(view="journal", limit=PAGE)


def open_view(opened: OpenedOperation) -> OpenView:
    """An open operation as readers see it."""
    row = opened.row
    return OpenView(
        row.event_id,
        row.parent_event_id,
        row.operation_type,
        row.operation_name,
        row.state,
        row.started_at,
        row.user_id,
        waiting_view(row.held.waiting_for if row.held else ()),
    )


def _query(where: str, wanted: EventPage) -> str:
    return where + wanted.model_dump_json(exclude={"cursor", "limit"}, exclude_defaults=True)
