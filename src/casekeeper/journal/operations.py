"""The rows of operations that have started and not ended."""

from collections.abc import Sequence
from dataclasses import KW_ONLY
from datetime import datetime
from typing import Any

from casekeeper.journal.commits import About, Condition, Record, Superseded
from casekeeper.journal.events import OperationType
from casekeeper.values import value


class OperationEnded(Superseded):
    """The operation has its terminal fact already."""


@value
class OpenOperation(Record):
    """The row that says: this operation has started and not ended. Deleted with the terminal fact."""

    _: KW_ONLY
    event_id: str
    casefile_id: str
    session_id: str
    parent_event_id: str | None
    root_event_id: str
    user_id: str
    actor: str
    operation_type: OperationType
    operation_name: str
    request_id: str | None
    owner: str
    started_at: datetime
    state: str = "running"

    @property
    def about(self) -> Sequence[About]:
        return About("casefile", self.casefile_id, alone=False), About("session", self.session_id, alone=True)


@value
class OperationIsOpen(Condition):
    """The operation has not ended: neither its terminal fact nor a write of its own may come after its end."""

    event_id: str

    @property
    def about(self) -> Sequence[About]:
        # What goes with it names the session or has the casefile alone.
        return ()

    def refusal(self, found: Any) -> Exception | None:
        return None if found else OperationEnded(self.event_id)


@value
class CloseOperation(Record):
    """Removes the open row; goes with the terminal fact."""

    event_id: str

    @property
    def about(self) -> Sequence[About]:
        # The terminal fact has the session alone.
        return ()


@value
class AskToStop(Record):
    """Asks whoever runs the operation to stop it; `reason` becomes what its end says. Goes with `OperationIsOpen`."""

    event_id: str
    casefile_id: str
    reason: str

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.casefile_id, alone=True),)


@value
class OpenedOperation:
    """An open operation as a store lists it, with where its inputs are."""

    row: OpenOperation
    started_seq: int
    inputs_commit: str
