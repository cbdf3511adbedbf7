"""The corridor. There is one executor, and nothing runs but through it.

who → where → replay? → what → limits → started, one commit → run → ended, one commit → respond

What waits comes through it again when it goes on: as the stored user, whose account and rights are looked up afresh.
"""

from collections.abc import Callable
from functools import partial

from casekeeper.casefiles.access import Gate
from casekeeper.casefiles.retrying import retried
from casekeeper.clock import Clock
from casekeeper.errors import Denied, ShuttingDown
from casekeeper.execution.calls import Call, Started
from casekeeper.execution.facts import Asked, denied_fact
from casekeeper.execution.life import Life
from casekeeper.execution.outcomes import Outcome
from casekeeper.execution.payloads import Payloads
from casekeeper.execution.rate_limits import Limits
from casekeeper.execution.resuming import Resuming
from casekeeper.execution.runner import Runner
from casekeeper.journal.commits import Commit, Commits, IdTaken
from casekeeper.journal.operations import OpenedOperation
from casekeeper.journal.requests import AlreadyClaimed, Requests
from casekeeper.operations.admitting import Admitted, Admitting
from casekeeper.operations.context import MDSContext
from casekeeper.operations.operation import Operation
from casekeeper.sessions.manager import CasefileSessionManager, SessionContext
from casekeeper.sessions.session import AutoSessionExists

_RACES = (IdTaken, AutoSessionExists, AlreadyClaimed)

Contexts = Callable[["Executor", Started], MDSContext]
"""Makes what a started operation may see and do; nested calls in it come back to the executor."""


class Executor:
    """Takes calls through the corridor, and what waits through it again."""

    def __init__(
        self,
        manager: CasefileSessionManager,
        gate: Gate,
        requests: Requests,
        admitting: Admitting,
        limits: Limits,
        runner: Runner,
        commits: Commits,
        payloads: Payloads,
        life: Life,
        resuming: Resuming,
        contexts: Contexts,
        clock: Clock,
    ) -> None:
        self._manager = manager
        self._gate = gate
        self._requests = requests
        self._admitting = admitting
        self._limits = limits
        self._runner = runner
        self._commits = commits
        self._payloads = payloads
        self._life = life
        self._resuming = resuming
        self._open_context = partial(contexts, self)
        self._clock = clock

    async def execute(self, call: Call) -> tuple[SessionContext, Started | Outcome | str]:
        """The corridor itself; returns the started operation, its outcome, or the event id of an earlier same request.

        Raises:
            Refused: Nothing was started. A member's denial is on the record.
            Unavailable: Nothing was started.
        """
        # What runs still gets its time, and what it calls with it.
        if self._runner.is_ending or (self._runner.is_draining and call.parent is None):
            raise ShuttingDown
        spent = False

        async def attempt(again: bool) -> tuple[SessionContext, Started | Outcome | str]:
            nonlocal spent
            context = await self._manager.validate_and_get_session(  # where
                call.caller, call.place, again=again, on_record=call.parent is None
            )
            if earlier := await self._requests.find(call.ask):  # replay?
                return context, earlier
            admitted = await self._admit(context, call)  # what
            if not spent:
                await self._spend(call, context, admitted.operation)  # limits
                spent = True
            # started, one commit; run, ended
            return context, await self._life.begin(context, call, admitted, self._open_context)

        return await retried(attempt, races=_RACES)

    async def resume(self, opened: OpenedOperation) -> Started | None:
        """Take up a waiting operation; None where it is not: `Resuming.take_up` says why.

        Raises:
            StoreUnavailable: It waits still, or is handed on again.
        """
        if self._runner.is_draining:
            return None
        return await self._resuming.take_up(opened, self._open_context)

    async def _admit(self, context: SessionContext, call: Call) -> Admitted:
        try:
            return await self._admitting.admit(call.operation, context.access, tainted=call.is_tainted)
        except Denied as refusal:
            if call.parent is None:
                await self._deny(context, call.asked, refusal)
            raise

    async def _spend(self, call: Call, context: SessionContext, operation: Operation) -> None:
        quotas = await self._limits.spend(call.caller.user_id, context.access.casefile_id, operation)
        if call.on_counted is not None:
            call.on_counted(quotas)

    async def _deny(self, context: SessionContext, asked: Asked, refusal: Denied) -> None:
        error = {"message": refusal.detail}
        payload = await self._payloads.inputs(context.access.casefile_id, asked.inputs, error=error)
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
