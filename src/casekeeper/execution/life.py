"""An operation's life: it begins, goes on after it waited, parks, and ends, each by one commit that says who has it.

`begin` and `go_on` make this process its owner; everything that it starts, writes and ends from then on is fenced by that
(`OwnedBy`). Parking gives it back: nothing of it is left here, and any process goes on with it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from casekeeper.casefiles.casefile import CasefileIsActive
from casekeeper.clock import Clock
from casekeeper.errors import BodyTooLarge, Overloaded, StoreUnavailable
from casekeeper.execution.calls import Call, Started
from casekeeper.execution.detached import DetachedOperations, ends_with
from casekeeper.execution.facts import started_fact, terminal_fact
from casekeeper.execution.outcomes import Outcome, Outcomes, OutcomeStore, Status
from casekeeper.execution.payloads import Payloads
from casekeeper.execution.runner import Ending, Runner, Running
from casekeeper.journal.commits import Commit, Commits, Condition
from casekeeper.journal.events import Fact, Failure, Kind
from casekeeper.journal.operations import (
    Held,
    OpenedOperation,
    OpenOperation,
    OperationEnded,
    OperationIsOpen,
    OwnedBy,
    ParkOperation,
    Snapshot,
    TakeOver,
)
from casekeeper.journal.requests import Requests
from casekeeper.operations.admitting import Admitted
from casekeeper.operations.context import MDSContext, Parked, Resumed
from casekeeper.operations.operation import Finished
from casekeeper.sessions.manager import SessionContext

T = TypeVar("T")

OpenContext = Callable[[Started], MDSContext]
"""Makes what a started operation may see and do."""

# Between the tries to record an end while the store is unavailable.
_WAIT_S = (0.05, 0.2, 0.5, 1.0, 2.0)


@dataclass(eq=False, slots=True)
class _Run:
    """One stretch of an operation's life, in a task of its own: nobody who waits for it can end it by going away."""

    call: Call
    context: SessionContext
    admitted: Admitted
    ended: "asyncio.Future[Outcome]"
    begun: "asyncio.Future[Started] | None" = None
    outer: Running | None = None
    running: Running | None = None
    is_abandoned: bool = False

    def abandon(self) -> None:
        """Nobody waits for it any more, which ends it unless it outlives its caller."""
        # The commit may be on its way to the disk: then the operation will be there, and has to be ended.
        self.is_abandoned = not self.call.outlives_caller
        if self.is_abandoned and self.running is not None:
            if self.call.parent is not None:
                self.running.stop(Kind.CANCELLED, "cancelled", "The operation around it was stopped.")
            else:
                self.running.stop(Kind.CANCELLED, "client_gone", "Nobody waits for it any more.")

    def join(self, outer: Running) -> None:
        """Be inside an operation that runs here, which does not end before this has ended or waits."""
        self.outer = outer
        outer.inside.add(self.ended)

        def leave(ended: "asyncio.Future[Outcome]") -> None:
            outer.inside.discard(ended)
            outer.leaves_open |= (
                ended.cancelled() or ended.exception() is not None or not ended.result().has_ended
            )

        self.ended.add_done_callback(leave)


class Life:
    """Begins operations, goes on with them, parks and ends them."""

    def __init__(
        self,
        runner: Runner,
        commits: Commits,
        requests: Requests,
        payloads: Payloads,
        store: OutcomeStore,
        outcomes: Outcomes,
        detached: DetachedOperations,
        clock: Clock,
        *,
        owner: str,
        due: asyncio.Event,
    ) -> None:
        """`due` is set when something that waits was woken."""
        self._runner = runner
        self._commits = commits
        self._requests = requests
        self._payloads = payloads
        self._store = store
        self._outcomes = outcomes
        self._detached = detached
        self._clock = clock
        self._owner = owner
        self._due = due

    def begin(
        self, context: SessionContext, call: Call, admitted: Admitted, open_context: OpenContext
    ) -> Awaitable[Started | Outcome]:
        """Start an operation; returns when it has started or ended, whichever the call waits for.

        Raises:
            Superseded: Permission, session or request have changed meanwhile; nothing was started.
            Refused: Likewise, for good.
            StoreUnavailable: Nobody runs it, if it was started at all.
        """
        return self._in_a_task(context, call, admitted, open_context, self._start)

    async def go_on(
        self,
        context: SessionContext,
        call: Call,
        admitted: Admitted,
        open_context: OpenContext,
        opened: OpenedOperation,
        fact: Fact,
        resumed: Resumed,
    ) -> Started:
        """Take up a waiting operation, which was opened by this fact; returns when this process has it.

        Raises:
            OperationEnded: It has ended, another was quicker, or the operation around it has ended.
            FenceBroken: The permission has changed meanwhile.
            StoreUnavailable: It is not known whether this process has it; if so, it is handed on again.
        """
        first = partial(self._take_up, opened=opened, fact=fact, resumed=resumed)
        started = await self._in_a_task(context, call, admitted, open_context, first)
        assert isinstance(started, Started)
        return started

    async def _in_a_task(
        self,
        context: SessionContext,
        call: Call,
        admitted: Admitted,
        open_context: OpenContext,
        first: Callable[[_Run], Awaitable[Started]],
    ) -> Started | Outcome:
        loop = asyncio.get_running_loop()
        run = _Run(call, context, admitted, loop.create_future())
        if call.parent is not None and call.parent.ownership is not None:
            outer = self._runner.find(call.parent.operation.event_id)
            if outer is None or outer.is_settled:
                raise OperationEnded(call.parent.operation.event_id)
            run.join(outer)
        if call.until == "started":
            run.begun = loop.create_future()
        awaited = run.begun or run.ended
        loop.create_task(self._live(run, open_context, first)).add_done_callback(partial(_tell, run))
        try:
            return await asyncio.shield(awaited)
        except asyncio.CancelledError:
            run.abandon()
            raise

    async def _live(
        self, run: _Run, open_context: OpenContext, first: Callable[[_Run], Awaitable[Started]]
    ) -> None:
        started = await first(run)
        running = run.running = started.running
        task = asyncio.current_task()
        assert task is not None
        self._runner.adopt(running, task)
        if run.is_abandoned or (run.outer is not None and run.outer.is_settled):
            run.abandon()
        if run.call.on_started is not None:
            run.call.on_started(started.fact)
        if run.begun is not None:
            run.begun.set_result(started)
        context = open_context(started)

        async def work() -> Finished:
            try:
                return await started.operation.run(context, started.admitted.parameters)
            except Parked:
                await running.nested_ended()
                raise

        async def end(ending: Ending | Parked) -> None:
            if isinstance(ending, Parked):
                # The server stops; nested operations are stopped as well.
                await running.nested_ended()
                outcome = await self._park(started, ending)
            else:
                await self._end_inside(started)
                outcome = await self._end(started, ending)
            running.ended.set_result(outcome)

        await self._runner.run(running, work, started.left, end)

    async def _end_inside(self, started: Started) -> None:
        """End what is still open inside an operation that is about to end: nothing in there goes on without it."""
        running, parent = started.running, started.call.parent
        if running.inside:
            self._runner.stop_inside(started.fact.event_id)
            await running.nested_ended()
        # What began here and has ended needs no look at the store.
        if running.leaves_open or started.resumed is not None:
            root_event_id = parent.root_event_id if parent else started.fact.event_id
            await self._insist(lambda: self._detached.end_inside(started.ref, root_event_id))

    async def _start(self, run: _Run) -> Started:
        call, context, admitted, asked = run.call, run.context, run.admitted, run.call.asked
        now, parent, access, opening = self._clock(), call.parent, context.access, context.opening
        payload = await self._payloads.inputs(access.casefile_id, asked.inputs)
        fact = started_fact(access, context.session.session_id, asked, payload, now)
        claim = self._requests.claim(call.ask, fact.event_id, is_operation=True)
        operation = admitted.operation
        left = min(call.timeout or operation.timeout, operation.timeout)
        if parent is not None:
            left = min(left, parent.deadline - now)
        held = None
        if operation.parks:
            depth = parent.depth + 1 if parent else 0
            held = Held(depth=depth, left=left, is_tainted=call.is_tainted)
        row = self._open_row(fact, run, held)
        above = (parent.ownership,) if parent and parent.ownership else ()
        sealed = await self._commits.commit(
            Commit(
                facts=(*opening.facts, fact),
                conditions=(*claim, access.fence, *_is_active(admitted), *above, *opening.conditions),
                records=(*opening.records, *claim, row),
            )
        )
        return Started(
            call=call,
            context=context,
            admitted=admitted,
            fact=fact,
            seq=sealed[-1].seq,
            running=self._running(run, fact, is_tainted=call.is_tainted),
            deadline=now + left,
            left=left,
            ownership=row.ownership,
            held=held,
        )

    async def _take_up(self, run: _Run, opened: OpenedOperation, fact: Fact, resumed: Resumed) -> Started:
        row, now, context, admitted = opened.row, self._clock(), run.context, run.admitted
        assert row.held is not None, "what waits says how it goes on"
        waited = row.held.waited + (now - row.held.since if row.held.since else timedelta())
        held = replace(row.held, waited=waited, since=None)
        above = (OperationIsOpen(row.parent),) if row.parent else ()
        access, opening = context.access, context.opening
        conditions = (row.ownership, access.fence, *_is_active(admitted), *above, *opening.conditions)
        await self._commits.commit(Commit((), conditions, (TakeOver(row.ref, self._owner, held),)))
        return Started(
            call=run.call,
            context=context,
            admitted=admitted,
            fact=fact,
            seq=opened.started_seq,
            running=self._running(run, fact, is_tainted=held.is_tainted),
            deadline=now + held.left,
            left=held.left,
            ownership=OwnedBy(row.ref, self._owner, resumed.attempt),
            held=held,
            resumed=resumed,
        )

    def _running(self, run: _Run, fact: Fact, *, is_tainted: bool) -> Running:
        admitted = run.admitted
        return Running(
            fact,
            run.call.caller.user_id,
            run.ended,
            admitted.still,
            run.context.access.ends_at,
            is_tainted,
            parks=admitted.operation.parks,
        )

    def _open_row(self, fact: Fact, run: _Run, held: Held | None) -> OpenOperation:
        call, admitted = run.call, run.admitted
        return OpenOperation(
            event_id=fact.event_id,
            casefile_id=fact.casefile_id,
            session_id=fact.session_id,
            parent_event_id=fact.parent_event_id,
            root_event_id=call.parent.root_event_id if call.parent else fact.event_id,
            user_id=call.caller.user_id,
            actor=fact.actor,
            operation_type=call.operation.operation_type,
            operation_name=call.operation.name,
            request_id=fact.request_id,
            owner=self._owner,
            started_at=fact.started_at,
            is_tainted=admitted.tainted,
            is_approved=admitted.approved,
            held=held,
        )

    async def _park(self, started: Started, parked: Parked) -> Outcome:
        fact, running, held, now = started.fact, started.running, started.held, self._clock()
        assert held is not None, "only what parks gets here"
        try:
            snapshot = await self._snapshot(started, parked.snapshot)
        except (ValueError, BodyTooLarge) as error:
            said = Failure(type="snapshot_unfit", message=f"It cannot be parked: {error}"[:500])
            return await self._end(started, Ending(Kind.FAILED, failure=said))
        held = replace(
            held,
            left=max(started.deadline - now, timedelta()),
            since=now,
            is_tainted=running.is_tainted,
            crashes=0,
            waiting_for=tuple(parked.for_what),
            snapshot=snapshot,
        )
        park = ParkOperation(started.ref, held, parked.until)
        commit = Commit((), (started.ownership,), (park,))
        try:
            await self._insist(lambda: self._commits.commit(commit))
        except OperationEnded:
            # It has ended, or the answer of a first try was lost: the record knows.
            return await self._insist(lambda: self._outcomes.of(fact.event_id))
        if started.held and started.held.snapshot != snapshot:
            await self._payloads.drop_snapshot(fact.casefile_id, started.held.snapshot)
        return self._outcome(started, "pending", waiting_for=held.waiting_for)

    async def _snapshot(self, started: Started, given: bytes | None) -> Snapshot | None:
        """What the operation goes on from; without a new one, what it had."""
        assert started.held is not None, "only what parks gets here"
        if given is None:
            return started.held.snapshot
        # Of its own for each attempt: one that lost the operation must not overwrite what its successor goes on from.
        name = f"snapshot_{started.fact.event_id}_{started.ownership.attempt}"
        version, casefile_id = started.operation.snapshot_version, started.fact.casefile_id
        return await self._insist(lambda: self._payloads.snapshot(casefile_id, name, given, version))

    async def _end(self, started: Started, ending: Ending) -> Outcome:
        fact, now = started.fact, self._clock
        ended = ending
        ending, payload, outputs = await self._insist(lambda: self._payloads.ending(fact.casefile_id, ended))
        tainted, waited = started.running.is_tainted, started.held.waited if started.held else timedelta()
        terminal = terminal_fact(fact, started.seq, ending, payload, now(), is_tainted=tainted, waited=waited)
        parent, call = started.call.parent, started.call
        # One that runs here waits for what it has called before it parks, so it needs no waking.
        wakes = parent.operation if parent and parent.ownership is None else None
        is_claimed = parent is None and (call.ask.is_repeatable or started.held is not None)
        records = ends_with(terminal, wakes, is_claimed=is_claimed)
        if ending.finished is not None:
            records += ending.finished.records
        commit = Commit((terminal,), (started.ownership,), records)
        try:
            await self._insist(lambda: self._commits.commit(commit))
        except OperationEnded:
            return await self._insist(lambda: self._outcomes.of(fact.event_id))
        if wakes is not None:
            self._due.set()
        if started.held is not None:
            await self._payloads.drop_snapshot(fact.casefile_id, started.held.snapshot)
        return self._outcome(
            started,
            "completed" if ending.kind is Kind.SUCCEEDED else "failed",
            outputs=outputs,
            failure=ending.failure,
            duration_ms=terminal.duration_ms,
            usage=terminal.usage,
        )

    def _outcome(self, started: Started, status: Status, **more: Any) -> Outcome:
        return Outcome(
            event_id=started.fact.event_id,
            operation_type=started.operation.type,
            operation_name=started.operation.name,
            session_id=started.fact.session_id,
            status=status,
            is_tainted=started.running.is_tainted,
            **more,
        )

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        # What ran must be recorded: an outage of the store must not leave the operation open for ever.
        attempt = 0
        while True:
            try:
                return await work()
            except (StoreUnavailable, Overloaded):
                if self._runner.is_ending and attempt >= len(_WAIT_S):
                    raise
                await asyncio.sleep(_WAIT_S[min(attempt, len(_WAIT_S) - 1)])
                attempt += 1


def _is_active(admitted: Admitted) -> tuple[Condition, ...]:
    return () if admitted.changes_nothing else (CasefileIsActive(admitted.access.casefile_id),)


def _tell(run: _Run, life: "asyncio.Task[None]") -> None:
    for awaited in (run.begun, run.ended):
        if awaited is None or awaited.done():
            continue
        if life.cancelled():
            awaited.cancel()
            continue
        if (error := life.exception()) is None:
            # It was ended over its head, and that is on its way to the disk.
            continue
        awaited.set_exception(error)
        # The caller may have gone; then nobody asks for it.
        awaited.exception()
