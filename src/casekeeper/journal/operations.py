"""Open operations: the rows of what has started and not ended, running or waiting.

A running operation is owned by one process; `attempt` counts how often one has taken it up, and is what everything that
it starts, writes and ends is fenced by. A waiting one is owned by nobody: any process takes it up again.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from pydantic_core import from_json, to_json

from casekeeper.clock import from_us, to_us
from casekeeper.journal.commits import About, Condition, Record, Superseded
from casekeeper.journal.events import Fact, OperationType
from casekeeper.values import value

NOBODY = ""
"""The owner of what waits."""

WaitsFor = Literal["approval", "answer", "signal", "time", "person", "operation"]
"""`operation`: one that this server does not have, or cannot run at present."""


class OperationEnded(Superseded):
    """The operation has its terminal fact already."""


class OperationTakenOver(OperationEnded):
    """Another process, or a later attempt, has the operation: this one may start, write and end nothing any more."""


AT_ONCE = from_us(0)
"""When what is due at once is due."""


@value
class OperationRef:
    """Which open operation, and where it is."""

    event_id: str
    session_id: str
    casefile_id: str

    @property
    def about(self) -> Sequence[About]:
        """What a part of a commit is about that looks at this operation, or changes it: its session, beside others."""
        return About("casefile", self.casefile_id, alone=False), About("session", self.session_id, alone=True)


def operation_of(fact: Fact) -> OperationRef:
    """The operation that a fact is about."""
    return OperationRef(fact.event_id, fact.session_id, fact.casefile_id)


@value
class WaitingFor:
    """What a parked operation waits for; `until` is when it goes on without."""

    kind: WaitsFor
    id: str | None = None
    until: datetime | None = None


@value
class Snapshot:
    """Where an operation goes on from: JSON of its own making, in the row or in a blob. `version` is the operation's."""

    version: int
    body: str | None = None
    blob: str | None = None


@value
class Held:
    """What a process needs to go on with an operation; operations that cannot be taken up again have none.

    Attributes:
        left: Of its time, when it last began, went on or parked. Waiting does not count.
        waited: How long it has waited so far.
        since: When it parked; None while it runs.
        is_tainted: What it asks for from now on may follow what somebody else has written.
        crashes: How often in a row a process was lost while it ran it.
    """

    _: KW_ONLY
    depth: int
    left: timedelta
    waited: timedelta = timedelta()
    since: datetime | None = None
    is_tainted: bool = False
    crashes: int = 0
    waiting_for: Sequence[WaitingFor] = ()
    snapshot: Snapshot | None = None

    def to_text(self) -> str:
        """As a store keeps it."""
        return to_json(
            {
                "depth": self.depth,
                "left_us": _us(self.left),
                "waited_us": _us(self.waited),
                "since_us": None if self.since is None else to_us(self.since),
                "tainted": self.is_tainted,
                "crashes": self.crashes,
                "for": [
                    {
                        "kind": one.kind,
                        "id": one.id,
                        "until_us": None if one.until is None else to_us(one.until),
                    }
                    for one in self.waiting_for
                ],
                "snapshot": None if self.snapshot is None else asdict(self.snapshot),
            }
        ).decode()

    @staticmethod
    def of_text(text: str | None) -> "Held | None":
        """What `to_text` wrote."""
        if text is None:
            return None
        stored: dict[str, Any] = from_json(text)
        since_us, snapshot = stored["since_us"], stored["snapshot"]
        return Held(
            depth=stored["depth"],
            left=timedelta(microseconds=stored["left_us"]),
            waited=timedelta(microseconds=stored["waited_us"]),
            since=None if since_us is None else from_us(since_us),
            is_tainted=stored["tainted"],
            crashes=stored["crashes"],
            waiting_for=tuple(
                WaitingFor(
                    one["kind"], one["id"], None if one["until_us"] is None else from_us(one["until_us"])
                )
                for one in stored["for"]
            ),
            snapshot=Snapshot(**snapshot) if snapshot else None,
        )


def _us(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


@value
class OpenOperation(Record):
    """The row that says: this operation has started and not ended. Deleted with the terminal fact.

    `is_tainted` and `is_approved` are what it was admitted under. `wake_at`: when what waits is due; on a running row, that
    it was woken before it parked.
    """

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
    state: Literal["running", "waiting"] = "running"
    attempt: int = 1
    wake_at: datetime | None = None
    is_tainted: bool = False
    is_approved: bool = False
    held: Held | None = None

    @property
    def about(self) -> Sequence[About]:
        return self.ref.about

    @property
    def ref(self) -> OperationRef:
        """Which one it is."""
        return OperationRef(self.event_id, self.session_id, self.casefile_id)

    @property
    def parent(self) -> OperationRef | None:
        """The operation around it, which is in the same session."""
        if self.parent_event_id is None:
            return None
        return OperationRef(self.parent_event_id, self.session_id, self.casefile_id)

    @property
    def ownership(self) -> "OwnedBy":
        """The condition that it is still as this row says: nobody has taken it up or ended it."""
        return OwnedBy(self.ref, self.owner, self.attempt)


@value
class OperationIsOpen(Condition):
    """The operation has not ended, whichever process runs it."""

    operation: OperationRef

    @property
    def about(self) -> Sequence[About]:
        return self.operation.about

    def refusal(self, found: Any) -> Exception | None:
        return None if found else OperationEnded(self.operation.event_id)


@value
class OwnedBy(Condition):
    """This owner has the operation, by this attempt; NOBODY: it waits. `found` is the row's owner and attempt, or None."""

    operation: OperationRef
    owner: str
    attempt: int

    @property
    def about(self) -> Sequence[About]:
        return self.operation.about

    def refusal(self, found: Any) -> Exception | None:
        if found is None:
            return OperationEnded(self.operation.event_id)
        return (
            None
            if tuple(found) == (self.owner, self.attempt)
            else OperationTakenOver(self.operation.event_id)
        )


@value
class CloseOperation(Record):
    """Removes the open row; goes with the terminal fact."""

    operation: OperationRef

    @property
    def about(self) -> Sequence[About]:
        return self.operation.about


@value
class ParkOperation(Record):
    """The operation waits from now on, owned by nobody; goes with `OwnedBy`.

    It is due at `wake_at` (None: only when it is woken), earlier where it was woken meanwhile for a time before that, and at
    once where it was asked to stop.
    """

    operation: OperationRef
    held: Held
    wake_at: datetime | None

    @property
    def about(self) -> Sequence[About]:
        return self.operation.about


@value
class TakeOver(Record):
    """This owner runs the operation from now on, by the next attempt; goes with `OwnedBy`."""

    operation: OperationRef
    owner: str
    held: Held

    @property
    def about(self) -> Sequence[About]:
        return self.operation.about


@value
class Wake(Record):
    """What the operation waits for may have come: it is due at `at`, also if it only parks after this.

    Without effect on one that has ended.
    """

    operation: OperationRef
    at: datetime

    @property
    def about(self) -> Sequence[About]:
        return self.operation.about


@value
class AskToStop(Record):
    """Asks the process that runs the operation to stop it; one that waits is due at once. Goes with `OperationIsOpen`.

    `reason` becomes what its end says.
    """

    operation: OperationRef
    reason: str

    @property
    def about(self) -> Sequence[About]:
        return self.operation.about


@value
class OpenedOperation:
    """An open operation as a store lists it, with where its inputs are, and why it was asked to stop."""

    row: OpenOperation
    started_seq: int
    inputs_commit: str
    stop: str | None = None


class OpenOperations(Protocol):
    """Open operations as a store keeps them. Waiting ones belong to nobody and are never orphans."""

    async def opened(self, event_ids: Sequence[str]) -> Sequence[OpenedOperation]:
        """Those of these operations that are open."""
        ...

    async def open_operations(self, session_id: str) -> Sequence[OpenedOperation]:
        """What runs or waits in a session, oldest first."""
        ...

    async def open_inside(self, root_event_id: str) -> Sequence[OpenedOperation]:
        """What runs or waits inside this outermost operation, at any depth, oldest first."""
        ...

    async def open_of(self, casefile_id: str | None, user_id: str | None) -> Sequence[OpenedOperation]:
        """What runs or waits of this casefile, this user, or both: at most 1,000, what waits first, then oldest first."""
        ...

    async def orphans(self, owner: str, limit: int) -> Sequence[OpenedOperation]:
        """Running operations without a process, children before their parents; `owner` is the process that asks."""
        ...

    async def due(self, limit: int) -> Sequence[OpenedOperation]:
        """Waiting operations that have a time to go on at, the next one first, due or not."""
        ...

    async def asked_to_stop(self, owner: str) -> Sequence[tuple[str, str]]:
        """Event ids of an owner's running operations that were asked to stop, and why."""
        ...
