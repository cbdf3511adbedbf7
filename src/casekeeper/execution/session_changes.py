"""How sessions are opened and closed: under the permission of the moment, anew where that changed meanwhile."""

from casekeeper.casefiles.casefile import FenceBroken
from casekeeper.clock import Clock
from casekeeper.errors import SessionBusy, SessionClosed, StoreUnavailable
from casekeeper.execution.status import Operations
from casekeeper.identity.principal import Principal
from casekeeper.ids import new_event_id
from casekeeper.journal.commits import Commit, Commits, IdTaken
from casekeeper.journal.events import Fact, Kind, Payload
from casekeeper.journal.requests import Ask, Requests
from casekeeper.sessions.manager import At, CasefileSessionManager, Purpose, SessionContext
from casekeeper.sessions.session import CloseSession, CreateSession, EndSession, SessionIsIdle, SessionIsOpen

_TRIES = 8


class SessionChanges:
    """Opens and closes sessions for callers who may."""

    def __init__(
        self,
        manager: CasefileSessionManager,
        operations: Operations,
        commits: Commits,
        requests: Requests,
        clock: Clock,
    ) -> None:
        self._manager = manager
        self._operations = operations
        self._commits = commits
        self._requests = requests
        self._clock = clock

    async def open(self, context: SessionContext, command: CreateSession, ask: Ask) -> SessionContext:
        """Write a session that is planned, or, where that is overtaken, one that is planned anew.

        Raises:
            StoreUnavailable: It was overtaken again and again.
        """
        for _ in range(_TRIES):
            opening, claim = context.opening, self._requests.claim(ask, context.session.session_id)
            conditions = (*claim, context.access.fence, *opening.conditions)
            try:
                await self._commits.commit(Commit(opening.facts, conditions, (*claim, *opening.records)))
            except (FenceBroken, IdTaken) as lost:
                overtaken = isinstance(lost, FenceBroken)
                context = await self._manager.plan(context.caller, command, again=overtaken)
            else:
                return context
        raise StoreUnavailable("The permission changed again and again; try once more.")

    async def close(self, caller: Principal, place: At, command: CloseSession, ask: Ask) -> None:
        """Close a session, after what runs in it was stopped if the command says so; one that is closed is left.

        Raises:
            SessionBusy: Operations have not ended.
            StoreUnavailable: The permission changed again and again.
        """
        overtaken = False
        for attempt in range(_TRIES):
            context = await self._manager.validate_and_get_session(
                caller, place, Purpose.CLOSE, again=overtaken
            )
            if command.cancel:
                await self._operations.stop_all(context, command.reason or "The session was closed.")
            session, claim = context.session, self._requests.claim(ask, context.session.session_id)
            idle = (SessionIsOpen(session.session_id), SessionIsIdle(session.session_id))
            now = self._clock()
            fact = Fact(
                casefile_id=session.casefile_id,
                session_id=session.session_id,
                event_id=new_event_id(now),
                kind=Kind.CLOSED,
                actor=caller.pseudonym,
                request_id=ask.request_id,
                started_at=now,
                permission=context.access.permission,
                payload=Payload.of_fields(inputs={"reason": command.reason} if command.reason else {}),
            )
            records = (*claim, EndSession(session.session_id, now))
            try:
                await self._commits.commit(Commit((fact,), (*claim, context.access.fence, *idle), records))
            except FenceBroken:
                overtaken = True
            except SessionBusy:
                if not command.cancel or attempt == _TRIES - 1:
                    raise
            except SessionClosed:
                # Another call closed it meanwhile, which is what this one wanted.
                return
            else:
                return
        raise StoreUnavailable("The permission changed again and again; try once more.")
