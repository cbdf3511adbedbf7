"""Operations inside operations, and what a running one may write.

A nested call goes through the same corridor with the caller's rights at that moment. Refused, it leaves one
`denied` child; its outcome is the child's own fact.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from casekeeper.acl import Effect
from casekeeper.casefiles.access import Access, Gate
from casekeeper.casefiles.casefile import CasefileIsActive, FenceBroken
from casekeeper.clock import Clock
from casekeeper.documents.casefile_documents import CasefileDocuments
from casekeeper.documents.document import FencedWrite
from casekeeper.errors import NotFound, Refused
from casekeeper.execution.executor import Call, Executor, Outcome, Parent, Started
from casekeeper.execution.facts import Asked, denied_fact
from casekeeper.execution.sizes import Sizes, parsed
from casekeeper.journal.commits import Commit, Commits, Record
from casekeeper.journal.events import Kind, OperationType
from casekeeper.journal.feed import Delta, LiveFeed
from casekeeper.journal.operations import OperationEnded, OperationIsOpen
from casekeeper.journal.requests import Ask
from casekeeper.operations.context import MDSContext, NestedFailed, RightsLost, TooDeep
from casekeeper.operations.operation import Operation, OperationCall
from casekeeper.operations.registry import Registry
from casekeeper.policy import Ruling
from casekeeper.sessions.manager import At

# Deeper than any sensible plan; stops agents that call each other without end.
_MAX_DEPTH = 8

# What comes back from any other operation may hold what somebody else has written.
_TELL_NOTHING = frozenset({Effect.WRITE, Effect.DESTRUCTIVE})

OpenDocuments = Callable[[str, str, str, FencedWrite], CasefileDocuments]
"""The documents of (casefile, user, event), written through the given pen."""


class Nesting:
    """Makes the context of each started operation."""

    def __init__(
        self,
        gate: Gate,
        commits: Commits,
        sizes: Sizes,
        live: LiveFeed,
        documents: OpenDocuments,
        registry: Registry,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._gate = gate
        self._commits = commits
        self._sizes = sizes
        self._live = live
        self._documents = documents
        self._clock = clock

    def context(self, executor: Executor, started: Started) -> MDSContext:
        """What the operation may see and do."""
        fact, outer = started.fact, started.call.parent
        root = outer.root_event_id if outer else fact.event_id
        inside = Parent(fact.event_id, root, outer.depth + 1 if outer else 0, started.deadline)

        async def invoke(
            call: OperationCall, *, call_id: str | None = None, begun: Callable[[str], None] | None = None
        ) -> Any:
            return await self._invoke(executor, started, inside, call, call_id, begun or _unheard)

        async def note_refusal(*, name: str, inputs: Any, error_type: str, message: str, call_id: str) -> str:
            tainted = started.running.is_tainted
            asked = Asked(OperationType.TOOL, name, inputs, call_id, fact.event_id, is_tainted=tainted)
            return await self._deny(started, asked, error_type, message)

        async def write(records: Sequence[Record]) -> None:
            await self._write(started, records)

        def may(operation: Operation) -> bool:
            decision = self._registry.decide(
                started.context.access, operation, tainted=started.running.is_tainted
            )
            return decision.ruling in (Ruling.ALLOW, Ruling.APPROVAL)

        def taint() -> None:
            started.running.is_tainted = True

        return MDSContext(
            access=started.context.access,
            session_id=fact.session_id,
            event_id=fact.event_id,
            root_event_id=root,
            depth=inside.depth,
            deadline=started.deadline,
            documents=self._documents(fact.casefile_id, started.call.caller.user_id, fact.event_id, write),
            invoke=invoke,
            note_refusal=note_refusal,
            may=may,
            taint=taint,
            progress=lambda data: self._live.delta(fact.session_id, Delta(fact.event_id, data)),
        )

    async def _invoke(
        self,
        executor: Executor,
        outer: Started,
        inside: Parent,
        operation: OperationCall,
        call_id: str | None,
        begun: Callable[[str], None],
    ) -> Any:
        caller = outer.call.caller
        ask = Ask(caller.user_id, "nested", call_id or outer.call.ask.request_id)
        inside = replace(inside, is_tainted=outer.running.is_tainted)
        call = Call(caller, At(session_id=outer.fact.session_id), operation, ask, parent=inside)
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
        except Refused as refusal:
            begun(await self._deny(outer, call.asked, refusal.code, refusal.detail))
            raise NestedFailed(refusal.code, refusal.detail, retryable=refusal.retryable) from refusal
        assert isinstance(started, Started)
        begun(started.fact.event_id)
        try:
            return await _outputs(started)
        finally:
            if outer.operation.type is OperationType.AGENT and not started.operation.effects <= _TELL_NOTHING:
                outer.running.is_tainted = True

    async def _deny(self, outer: Started, asked: Asked, error_type: str, message: str) -> str:
        access, error = outer.context.access, {"message": message}
        payload = await self._sizes.inputs(access.casefile_id, asked.inputs, error=error)
        fact = denied_fact(access, outer.fact.session_id, asked, error_type, payload, self._clock())
        with suppress(OperationEnded):
            await self._commits.commit(Commit((fact,), (OperationIsOpen(outer.fact.event_id),)))
        return fact.event_id

    async def _write(self, started: Started, records: Sequence[Record]) -> None:
        """Write for a running operation: while it is open, its casefile active and its caller allowed."""
        event_id, access = started.fact.event_id, started.context.access
        conditions = (OperationIsOpen(event_id), CasefileIsActive(access.casefile_id))
        try:
            await self._commits.commit(Commit((), (access.fence, *conditions), records))
        except FenceBroken:
            access = await self._look_again(started)
            try:
                await self._commits.commit(Commit((), (access.fence, *conditions), records))
            except FenceBroken as error:
                raise RightsLost from error

    async def _look_again(self, started: Started) -> Access:
        access = await self._gate.look(started.call.caller, started.fact.casefile_id, again=True)
        if access is None:
            raise RightsLost
        self._registry.must_allow(access, started.operation, tainted=started.call.is_tainted)
        return access


def _unheard(event_id: str) -> None:
    """Nobody asked for the child's id."""


async def _outputs(started: Started) -> Any:
    running = started.running
    try:
        outcome: Outcome = await asyncio.shield(running.ended)
    except asyncio.CancelledError:
        running.stop(Kind.CANCELLED, "cancelled", "The operation around this one was stopped.")
        await asyncio.wait((running.ended,))
        raise
    if outcome.failure is not None:
        failure = outcome.failure
        raise NestedFailed(failure.type, failure.message, retryable=failure.retryable)
    return parsed(outcome.outputs or b"null")
