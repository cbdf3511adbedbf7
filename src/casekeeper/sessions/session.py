"""The session: what it is, what may be asked of it, and what a store keeps of it."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from casekeeper.errors import SessionBusy, SessionClosed, SessionNotFound
from casekeeper.ids import CasefileId, SessionId, UserId
from casekeeper.journal.commits import About, Condition, IdTaken, Record, Superseded
from casekeeper.paging import DEFAULT_LIMIT, Limit
from casekeeper.strict import Strict
from casekeeper.values import value

SessionTitle = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Reason = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$")]


class SessionType(StrEnum):
    """What a session is for. `record` is reserved: the casefile's own record."""

    INTERACTIVE = "interactive"
    BATCH = "batch"
    WORKFLOW = "workflow"
    RECORD = "record"


class Visibility(StrEnum):
    """Who sees a session: its creator alone (and the casefile's admins), or every member."""

    PRIVATE = "private"
    CASEFILE = "casefile"


@value
class Head:
    """The newest fact of a session. Keep it: a record that lacks it later was cut or rewritten."""

    seq: int
    hash: str


@value
class UnifiedSession:
    """A stretch of work in one casefile by one user.

    `auto` ones are made by an execute that names no session, and re-used by the next.
    """

    _: KW_ONLY
    session_id: str
    casefile_id: str
    user_id: str
    session_type: SessionType = SessionType.INTERACTIVE
    visibility: Visibility = Visibility.PRIVATE
    title: str | None = None
    auto: bool = False
    active: bool = True
    created_at: datetime
    last_activity_at: datetime
    closed_at: datetime | None = None
    head: Head | None = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


class CreateSession(Strict):
    """Open a session in a casefile."""

    casefile_id: CasefileId
    session_type: Literal["interactive", "batch", "workflow"] = "interactive"
    title: SessionTitle | None = None
    visibility: Visibility = Visibility.PRIVATE
    metadata: Annotated[dict[str, Any], Field(max_length=100)] = Field(default={})


class ListSessions(Strict):
    """Sessions that the caller may see, newest first."""

    casefile_id: CasefileId | None = None
    user_id: UserId | None = None
    active: bool | None = None
    session_type: Literal["interactive", "batch", "workflow"] | None = None
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None
    text: Annotated[str, StringConstraints(max_length=200)] | None = Field(
        default=None, description="Words in the title, in any case."
    )
    limit: Limit = DEFAULT_LIMIT
    cursor: str | None = None


class CloseSession(Strict):
    """Close a session for good."""

    session_id: SessionId
    casefile_id: CasefileId | None = None
    reason: Reason | None = None
    cancel: bool = Field(default=False, description="Cancel what still runs, then close.")


class OperationCounts(BaseModel):
    """How operations ended."""

    total: int = 0
    succeeded: int = 0
    failed: int = Field(default=0, description="Failed, cancelled, timed out or interrupted.")
    denied: int = 0


class Statistics(BaseModel):
    """A session in figures."""

    event_count: int
    operations: OperationCounts
    by_type: dict[str, int]
    by_name: dict[str, int]
    duration_s: float = Field(description="From opening to closing, in seconds.")
    busy_ms: int = Field(description="Time spent in operations at top level, in milliseconds.")
    tokens: int
    cost: str = Field(description="Estimated cost of the models used, in US dollars.")


class SessionClosedAnswer(BaseModel):
    """A closed session and its statistics."""

    session_id: str
    closed_at: datetime
    statistics: Statistics


@value
class Total:
    """Operations of one name in one session that ended one way."""

    operation_type: str
    operation_name: str
    kind: str
    count: int
    busy_ms: int
    tokens: int
    cost_micros: int


@value
class SessionFilter:
    """Which sessions a list asks for."""

    casefile_id: str | None = None
    user_id: str | None = None
    active: bool | None = None
    session_type: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    text: str | None = None


class SessionStore(Protocol):
    """Sessions as a store keeps them."""

    async def session(self, session_id: str) -> UnifiedSession | None:
        """One session of a casefile that is not deleted, with its head."""
        ...

    async def auto_session(
        self, user_id: str, casefile_id: str, active_since: datetime
    ) -> UnifiedSession | None:
        """The user's open auto session of the casefile that was used last, if it was used since then."""
        ...

    async def sessions_seen_by(
        self, user_id: str, now: datetime, wanted: SessionFilter, before: tuple[int, str] | None, limit: int
    ) -> Sequence[UnifiedSession]:
        """Sessions that the user may see now, newest first, behind (created_us, session_id). No record sessions."""
        ...

    async def totals(self, session_id: str) -> Sequence[Total]:
        """The session's operations, counted; costs the same for long sessions."""
        ...


@value
class SessionIsOpen(Condition):
    """The session exists and is not closed. `found` is its closed_us, or None where it is missing."""

    session_id: str

    @property
    def about(self) -> Sequence[About]:
        return (About("session", self.session_id, alone=True),)

    def refusal(self, found: Any) -> Exception | None:
        if found is None:
            return SessionNotFound(self.session_id)
        return SessionClosed() if found else None


@value
class SessionIsIdle(Condition):
    """No operation of the session is open. `found` are the open ones' ids."""

    session_id: str

    @property
    def about(self) -> Sequence[About]:
        return (About("session", self.session_id, alone=True),)

    def refusal(self, found: Sequence[str]) -> Exception | None:
        return SessionBusy(tuple(found)) if found else None


@value
class SessionIdIsFree(Condition):
    """The session id is not taken."""

    session_id: str

    @property
    def about(self) -> Sequence[About]:
        return (About("session", self.session_id, alone=True),)

    def refusal(self, found: Any) -> Exception | None:
        return IdTaken() if found else None


class AutoSessionExists(Superseded):
    """Another first call made the auto session meanwhile."""


@value
class AutoSessionIsAbsent(Condition):
    """The user has no auto session in the casefile that was used since then."""

    user_id: str
    casefile_id: str
    active_since: datetime

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.casefile_id, alone=True),)

    def refusal(self, found: Any) -> Exception | None:
        return AutoSessionExists() if found else None


@value
class PutSession(Record):
    """A new session; its head is the store's business."""

    session: UnifiedSession

    @property
    def about(self) -> Sequence[About]:
        # The casefile alone, so that nobody finds a user's auto session missing beside this one.
        session = self.session
        return (
            About("casefile", session.casefile_id, alone=True),
            About("session", session.session_id, alone=True),
        )


@value
class EndSession(Record):
    """The session is closed from now on."""

    session_id: str
    at: datetime

    @property
    def about(self) -> Sequence[About]:
        return (About("session", self.session_id, alone=True),)


@value
class PutConversation(Record):
    """Where the session's conversation with agents goes on from: the snapshot's digest."""

    session_id: str
    event_id: str
    blob: str

    @property
    def about(self) -> Sequence[About]:
        return (About("session", self.session_id, alone=True),)
