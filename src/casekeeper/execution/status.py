"""Single operations after their start, for those who may read their session: how they stand, and cancelling them."""

import asyncio
from collections.abc import Sequence
from dataclasses import field
from datetime import timedelta
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, WithJsonSchema
from pydantic_core import from_json, to_json

from casekeeper.acl_feed import Scope
from casekeeper.errors import OperationNotFound, StillRunning
from casekeeper.execution.calls import Started
from casekeeper.execution.outcomes import LOOK_S, Outcome, Outcomes, Status, has_ended
from casekeeper.execution.payloads import Payloads
from casekeeper.execution.runner import Runner
from casekeeper.execution.stopping import Stopping
from casekeeper.identity.logins import Logins
from casekeeper.identity.principal import Principal
from casekeeper.ids import EventId
from casekeeper.journal.events import Failure, StoredFact
from casekeeper.sessions.manager import At, CasefileSessionManager, Purpose, SessionContext
from casekeeper.sessions.reading import Reading, WaitingForView, waiting_view
from casekeeper.strict import Strict
from casekeeper.values import value

REPLAY_WAIT = timedelta(seconds=10)
"""How long a repeat waits for the run of the first request."""

_CANCEL_WAIT_S = 15.0


class GetOperation(Strict):
    """One operation, wherever it is in its life."""

    event_id: EventId


class CancelOperation(Strict):
    """Stop an operation: its own user, or an admin of the casefile."""

    event_id: EventId
    reason: str | None = Field(default=None, max_length=1000, pattern=r"^[^\x00]*$")


@value
class ScopeView:
    """A role as a token carries it; `not_after` in seconds since 1970."""

    role: str
    not_after: int | None


@value
class UpdatedScopes:
    """A token that carries what the caller's token lacked; it ends when the old one does."""

    token: str
    casefile_scopes: dict[str, ScopeView]
    evicted: list[str]


@value
class Executed:
    """How an operation ended; with status `running`, that it has not; with `pending`, that it waits, and for what."""

    status: Status
    event_id: str
    operation_type: str
    operation_name: str
    success: bool | None
    outputs: Annotated[Any, WithJsonSchema({"description": "What came out, in full."})]
    error: Failure | None
    duration_ms: int | None
    usage: dict[str, int | str] | None
    session_id: str
    session_created: bool
    permission_from_cache: bool
    updated_scopes: UpdatedScopes | None = None
    tainted: Annotated[
        bool,
        Field(
            description="Whether it was asked for after something had been read that somebody else may have written, or its "
            "answer may follow such words."
        ),
    ] = False
    waiting_for: Annotated[
        list[WaitingForView], Field(description="What it waits for; empty unless it is pending.")
    ] = field(default_factory=list[WaitingForView])


async def updated_scopes(logins: Logins, context: SessionContext) -> UpdatedScopes | None:
    """A better token, where the caller's own could not say what a member may do."""
    if context.access.source == "token" or not context.access.is_member:
        return None
    if context.caller.browser_session is not None:
        # Scripts in a browser see no token; this worker remembers what it has just looked up.
        return None
    minted = await logins.scopes_for(context.caller, context.access.casefile_id)
    return UpdatedScopes(minted.token, {c: _view(s) for c, s in minted.scopes.items()}, list(minted.evicted))


def _view(scope: Scope) -> ScopeView:
    return ScopeView(scope.role.value, scope.not_after)


class Operations:
    """Single operations, for those who may read their session."""

    def __init__(
        self,
        manager: CasefileSessionManager,
        reading: Reading,
        runner: Runner,
        stopping: Stopping,
        outcomes: Outcomes,
        payloads: Payloads,
        logins: Logins,
    ) -> None:
        self._manager = manager
        self._reading = reading
        self._runner = runner
        self._stopping = stopping
        self._outcomes = outcomes
        self._payloads = payloads
        self._logins = logins

    async def get(self, caller: Principal, command: GetOperation) -> Executed:
        """An operation's present state, outputs in full."""
        context, facts = await self._find(caller, command.event_id)
        return await self.executed(await self._outcomes.of_facts(facts), context)

    async def cancel(self, caller: Principal, command: CancelOperation) -> Executed:
        """Stop an operation and answer how it ended; one that has ended is left as it is.

        Raises:
            RoleTooLow: It is another's, and the caller is no admin of the casefile.
        """
        context, facts = await self._find(caller, command.event_id)
        if facts[0].actor_user_id != caller.user_id:
            place = At(context.session.session_id)
            await self._manager.validate_and_get_session(caller, place, Purpose.SUPERVISE)
        if not has_ended(facts):
            event_id, session_id = command.event_id, facts[-1].session_id
            await self._stopping.operation(event_id, command.reason or "It was cancelled.")
            facts = await self._when_settled(caller, event_id, session_id, _CANCEL_WAIT_S, also_waiting=False)
        return await self.executed(await self._outcomes.of_facts(facts), context)

    async def stop_all(self, context: SessionContext, reason: str) -> None:
        """Ask all that is open in a session to end, and wait until it has, 15 seconds at most; what waits ends at once."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _CANCEL_WAIT_S
        session_id = context.session.session_id
        # Another process may run some of them, and what ran may have parked meanwhile, so the store is asked.
        with self._reading.watch(session_id) as watch:
            while await self._stopping.session(session_id, reason) and loop.time() < until:
                await watch.wait(LOOK_S)

    async def _when_settled(
        self, caller: Principal, event_id: str, session_id: str, within_s: float, *, also_waiting: bool
    ) -> Sequence[StoredFact]:
        """The facts of an operation when it has ended or the time is over, whichever process runs it.

        `also_waiting`: or when it waits.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        if running := self._runner.find(event_id):
            await asyncio.wait((running.ended,), timeout=within_s)
        with self._reading.watch(session_id) as watch:
            while True:
                _, facts = await self._reading.operation(caller, event_id)
                if has_ended(facts) or loop.time() >= until:
                    return facts
                if also_waiting and await self._outcomes.waiting_for(event_id) is not None:
                    return facts
                await watch.wait(LOOK_S)

    async def _find(self, caller: Principal, event_id: str) -> tuple[SessionContext, Sequence[StoredFact]]:
        context, facts = await self._reading.operation(caller, event_id)
        if "operation_type" not in from_json(facts[0].header):
            # A grant, the opening of a session and their like have event ids too, and are no operations.
            raise OperationNotFound(event_id)
        return context, facts

    async def part(self, caller: Principal, event_id: str, part: Literal["inputs", "outputs"]) -> bytes:
        """Inputs or outputs of an operation in full, as JSON, however large.

        Raises:
            OperationNotFound: There is no such operation, or it has no such part (yet).
        """
        _, facts = await self._reading.operation(caller, event_id)
        for fact in facts:
            value = await self._payloads.part(fact, part)
            if value is not None:
                return to_json(value)
        raise OperationNotFound(event_id)

    async def of_repeat(self, caller: Principal, event_id: str, mode: str) -> Outcome:
        """The present state of what an earlier same request started.

        Raises:
            StillRunning: In `wait` mode, where it does not end within ten seconds.
        """
        _, facts = await self._reading.operation(caller, event_id)
        if mode == "wait":
            within_s = REPLAY_WAIT.total_seconds()
            facts = await self._when_settled(
                caller, event_id, facts[0].session_id, within_s, also_waiting=True
            )
        outcome = await self._outcomes.of_facts(facts)
        if outcome.status == "running" and mode == "wait":
            raise StillRunning
        return outcome

    async def executed(self, outcome: Outcome, context: SessionContext, *, created: bool = False) -> Executed:
        """The outcome as callers get it."""
        return Executed(
            status=outcome.status,
            event_id=outcome.event_id,
            operation_type=outcome.operation_type,
            operation_name=outcome.operation_name,
            success=outcome.status == "completed" if outcome.has_ended else None,
            outputs=orjson.Fragment(outcome.outputs) if outcome.outputs is not None else None,
            error=outcome.failure,
            duration_ms=outcome.duration_ms,
            usage=outcome.usage,
            session_id=outcome.session_id,
            session_created=created,
            permission_from_cache=context.access.is_from_cache,
            updated_scopes=await updated_scopes(self._logins, context),
            tainted=outcome.is_tainted,
            waiting_for=waiting_view(outcome.waiting_for) if outcome.waiting_for else [],
        )


def not_ended(started: Started) -> Outcome:
    """The outcome of an operation that runs in the background."""
    fact, operation = started.fact, started.operation
    return Outcome(fact.event_id, operation.type, operation.name, fact.session_id, "running")
