"""Facts and operations as rows of the SQL stores."""

from decimal import Decimal
from typing import Any

from casekeeper.clock import from_us, to_us
from casekeeper.journal.events import Fact, Sealed
from casekeeper.journal.operations import Held, OpenedOperation, OpenOperation
from casekeeper.storage.sql_statements import Parameters, Row


def open_row(row: OpenOperation, started: Sealed) -> Parameters:
    """An operation that has started, with where its inputs are."""
    return {
        "event_id": row.event_id,
        "casefile_id": row.casefile_id,
        "session_id": row.session_id,
        "parent_event_id": row.parent_event_id,
        "root_event_id": row.root_event_id,
        "user_id": row.user_id,
        "actor": row.actor,
        "operation_type": row.operation_type,
        "operation_name": row.operation_name,
        "request_id": row.request_id,
        "owner": row.owner,
        "state": row.state,
        "started_us": to_us(row.started_at),
        "heartbeat_us": to_us(row.started_at),
        "started_seq": started.seq,
        "inputs_commit": started.fact.payload.commit.hex(),
        "stop": None,
        "attempt": row.attempt,
        "wake_us": None if row.wake_at is None else to_us(row.wake_at),
        "tainted": int(row.is_tainted),
        "approved": int(row.is_approved),
        "held": row.held and row.held.to_text(),
    }


def opened_of(row: Row) -> OpenedOperation:
    """The open operation of a row that has all columns."""
    (event_id, casefile_id, session_id, parent_event_id, root_event_id, user_id, actor, type_, *more) = row
    (name, request_id, owner, state, started_us, _, started_seq, inputs_commit, stop, *waiting) = more
    attempt, wake_us, tainted, approved, held = waiting
    opened = OpenOperation(
        event_id=event_id,
        casefile_id=casefile_id,
        session_id=session_id,
        parent_event_id=parent_event_id,
        root_event_id=root_event_id,
        user_id=user_id,
        actor=actor,
        operation_type=type_,
        operation_name=name,
        request_id=request_id,
        owner=owner,
        state=state,
        started_at=from_us(started_us),
        attempt=attempt,
        wake_at=None if wake_us is None else from_us(wake_us),
        is_tainted=bool(tainted),
        is_approved=bool(approved),
        held=Held.of_text(held),
    )
    return OpenedOperation(opened, started_seq, inputs_commit, stop)


def event_row(fact: Fact, seq: int, at_us: int, header: bytes, hash_: bytes) -> Parameters:
    """A fact without its payload."""
    return {
        "session_id": fact.session_id,
        "seq": seq,
        "casefile_id": fact.casefile_id,
        "event_id": fact.event_id,
        "parent_event_id": fact.parent_event_id,
        "kind": fact.kind.value,
        "operation_type": fact.operation_type,
        "operation_name": fact.operation_name,
        "actor": fact.actor,
        "request_id": fact.request_id,
        "at_us": at_us,
        "started_seq": fact.started_seq,
        "header": header,
        "commitment": fact.payload.commit,
        "hash": hash_,
    }


def total_row(fact: Fact) -> dict[str, Any]:
    """What a fact that ends an operation adds to its session's totals."""
    usage = fact.usage or {}
    top = fact.parent_event_id is None
    return {
        "session_id": fact.session_id,
        "operation_type": fact.operation_type,
        "operation_name": fact.operation_name or "",
        "kind": fact.kind.value,
        "count": 1,
        "busy_ms": fact.busy_ms if top else 0,
        "tokens": int(usage.get("input_tokens", 0)) + int(usage.get("output_tokens", 0)),
        "cost_micros": int(Decimal(str(usage.get("cost", 0))) * 1_000_000),
    }
