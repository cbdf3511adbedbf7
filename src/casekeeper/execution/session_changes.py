"""Opening and closing sessions under the current permission, retried where that changed meanwhile."""

from contextlib import suppress

from casekeeper.casefiles.retrying import retried
from casekeeper.clock import Clock
from casekeeper.errors import SessionBusy, SessionClosed
from casekeeper.execution.status import Operations
from casekeeper.identity.principal import Principal
from casekeeper.ids import new_event_id
from casekeeper.journal.commits import Commit, Commits, IdTaken
from casekeeper.journal.events import Fact, Kind, Payload
from casekeeper.journal.requests import Ask, Requests
from casekeeper.sessions.manager import At, CasefileSessionManager, Purpose, SessionContext
from casekeeper.sessions.session import CloseSession, CreateSession, EndSession, SessionIsIdle, SessionIsOpen


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
        planned: SessionContext | None = context

        async def attempt(again: bool) -> SessionContext:
            nonlocal planned
            now = planned or await self._manager.plan(context.caller, command, again=again)
            planned, opening = None, now.opening
            claim = self._requests.claim(ask, now.session.session_id)
            conditions = (*claim, now.access.fence, *opening.conditions)
            await self._commits.commit(Commit(opening.facts, conditions, (*claim, *opening.records)))
            return now

        return await retried(attempt, races=(IdTaken,))

    async def close(self, caller: Principal, place: At, command: CloseSession, ask: Ask) -> None:
        """Close a session, after what runs in it was stopped if the command says so; one that is closed is left.

        Raises:
            SessionBusy: Operations have not ended.
            StoreUnavailable: The permission changed again and again.
        """

        async def attempt(again: bool) -> None:
            context = await self._manager.validate_and_get_session(caller, place, Purpose.CLOSE, again=again)
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
            # That another call closed it meanwhile is what this one wanted.
            with suppress(SessionClosed):
                await self._commits.commit(Commit((fact,), (*claim, context.access.fence, *idle), records))

        # Something may have been started between the stopping and the commit.
        await retried(attempt, races=(SessionBusy,) if command.cancel else ())
