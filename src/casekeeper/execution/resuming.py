"""Resuming waiting operations: without a token, as the stored user, under their current account, rights, policy and taint."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from pydantic_core import from_json

from casekeeper.casefiles.retrying import retried
from casekeeper.clock import Clock
from casekeeper.errors import (
    CasefileArchived,
    CasekeeperError,
    Denied,
    Invalid,
    NotFound,
    Overloaded,
    SessionClosed,
    StoreUnavailable,
    Unavailable,
)
from casekeeper.execution.calls import Call, Parent, Started
from casekeeper.execution.detached import DetachedOperations
from casekeeper.execution.life import Life, OpenContext
from casekeeper.execution.outcomes import OutcomeStore
from casekeeper.execution.payloads import Payloads
from casekeeper.execution.runner import Ending
from casekeeper.execution.taint import answer_taints
from casekeeper.identity.principal import Principal
from casekeeper.journal.events import TERMINAL, Fact, Failure, Kind, StoredFact
from casekeeper.journal.operations import NOBODY, Held, OpenedOperation, OperationEnded, WaitingFor
from casekeeper.journal.requests import Ask
from casekeeper.operations.admitting import Admitting
from casekeeper.operations.context import Resumed, RightsLost
from casekeeper.operations.operation import Operation, OperationCall, OperationScope, call_of
from casekeeper.sessions.manager import At, CasefileSessionManager

# How soon it is looked again for what is missing here (an operation, a model's key, a newer casekeeper): after a quarter
# of the time for which it has been waiting already, within these bounds.
SOONEST, LATEST = timedelta(minutes=1), timedelta(minutes=10)

_log = logging.getLogger("casekeeper.resuming")

Accounts = Callable[[str], Awaitable[Principal | None]]
"""The stored user as a caller without a token; None where the account is not active."""


class ResumeStore(OutcomeStore, Protocol):
    """What resuming reads of the record."""

    async def children(self, event_id: str) -> Sequence[StoredFact]:
        """All facts of the operations that this one called, by seq."""
        ...


class _Missing(Exception):
    """What the operation needs is missing now, and may come back."""


class _Unfit(Exception):
    """It can never be resumed; `failure` says why."""

    def __init__(self, type_: str, message: str) -> None:
        self.failure = Failure(type=type_, message=message)
        super().__init__(message)


class _Recorded(NamedTuple):
    """What the record says of the operation."""

    fact: Fact
    call: OperationCall


class Resuming:
    """Resumes waiting operations."""

    def __init__(
        self,
        manager: CasefileSessionManager,
        admitting: Admitting,
        accounts: Accounts,
        life: Life,
        detached: DetachedOperations,
        payloads: Payloads,
        store: ResumeStore,
        clock: Clock,
    ) -> None:
        self._manager = manager
        self._admitting = admitting
        self._accounts = accounts
        self._life = life
        self._detached = detached
        self._payloads = payloads
        self._store = store
        self._clock = clock

    async def take_up(self, opened: OpenedOperation, open_context: OpenContext) -> Started | None:
        """Go on with a waiting operation; None where this process does not.

        It has ended, runs, or another process was quicker; or it was asked to stop, or account or rights are gone, and it
        has been ended here; or something that it needs is missing here, and it waits on and says so.

        Raises:
            StoreUnavailable: It waits still, or its taking up is in doubt and it is handed on again.
        """
        row = opened.row
        if row.owner != NOBODY or row.held is None:
            return None
        if opened.stop is not None:
            await self._end(opened, Kind.CANCELLED, Failure(type="cancelled", message=opened.stop))
            return None
        try:
            return await self._take_up(opened, row.held, open_context)
        except _Missing as missing:
            await self._wait_on(opened, row.held, str(missing))
        except _Unfit as unfit:
            await self._end(opened, Kind.FAILED, unfit.failure)
        except NotFound:
            await self._end(opened, Kind.DENIED, Failure(type=RightsLost.code, message=RightsLost.title))
        except Denied as refusal:
            await self._end(opened, Kind.DENIED, _failure(refusal))
        except (CasefileArchived, SessionClosed) as refusal:
            await self._end(opened, Kind.CANCELLED, _failure(refusal))
        except OperationEnded:
            await self._end_with_its_parent(opened)
        return None

    async def _take_up(self, opened: OpenedOperation, held: Held, open_context: OpenContext) -> Started:
        row = opened.row
        caller = await self._accounts(row.user_id)
        if caller is None:
            raise RightsLost("The account is not active any more.")
        place = At(session_id=row.session_id)
        recorded: _Recorded | None = None
        resumed: Resumed | None = None

        async def attempt(_: bool) -> Started:
            nonlocal opened, recorded, resumed
            context = await self._manager.validate_and_get_session(caller, place, again=True, on_record=False)
            if recorded is None or resumed is None:
                operation = await self._operation(opened)
                recorded = await self._recorded(opened)
                resumed = await self._resumed(opened, held, operation)
                opened = await self._with_taint_of_children(opened, held, operation)
            try:
                admitted = await self._admitting.admit(
                    recorded.call, context.access, tainted=row.is_tainted, approved=row.is_approved
                )
            except Invalid as error:
                raise _Unfit(error.code, error.detail) from error
            except Unavailable as error:
                if isinstance(error, StoreUnavailable | Overloaded):
                    raise
                raise _Missing(error.detail) from error
            ask = Ask(row.user_id, "resumed", row.request_id or "")
            parent = self._parent(opened, held)
            call = Call(caller, place, recorded.call, ask, parent=parent, outlives_caller=True)
            return await self._life.go_on(
                context, call, admitted, open_context, opened, recorded.fact, resumed
            )

        return await retried(attempt)

    async def _operation(self, opened: OpenedOperation) -> Operation:
        operation = await self._admitting.of_row(opened.row)
        if operation is None or not operation.parks:
            raise _Missing("this server does not have it")
        return operation

    async def _recorded(self, opened: OpenedOperation) -> _Recorded:
        row, stored = opened.row, await self._store.operation(opened.row.event_id)
        inputs: Any = await self._payloads.part(stored[0], "inputs")
        try:
            call = call_of(row.operation_type, row.operation_name, inputs)
        except (ValueError, TypeError) as error:
            raise _Unfit("arguments_invalid", "What was asked for is not on the record any more.") from error
        return _Recorded(await self._detached.started_fact(opened), call)

    async def _resumed(self, opened: OpenedOperation, held: Held, operation: Operation) -> Resumed:
        attempt, snapshot = opened.row.attempt + 1, held.snapshot
        if snapshot is None:
            return Resumed(attempt, None, operation.snapshot_version)
        if snapshot.version > operation.snapshot_version:
            raise _Missing("its snapshot is of a newer version than this server knows")
        body = await self._payloads.of_snapshot(opened.row.casefile_id, snapshot)
        if body is None:
            raise _Unfit("snapshot_lost", "What it was to go on from is lost.")
        return Resumed(attempt, body, snapshot.version)

    async def _with_taint_of_children(
        self, opened: OpenedOperation, held: Held, operation: Operation
    ) -> OpenedOperation:
        """The operation with the taint that a lost process could not write down any more: its children tell."""
        if held.is_tainted or not held.crashes:
            return opened
        scope = OperationScope(opened.row.casefile_id, opened.row.user_id)
        for fact in await self._store.children(opened.row.event_id):
            header = from_json(fact.header)
            if Kind(header["kind"]) not in TERMINAL:
                continue
            type_ = header["operation_type"]
            child = await self._admitting.registry.named(type_, header["operation_name"], scope)
            effects = child.effects if child else None
            if answer_taints(operation.type, type_, effects, is_tainted="tainted" in header):
                return replace(opened, row=replace(opened.row, held=replace(held, is_tainted=True)))
        return opened

    def _parent(self, opened: OpenedOperation, held: Held) -> Parent | None:
        row = opened.row
        if row.parent is None:
            return None
        return Parent(
            row.parent,
            row.root_event_id,
            held.depth - 1,
            self._clock() + held.left,
            is_tainted=row.is_tainted,
        )

    async def _wait_on(self, opened: OpenedOperation, held: Held, why: str) -> None:
        row = opened.row
        name = f"{row.operation_type}/{row.operation_name}"
        _log.warning("%s (%s) cannot be resumed in this process and waits on: %s", row.event_id, name, why)
        waiting_for = (WaitingFor("operation", name),)
        waited = self._clock() - held.since if held.since else timedelta()
        wait = min(max(waited / 4, SOONEST), LATEST)
        await self._detached.postpone(opened, replace(held, waiting_for=waiting_for), wait)

    async def _end(self, opened: OpenedOperation, kind: Kind, failure: Failure) -> None:
        await self._detached.end([opened], Ending(kind, failure=failure))

    async def _end_with_its_parent(self, opened: OpenedOperation) -> None:
        parent = opened.row.parent
        if parent is not None and not await self._store.opened([parent.event_id]):
            message = "The operation around this one has ended."
            await self._end(opened, Kind.CANCELLED, Failure(type="cancelled", message=message))


def _failure(refusal: CasekeeperError) -> Failure:
    return Failure(type=refusal.code, message=refusal.detail)
