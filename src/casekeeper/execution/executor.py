"""The corridor. There is one executor, and nothing runs but through it (SPEC §2).

who → where → replay? → what → limits → started, one commit → run → ended, one commit → respond
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, TypeVar

from casekeeper.acl import READ_ONLY, Role
from casekeeper.casefiles.access import Gate
from casekeeper.casefiles.casefile import CasefileIsActive, FenceBroken
from casekeeper.clock import Clock
from casekeeper.errors import Denied, Overloaded, Quota, ShuttingDown, StoreUnavailable
from casekeeper.execution.facts import Asked, denied_fact, started_fact, terminal_fact
from casekeeper.execution.limits import Limits
from casekeeper.execution.runner import Ending, MayGoOn, Runner, Running
from casekeeper.execution.sizes import Sizes
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit, Commits, IdTaken, Record
from casekeeper.journal.events import Fact, Failure, Kind, OperationType
from casekeeper.journal.operations import CloseOperation, OpenOperation, OperationEnded, OperationIsOpen
from casekeeper.journal.requests import KEPT, AlreadyClaimed, Ask, ReleaseClaim, Requests
from casekeeper.operations.context import MDSContext
from casekeeper.operations.operation import Operation, OperationCall
from casekeeper.operations.registry import Registry
from casekeeper.policy import Ruling
from casekeeper.sessions.manager import CasefileSessionManager, Place, SessionContext
from casekeeper.sessions.session import AutoSessionExists
from casekeeper.values import value

T = TypeVar("T")

# Each lost race means that another call got through; a handful of tries is plenty.
_TRIES = 8
# Between the tries to record an end while the store is away.
_WAIT_S = (0.05, 0.2, 0.5, 1.0, 2.0)


@value
class Parent:
    """The operation inside which a nested call happens.

    `is_tainted`: an agent asks that has read something, so it may be somebody else's wish.
    """

    event_id: str
    root_event_id: str
    depth: int
    deadline: datetime
    is_tainted: bool = False


@value
class Call:
    """One call on its way through the corridor.

    `until`: what the caller waits for. `outlives_caller`: it was asked for in the background, or will be asked for
    again, so nobody's leaving ends it. `on_started` is called before the first step of the run, so that a follower
    misses nothing of it; `on_counted` is told where the rate limits stand once it is counted.
    """

    caller: Principal
    place: Place
    operation: OperationCall
    ask: Ask
    timeout: timedelta | None = None
    parent: Parent | None = None
    until: Literal["started", "ended"] = "started"
    outlives_caller: bool = False
    on_started: Callable[[Fact], None] | None = None
    on_counted: Callable[[Sequence[Quota]], None] | None = None

    @property
    def is_tainted(self) -> bool:
        """Whether it may be somebody else's wish than the caller's."""
        return self.parent is not None and self.parent.is_tainted

    @property
    def asked(self) -> Asked:
        """What it asks for, as facts tell it."""
        type_ = OperationType(self.operation.operation_type)
        parent, name, inputs = self.parent, self.operation.name, self.operation.inputs
        return Asked(
            type_,
            name,
            inputs,
            self.ask.request_id,
            parent.event_id if parent else None,
            is_tainted=self.is_tainted,
        )


@value
class Started:
    """An operation whose `started` is on disk."""

    call: Call
    context: SessionContext
    operation: Operation
    fact: Fact
    seq: int
    running: Running
    deadline: datetime


@value
class Outcome:
    """How an operation ended, or that it has not. `outputs` is JSON."""

    event_id: str
    operation_type: OperationType
    operation_name: str
    session_id: str
    status: Literal["completed", "failed", "running"]
    outputs: bytes | None = None
    failure: Failure | None = None
    duration_ms: int | None = None
    usage: dict[str, int | str] | None = None
    is_tainted: bool = False


@dataclass(eq=False, slots=True)
class _Life:
    """An operation's life, in a task of its own: nobody who waits for it can end it by going away."""

    context: SessionContext
    call: Call
    operation: Operation
    parameters: Any
    ended: "asyncio.Future[Outcome]"
    begun: "asyncio.Future[Started] | None" = None
    running: Running | None = None
    is_abandoned: bool = False

    def abandon(self) -> None:
        """Nobody waits for it any more, which ends it unless it outlives its caller."""
        # The commit may be on its way to the disk: then the operation will be there, and has to be ended.
        self.is_abandoned = not self.call.outlives_caller
        if self.is_abandoned and self.running is not None:
            self.running.stop(Kind.CANCELLED, "client_gone", "Nobody waits for it any more.")


Contexts = Callable[["Executor", Started], MDSContext]
"""Makes what a started operation may see and do; nested calls in it come back to the executor."""


class Executor:
    """Takes calls through the corridor."""

    def __init__(
        self,
        manager: CasefileSessionManager,
        gate: Gate,
        requests: Requests,
        registry: Registry,
        limits: Limits,
        runner: Runner,
        commits: Commits,
        sizes: Sizes,
        contexts: Contexts,
        clock: Clock,
        *,
        owner: str,
    ) -> None:
        self._manager = manager
        self._gate = gate
        self._requests = requests
        self._registry = registry
        self._limits = limits
        self._runner = runner
        self._commits = commits
        self._sizes = sizes
        self._contexts = contexts
        self._clock = clock
        self._owner = owner

    async def execute(self, call: Call) -> tuple[SessionContext, Started | Outcome | str]:
        """The corridor itself; returns the started operation, its outcome, or the event id of an earlier same request.

        Raises:
            Refused: Nothing was started. A member's denial is on the record.
            Unavailable: Nothing was started.
        """
        # What runs still gets its time, and what it calls with it.
        if self._runner.is_ending or (self._runner.is_draining and call.parent is None):
            raise ShuttingDown
        overtaken = spent = False
        loop = asyncio.get_running_loop()
        for _ in range(_TRIES):
            context = await self._manager.validate_and_get_session(  # where
                call.caller, call.place, again=overtaken, on_record=call.parent is None
            )
            if earlier := await self._requests.find(call.ask):  # replay?
                return context, earlier
            operation, parameters = await self._admit(context, call)  # what
            if not spent:
                await self._spend(call, context, operation)  # limits
                spent = True
            life = _Life(context, call, operation, parameters, loop.create_future())
            if call.until == "started":
                life.begun = loop.create_future()
            waiting = life.begun or life.ended
            loop.create_task(self._live(life)).add_done_callback(partial(_tell, waiting))
            try:
                return context, await asyncio.shield(waiting)  # started, one commit; run, ended
            except asyncio.CancelledError:
                life.abandon()
                raise
            except FenceBroken:
                overtaken = True
            except (IdTaken, AutoSessionExists, AlreadyClaimed):
                pass
        raise StoreUnavailable("The permission or the session changed again and again; try once more.")

    async def _admit(self, context: SessionContext, call: Call) -> tuple[Operation, Any]:
        operation = self._registry.find(call.operation)
        try:
            self._registry.must_allow(context.access, operation, tainted=call.is_tainted)
        except Denied as refusal:
            if call.parent is None:
                await self._deny(context, call.asked, refusal)
            raise
        return operation, operation.parse(call.operation)

    async def _spend(self, call: Call, context: SessionContext, operation: Operation) -> None:
        quotas = await self._limits.spend(call.caller.user_id, context.access.casefile_id, operation)
        if call.on_counted is not None:
            call.on_counted(quotas)

    async def _deny(self, context: SessionContext, asked: Asked, refusal: Denied) -> None:
        error = {"message": refusal.detail}
        payload = await self._sizes.inputs(context.access.casefile_id, asked.inputs, error=error)
        if context.is_new:
            kind, name = asked.operation_type, asked.name
            await self._gate.record_denial(
                context.access, refusal, payload, operation_type=kind, operation_name=name
            )
            return
        fact = denied_fact(
            context.access, context.session.session_id, asked, refusal.code, payload, self._clock()
        )
        await self._commits.commit(Commit((fact,), context.opening.conditions))

    async def _live(self, life: _Life) -> None:
        started = await self._start(life)
        running = life.running = started.running
        task = asyncio.current_task()
        assert task is not None
        self._runner.adopt(running, task)
        if life.is_abandoned:
            life.abandon()
        if life.call.on_started is not None:
            life.call.on_started(started.fact)
        if life.begun is not None:
            life.begun.set_result(started)
        context = self._contexts(self, started)
        timeout = started.deadline - started.fact.started_at

        async def end(ending: Ending) -> None:
            running.ended.set_result(await self._end(started, ending))

        await self._runner.run(running, lambda: life.operation.run(context, life.parameters), timeout, end)

    async def _start(self, life: _Life) -> Started:
        call, context, operation, asked = life.call, life.context, life.operation, life.call.asked
        now, parent, access, opening = self._clock(), call.parent, context.access, context.opening
        payload = await self._sizes.inputs(access.casefile_id, asked.inputs)
        fact = started_fact(access, context.session.session_id, asked, payload, now)
        claim = self._requests.claim(call.ask, fact.event_id, is_operation=True)
        active = () if operation.effects <= READ_ONLY else (CasefileIsActive(access.casefile_id),)
        above = (OperationIsOpen(parent.event_id),) if parent else ()
        sealed = await self._commits.commit(
            Commit(
                facts=(*opening.facts, fact),
                conditions=(*claim, access.fence, *active, *above, *opening.conditions),
                records=(*opening.records, *claim, self._open_row(fact, call)),
            )
        )
        deadline = now + min(call.timeout or operation.timeout, operation.timeout)
        if parent is not None:
            deadline = min(deadline, parent.deadline)
        running = Running(
            fact, call.caller.user_id, life.ended, self._judge(life), access.ends_at, call.is_tainted
        )
        return Started(call, context, operation, fact, sealed[-1].seq, running, deadline)

    def _judge(self, life: _Life) -> MayGoOn:
        """How the operation is judged again while it runs."""
        policy, operation, tainted = self._registry.policy, life.operation, life.call.is_tainted

        def may_go_on(role: Role, tags: frozenset[str]) -> bool:
            return policy.decide(operation, role, tags, tainted=tainted).ruling is Ruling.ALLOW

        return may_go_on

    def _open_row(self, fact: Fact, call: Call) -> OpenOperation:
        return OpenOperation(
            event_id=fact.event_id,
            casefile_id=fact.casefile_id,
            session_id=fact.session_id,
            parent_event_id=fact.parent_event_id,
            root_event_id=call.parent.root_event_id if call.parent else fact.event_id,
            user_id=call.caller.user_id,
            actor=fact.actor,
            operation_type=OperationType(call.operation.operation_type),
            operation_name=call.operation.name,
            request_id=fact.request_id,
            owner=self._owner,
            started_at=fact.started_at,
        )

    async def _end(self, started: Started, ending: Ending) -> Outcome:
        fact, operation = started.fact, started.operation
        ended = ending
        ending, payload, outputs = await self._insist(lambda: self._sizes.ending(fact.casefile_id, ended))
        terminal = terminal_fact(fact, started.seq, ending, payload, self._clock())
        records: list[Record] = [CloseOperation(fact.event_id)]
        if started.call.ask.is_repeatable:
            records.append(ReleaseClaim(fact.event_id, (terminal.ended_at or fact.started_at) + KEPT))
        if ending.finished is not None:
            records += ending.finished.records
        commit = Commit((terminal,), (OperationIsOpen(fact.event_id),), records)
        with suppress(OperationEnded):
            await self._insist(lambda: self._commits.commit(commit))
        return Outcome(
            event_id=fact.event_id,
            operation_type=operation.type,
            operation_name=operation.name,
            session_id=fact.session_id,
            status="completed" if ending.kind is Kind.SUCCEEDED else "failed",
            outputs=outputs,
            failure=ending.failure,
            duration_ms=terminal.duration_ms,
            usage=terminal.usage,
            is_tainted=fact.is_tainted,
        )

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        # What ran must be told: a store that is away for a while must not leave the operation open for ever.
        attempt = 0
        while True:
            try:
                return await work()
            except (StoreUnavailable, Overloaded):
                if self._runner.is_ending and attempt >= len(_WAIT_S):
                    raise
                await asyncio.sleep(_WAIT_S[min(attempt, len(_WAIT_S) - 1)])
                attempt += 1


def _tell(waiting: "asyncio.Future[Any]", life: "asyncio.Task[None]") -> None:
    if waiting.done():
        return
    if life.cancelled():
        waiting.cancel()
        return
    error = life.exception()
    assert error is not None, "a life that ends well has answered"
    waiting.set_exception(error)
    # The caller may have gone; then nobody asks for it.
    waiting.exception()
