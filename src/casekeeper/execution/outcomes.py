"""The state of operations, read from the record: running, waiting or ended."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic_core import from_json, to_json

from casekeeper.execution.payloads import Payloads
from casekeeper.journal.events import TERMINAL, Failure, Kind, OperationType, StoredFact
from casekeeper.journal.feed import LiveFeed
from casekeeper.journal.operations import NOBODY, OpenOperations, WaitingFor
from casekeeper.values import value

# How late it is noticed that another process ended an operation, where no news of it comes.
LOOK_S = 0.25

Status = Literal["completed", "failed", "running", "pending"]


@value
class Outcome:
    """How an operation ended, or that it has not. `outputs` is JSON; `waiting_for` says what a pending one waits for."""

    event_id: str
    operation_type: OperationType
    operation_name: str
    session_id: str
    status: Status
    outputs: bytes | None = None
    failure: Failure | None = None
    duration_ms: int | None = None
    usage: dict[str, int | str] | None = None
    is_tainted: bool = False
    waiting_for: Sequence[WaitingFor] = ()

    @property
    def has_ended(self) -> bool:
        """Whether it has its terminal fact."""
        return self.status in ("completed", "failed")


class OutcomeStore(OpenOperations, Protocol):
    """Where operations are found, open or ended."""

    async def operation(self, event_id: str) -> Sequence[StoredFact]:
        """All facts of one operation, by seq."""
        ...


def has_ended(facts: Sequence[StoredFact]) -> bool:
    """Whether the last of an operation's facts ends it."""
    return Kind(from_json(facts[-1].header)["kind"]) in TERMINAL


class Outcomes:
    """Outcomes of operations, whichever process has them."""

    def __init__(self, store: OutcomeStore, payloads: Payloads, live: LiveFeed) -> None:
        self._store = store
        self._payloads = payloads
        self._live = live

    async def of(self, event_id: str) -> Outcome:
        """How the operation stands; it must be on the record."""
        return await self.of_facts(await self._store.operation(event_id))

    async def of_facts(self, facts: Sequence[StoredFact]) -> Outcome:
        """How an operation stands, out of its facts and, as long as it is open, its row."""
        last = facts[-1]
        header: dict[str, Any] = from_json(last.header)
        kind = Kind(header["kind"])
        outputs = await self._payloads.part(last, "outputs") if kind is Kind.SUCCEEDED else None
        failure, waiting_for = None, None
        if kind not in TERMINAL:
            waiting_for = await self.waiting_for(header["event_id"])
        elif kind is not Kind.SUCCEEDED:
            error: dict[str, Any] = await self._payloads.part(last, "error") or {}
            message, retryable = error.get("message", ""), error.get("retryable", False)
            failure = Failure(type=header.get("error_type", kind.value), message=message, retryable=retryable)
        return Outcome(
            event_id=header["event_id"],
            operation_type=header.get("operation_type", "tool"),
            operation_name=header.get("operation_name", ""),
            session_id=last.session_id,
            status=_status(kind, is_waiting=waiting_for is not None),
            outputs=to_json(outputs) if kind is Kind.SUCCEEDED else None,
            failure=failure,
            duration_ms=header.get("duration_ms"),
            usage=header.get("usage"),
            # Either fact, the one that opened it or the one that ended it, may say so.
            is_tainted=any("tainted" in from_json(fact.header) for fact in facts),
            waiting_for=waiting_for or (),
        )

    async def waiting_for(self, event_id: str) -> Sequence[WaitingFor] | None:
        """What the operation waits for; None if it does not wait."""
        for opened in await self._store.opened([event_id]):
            if opened.row.owner == NOBODY:
                return opened.row.held.waiting_for if opened.row.held else ()
        return None

    async def when_ended(self, event_id: str, session_id: str) -> Outcome:
        """How the operation ended, as soon as it has."""
        with self._live.watch(session_id) as watch:
            while not has_ended(facts := await self._store.operation(event_id)):
                await watch.wait(LOOK_S)
        return await self.of_facts(facts)


def _status(kind: Kind, *, is_waiting: bool) -> Status:
    if kind not in TERMINAL:
        return "pending" if is_waiting else "running"
    return "completed" if kind is Kind.SUCCEEDED else "failed"
