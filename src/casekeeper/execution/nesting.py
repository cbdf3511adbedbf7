"""Operations inside operations, and what a running one may write.

A nested call goes through the same corridor with the caller's rights at that moment. Refused, it leaves one
`denied` child; its outcome is the child's own fact. A call with a key is claimed beside the child's `started`, for as long
as the record: asked again it answers what became of the first.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from pydantic_core import to_json

from casekeeper.casefiles.access import Access, Gate
from casekeeper.casefiles.casefile import CasefileIsActive
from casekeeper.casefiles.retrying import retried
from casekeeper.clock import Clock
from casekeeper.documents.casefile_documents import CasefileDocuments
from casekeeper.documents.document import FencedWrite
from casekeeper.errors import Limited, NotFound, Refused, RequestIdReused, Unavailable
from casekeeper.execution.calls import Call, Parent, Started
from casekeeper.execution.corridor import Executor
from casekeeper.execution.facts import Asked, denied_fact
from casekeeper.execution.outcomes import Outcome, Outcomes
from casekeeper.execution.payloads import Payloads, parsed
from casekeeper.execution.runner import Runner
from casekeeper.execution.stopping import Stopping
from casekeeper.execution.taint import answer_taints
from casekeeper.journal.commits import Commit, Commits, Record
from casekeeper.journal.events import Kind
from casekeeper.journal.feed import Delta, LiveFeed
from casekeeper.journal.operations import AT_ONCE, OperationEnded
from casekeeper.journal.requests import AlreadyClaimed, Ask, Body, Requests
from casekeeper.operations.admitting import Admitting, scope_of
from casekeeper.operations.context import (
    MDSContext,
    NestedFailed,
    NestedWaits,
    Parked,
    RightsLost,
    TooDeep,
)
from casekeeper.operations.operation import Operation, OperationCall
from casekeeper.sessions.manager import At

# Deeper than any sensible plan; stops agents that call each other without end.
_MAX_DEPTH = 8
_KEY_MAX = 200
LOOK_AGAIN = timedelta(seconds=30)
"""How late what waits for a call that another process runs notices its end, where that does not wake it."""

OpenDocuments = Callable[[str, str, str, FencedWrite], CasefileDocuments]
"""The documents of (casefile, user, event), written through the given pen."""

_Begun = Callable[[str], None]


class Nesting:
    """Makes the context of each started operation."""

    def __init__(
        self,
        gate: Gate,
        commits: Commits,
        requests: Requests,
        payloads: Payloads,
        live: LiveFeed,
        documents: OpenDocuments,
        admitting: Admitting,
        runner: Runner,
        outcomes: Outcomes,
        stopping: Stopping,
        clock: Clock,
    ) -> None:
        self._gate = gate
        self._commits = commits
        self._requests = requests
        self._payloads = payloads
        self._live = live
        self._documents = documents
        self._admitting = admitting
        self._runner = runner
        self._outcomes = outcomes
        self._stopping = stopping
        self._clock = clock

    def context(self, executor: Executor, started: Started) -> MDSContext:
        """What the operation may see and do."""
        fact, outer = started.fact, started.call.parent
        inside = Parent(
            started.ref,
            outer.root_event_id if outer else fact.event_id,
            outer.depth + 1 if outer else 0,
            started.deadline,
            started.ownership,
        )

        async def invoke(
            call: OperationCall,
            *,
            call_id: str | None = None,
            key: str | None = None,
            tainted: bool = False,
            begun: _Begun | None = None,
        ) -> Any:
            around = replace(inside, is_tainted=started.running.is_tainted or tainted)
            ask = _ask(started, call, call_id, key)
            return await self._invoke(executor, started, around, call, ask, begun or _unheard)

        async def note_refusal(*, name: str, inputs: Any, error_type: str, message: str, call_id: str) -> str:
            tainted = started.running.is_tainted
            asked = Asked("tool", name, inputs, call_id, fact.event_id, is_tainted=tainted)
            return await self._deny(started, asked, error_type, message)

        async def write(records: Sequence[Record]) -> None:
            await self._write(started, records)

        def may(operation: Operation) -> bool:
            access = started.context.access
            return self._admitting.could(operation, access, tainted=started.running.is_tainted)

        def taint() -> None:
            started.running.is_tainted = True

        return MDSContext(
            access=started.context.access,
            session_id=fact.session_id,
            event_id=fact.event_id,
            root_event_id=inside.root_event_id,
            depth=inside.depth,
            deadline=started.deadline,
            documents=self._documents(fact.casefile_id, started.call.caller.user_id, fact.event_id, write),
            invoke=invoke,
            note_refusal=note_refusal,
            may=may,
            taint=taint,
            progress=lambda data: self._live.delta(fact.session_id, Delta(fact.event_id, data)),
            resumed=started.resumed,
            is_stopping=lambda: self._runner.is_draining,
        )

    async def _invoke(
        self,
        executor: Executor,
        outer: Started,
        inside: Parent,
        operation: OperationCall,
        ask: Ask,
        begun: _Begun,
    ) -> Any:
        if outer.operation.parks and self._runner.is_draining:
            raise Parked(AT_ONCE)
        call = Call(outer.call.caller, At(session_id=outer.fact.session_id), operation, ask, parent=inside)
        try:
            if inside.depth >= _MAX_DEPTH:
                raise TooDeep(f"Operations nest at most {_MAX_DEPTH} deep.")
            _, started = await executor.execute(call)
        except OperationEnded as error:
            raise NestedFailed("cancelled", "The operation around this one has ended.") from error
        except NotFound as refusal:
            # The caller was let into this very session when the outer operation started.
            begun(await self._deny(outer, call.asked, RightsLost.code, RightsLost.title))
            raise RightsLost from refusal
        except (Limited, Unavailable) as later:
            # It was not refused for good, so there is nothing to be held against anybody.
            raise NestedFailed(later.code, later.detail, retryable=True) from later
        except RequestIdReused as error:
            said = f"The key {ask.request_id!r} belongs to another call of this operation."
            raise NestedFailed("key_reused", said) from error
        except Refused as refusal:
            begun(await self._deny(outer, call.asked, refusal.code, refusal.detail, ask))
            raise NestedFailed(refusal.code, refusal.detail, retryable=refusal.retryable) from refusal
        if isinstance(started, str):
            begun(started)
            return await self._answer(outer, await self._earlier(outer, started))
        assert isinstance(started, Started)
        begun(started.fact.event_id)
        return await self._answer(outer, await self._ended(outer, started))

    async def _ended(self, outer: Started, started: Started) -> Outcome:
        """How a nested call that runs here ends; one that parks is waited for by those that do not park themselves."""
        running = started.running
        try:
            outcome: Outcome = await asyncio.shield(running.ended)
        except asyncio.CancelledError:
            running.stop(Kind.CANCELLED, "cancelled", "The operation around this one was stopped.")
            await asyncio.wait((running.ended,))
            raise
        return await self._or_its_end(outer, outcome)

    async def _earlier(self, outer: Started, event_id: str) -> Outcome:
        """What became of a call that was asked with the same key before."""
        if running := self._runner.find(event_id):
            return await self._or_its_end(outer, await asyncio.shield(running.ended))
        return await self._or_its_end(outer, await self._outcomes.of(event_id))

    async def _or_its_end(self, outer: Started, outcome: Outcome) -> Outcome:
        if outcome.has_ended or outer.operation.parks:
            return outcome
        try:
            return await self._outcomes.when_ended(outcome.event_id, outcome.session_id)
        except asyncio.CancelledError:
            await self._stopping.operation(outcome.event_id, "The operation around this one was stopped.")
            raise

    async def _answer(self, outer: Started, outcome: Outcome) -> Any:
        """What comes back into the operation around it, taint included."""
        if not outcome.has_ended:
            # Another process runs it. One that was only taken for lost ends it without waking what has gone on elsewhere.
            until = self._clock() + LOOK_AGAIN if outcome.status == "running" else None
            raise NestedWaits(outcome.event_id, outcome.waiting_for, until)
        scope = scope_of(outer.context.access)
        nested = await self._admitting.registry.named(outcome.operation_type, outcome.operation_name, scope)
        effects = nested.effects if nested else None
        if answer_taints(
            outer.operation.type, outcome.operation_type, effects, is_tainted=outcome.is_tainted
        ):
            outer.running.is_tainted = True
        if (failure := outcome.failure) is not None:
            raise NestedFailed(failure.type, failure.message, retryable=failure.retryable)
        return parsed(outcome.outputs or b"null")

    async def _deny(
        self, outer: Started, asked: Asked, error_type: str, message: str, ask: Ask | None = None
    ) -> str:
        access, error = outer.context.access, {"message": message}
        payload = await self._payloads.inputs(access.casefile_id, asked.inputs, error=error)
        fact = denied_fact(access, outer.fact.session_id, asked, error_type, payload, self._clock())
        claim = self._requests.claim(ask, fact.event_id, is_operation=True) if ask else ()
        with suppress(OperationEnded, AlreadyClaimed):
            await self._commits.commit(Commit((fact,), (outer.ownership, *claim), claim))
        return fact.event_id

    async def _write(self, started: Started, records: Sequence[Record]) -> None:
        """Write for a running operation: while this process has it, its casefile is active and its caller allowed."""
        conditions = (started.ownership, CasefileIsActive(started.fact.casefile_id))

        async def attempt(again: bool) -> None:
            access = await self._look_again(started) if again else started.context.access
            await self._commits.commit(Commit((), (access.fence, *conditions), records))

        await retried(attempt, otherwise=RightsLost)

    async def _look_again(self, started: Started) -> Access:
        access = await self._gate.look(started.call.caller, started.fact.casefile_id, again=True)
        if access is None:
            raise RightsLost
        return started.admitted.again(access).access


def _ask(outer: Started, call: OperationCall, call_id: str | None, key: str | None) -> Ask:
    user_id, request_id = outer.call.caller.user_id, call_id or key or outer.call.ask.request_id
    if key is None:
        return Ask(user_id, "nested", request_id)
    if not 0 < len(key) <= _KEY_MAX:
        raise NestedFailed("key_unfit", f"The key of a nested call has 1 to {_KEY_MAX} characters.")
    body = to_json([call.operation_type, call.name, call.inputs], inf_nan_mode="null")
    within = (outer.fact.event_id, key)
    return Ask(user_id, "nested", request_id, Body.of_json(body), is_repeatable=True, within=within)


def _unheard(event_id: str) -> None:
    """Nobody asked for the child's id."""
