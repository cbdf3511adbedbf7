"""A call on its way through the corridor, and the operation that it becomes."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY
from datetime import datetime, timedelta
from typing import Literal

from casekeeper.errors import Quota
from casekeeper.execution.facts import Asked
from casekeeper.execution.runner import Running
from casekeeper.identity.principal import Principal
from casekeeper.journal.events import Fact
from casekeeper.journal.operations import Held, OperationRef, OwnedBy
from casekeeper.journal.requests import Ask
from casekeeper.operations.admitting import Admitted
from casekeeper.operations.context import Resumed
from casekeeper.operations.operation import Operation, OperationCall
from casekeeper.sessions.manager import Place, SessionContext
from casekeeper.values import value


@value
class Parent:
    """The operation inside which a nested call happens.

    `ownership` is the condition that this process still has it; None where the nested operation goes on without it, and
    wakes it in the end. `is_tainted`: what it asks for may follow what somebody else has written.
    """

    operation: OperationRef
    root_event_id: str
    depth: int
    deadline: datetime
    ownership: OwnedBy | None = None
    is_tainted: bool = False


@value
class Call:
    """One call on its way through the corridor.

    `until`: what the caller waits for. `outlives_caller`: it was asked for in the background, or will be asked for
    again, so it does not end when the caller disconnects. `on_started` is called before the first step of the run, so that a follower
    misses nothing of it; `on_counted` is called with the state of the rate limits once it is counted.
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
        type_ = self.operation.operation_type
        parent, name, inputs = self.parent, self.operation.name, self.operation.inputs
        return Asked(
            type_,
            name,
            inputs,
            self.ask.request_id,
            parent.operation.event_id if parent else None,
            is_tainted=self.is_tainted,
        )


@value
class Started:
    """An operation whose `started` is on disk, and which this process has.

    `left` is how long it may run, at most until the deadline. `held` is what another process would go on with, None for an
    operation that does not park.
    """

    _: KW_ONLY
    call: Call
    context: SessionContext
    admitted: Admitted
    fact: Fact
    seq: int
    running: Running
    deadline: datetime
    left: timedelta
    ownership: OwnedBy
    held: Held | None = None
    resumed: Resumed | None = None

    @property
    def operation(self) -> Operation:
        """What runs."""
        return self.admitted.operation

    @property
    def ref(self) -> OperationRef:
        """Which operation it is."""
        return self.ownership.operation
