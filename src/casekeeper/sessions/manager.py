"""The check WHERE for sessions: may this caller do this in this session, or in a new one of this casefile?"""

from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from casekeeper.acl import Action
from casekeeper.casefiles.access import Access, Gate, denial
from casekeeper.clock import Clock
from casekeeper.errors import (
    ArgumentsInvalid,
    Denied,
    FieldError,
    SessionNotFound,
    SessionPrivate,
    SessionReserved,
)
from casekeeper.identity.principal import Principal
from casekeeper.ids import new_event_id, new_session_id
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Fact, Kind, Payload
from casekeeper.sessions.session import (
    AutoSessionIsAbsent,
    CreateSession,
    PutSession,
    SessionIdIsFree,
    SessionIsOpen,
    SessionStore,
    SessionType,
    UnifiedSession,
    Visibility,
)
from casekeeper.values import value

# Some ten megabytes.
_KNOWN_MAX = 10_000


class Purpose(Enum):
    """What a session is entered for."""

    READ = "read"
    EXECUTE = "execute"
    CLOSE = "close"
    SUPERVISE = "stop another's operation"


class Place(Protocol):
    """What a call is addressed to: a session, a casefile, or both."""

    @property
    def session_id(self) -> str | None: ...
    @property
    def casefile_id(self) -> str | None: ...


@value
class At:
    """A place by its ids."""

    session_id: str | None = None
    casefile_id: str | None = None


@value
class SessionContext:
    """Proof that WHO and WHERE passed for this session. Only the manager makes one.

    `is_new`: the session is planned, not written; `opening` goes into the commit of the first fact.
    """

    access: Access
    session: UnifiedSession
    is_new: bool = False
    idle_since: datetime | None = None

    @property
    def caller(self) -> Principal:
        """Who called."""
        return self.access.caller

    @property
    def opening(self) -> Commit:
        """What must hold and be written for the session to be there: nothing more if it is."""
        session = self.session
        if not self.is_new:
            return Commit(conditions=(SessionIsOpen(session.session_id),))
        absent = (
            (AutoSessionIsAbsent(session.user_id, session.casefile_id, self.idle_since),)
            if self.idle_since
            else ()
        )
        fact = Fact(
            casefile_id=session.casefile_id,
            session_id=session.session_id,
            event_id=new_event_id(session.created_at),
            kind=Kind.OPENED,
            actor=self.caller.pseudonym,
            started_at=session.created_at,
            permission=self.access.permission,
            payload=Payload.of_fields(
                inputs={
                    "session_type": session.session_type,
                    "visibility": session.visibility,
                    "title": session.title,
                    "metadata": session.metadata,
                }
            ),
        )
        return Commit((fact,), (SessionIdIsFree(session.session_id), *absent), (PutSession(session),))


class CasefileSessionManager:
    """Decides who may enter which session."""

    def __init__(self, sessions: SessionStore, gate: Gate, clock: Clock, auto_idle: timedelta) -> None:
        self._sessions = sessions
        self._gate = gate
        self._clock = clock
        self._auto_idle = auto_idle
        self._known: dict[str, UnifiedSession] = {}

    async def validate_and_get_session(
        self,
        caller: Principal,
        place: Place,
        purpose: Purpose = Purpose.EXECUTE,
        *,
        again: bool = False,
        on_record: bool = True,
    ) -> SessionContext:
        """The proof for a session, or for a new one of the casefile where only that is named.

        `again`: read the permission from the store, since a cached one was overtaken. `on_record` False: the caller
        of this method keeps the record of a refusal.

        Raises:
            SessionNotFound: Missing, of a casefile without access, another's private one, or of another casefile.
            CasefileNotFound: Likewise, where no session is named.
            RoleTooLow: A member whose role does not do; recorded.
            SessionPrivate: An admin who would work in another's private session; recorded.
            SessionReserved: The record session takes no operations and no closing.
        """
        if place.session_id is None:
            return await self._in_casefile(caller, place.casefile_id, again=again)
        access, session = await self._found(caller, place.session_id, purpose, again=again)
        if place.casefile_id not in (None, session.casefile_id):
            raise SessionNotFound(place.session_id)
        if session.session_type is SessionType.RECORD and purpose is not Purpose.READ:
            raise SessionReserved
        if not access.may(action := _action(caller, session, purpose)):
            raise await self._gate.refuse(access, action, on_record=on_record)
        if (
            purpose is Purpose.EXECUTE
            and session.visibility is Visibility.PRIVATE
            and not _owns(caller, session)
        ):
            raise await self._refuse_private(access, session, on_record=on_record)
        return SessionContext(access, session)

    async def still(self, context: SessionContext) -> SessionContext:
        """A fresh proof for reading a session, from an earlier proof.

        The session is not read: what decides who may read it (its user, casefile and visibility) never changes, and a
        deleted casefile shows in the permission. Nor is the permission, if a cached one is provably current.

        Raises:
            SessionNotFound, RoleTooLow, StoreUnavailable: As `validate_and_get_session`.
        """
        caller, session = context.caller, context.session
        access = await self._gate.look(caller, session.casefile_id)
        if access is None or not _is_visible(access, session):
            raise SessionNotFound(session.session_id)
        if not access.may(action := _action(caller, session, Purpose.READ)):
            raise await self._gate.refuse(access, action)
        return SessionContext(access, session)

    async def _found(
        self, caller: Principal, session_id: str, purpose: Purpose, *, again: bool
    ) -> tuple[Access, UnifiedSession]:
        """The session with the caller's access; to execute in it, perhaps as it was.

        What executing asks for (who opened it, where, who may see it) never changes, and whether it is still open
        is judged in the commit.
        """
        known = self._known.get(session_id) if purpose is Purpose.EXECUTE else None
        session = known or await self._sessions.session(session_id)
        # Strangers must not tell by the time whether a session exists, so they cost the same reads: no casefile has this id.
        access = await self._gate.look(caller, session.casefile_id if session else session_id, again=again)
        if session is None or access is None or not _is_visible(access, session):
            if known:
                await self._sessions.session(session_id)
            raise SessionNotFound(session_id)
        if not known:
            self._remember(session)
        return access, session

    def _remember(self, session: UnifiedSession) -> None:
        known = self._known
        if len(known) >= _KNOWN_MAX:
            del known[next(iter(known))]
        known[session.session_id] = session

    async def enter(self, caller: Principal, casefile_id: str) -> Access:
        """The proof that the caller is a member of the casefile, for lists of its sessions."""
        return await self._gate.enter(caller, casefile_id, Action.WORK)

    async def plan(self, caller: Principal, command: CreateSession, *, again: bool = False) -> SessionContext:
        """A new session, not written yet."""
        access = await self._gate.enter(caller, command.casefile_id, Action.WORK, again=again)
        return self._new(access, command)

    async def _in_casefile(
        self, caller: Principal, casefile_id: str | None, *, again: bool
    ) -> SessionContext:
        if casefile_id is None:
            raise ArgumentsInvalid(
                errors=(FieldError("payload.casefile_id", "give casefile_id or session_id"),)
            )
        access = await self._gate.enter(caller, casefile_id, Action.WORK, again=again)
        since = self._clock() - self._auto_idle
        session = await self._sessions.auto_session(caller.user_id, casefile_id, since)
        if session is not None:
            return SessionContext(access, session)
        return self._new(access, CreateSession(casefile_id=casefile_id), idle_since=since)

    def _new(
        self, access: Access, command: CreateSession, idle_since: datetime | None = None
    ) -> SessionContext:
        now = self._clock()
        user_id = access.caller.user_id
        session = UnifiedSession(
            session_id=new_session_id(now, user_id, access.casefile_id),
            user_id=user_id,
            created_at=now,
            last_activity_at=now,
            auto=idle_since is not None,
            casefile_id=command.casefile_id,
            session_type=SessionType(command.session_type),
            visibility=command.visibility,
            title=command.title,
            metadata=command.metadata,
        )
        return SessionContext(access, session, is_new=True, idle_since=idle_since)

    async def _refuse_private(self, access: Access, session: UnifiedSession, *, on_record: bool) -> Denied:
        refusal = SessionPrivate()
        if not on_record:
            return refusal
        asked = {"session_id": session.session_id}
        await self._gate.record_denial(access, refusal, denial(asked, refusal))
        return refusal


def _owns(caller: Principal, session: UnifiedSession) -> bool:
    return session.user_id == caller.user_id


def _is_visible(access: Access, session: UnifiedSession) -> bool:
    """Whether the caller may know that the session exists. The stores' lists use the same rule, in SQL."""
    if session.session_type is SessionType.RECORD:
        return access.may(Action.SUPERVISE)
    if _owns(access.caller, session) or session.visibility is Visibility.CASEFILE:
        return True
    return access.may(Action.SUPERVISE)


def _action(caller: Principal, session: UnifiedSession, purpose: Purpose) -> Action:
    if _owns(caller, session) and purpose is not Purpose.SUPERVISE:
        return Action.WORK
    match purpose:
        case Purpose.READ:
            return Action.WORK
        case Purpose.EXECUTE:
            return Action.JOIN
        case Purpose.CLOSE | Purpose.SUPERVISE:
            return Action.SUPERVISE
