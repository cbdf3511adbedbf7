"""Facts and operations as rows of the SQL stores."""

from decimal import Decimal
from typing import Any

from casekeeper.clock import to_us
from casekeeper.journal.events import Fact, Sealed
from casekeeper.journal.operations import OpenOperation
from casekeeper.storage.sql_statements import Parameters


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
        "operation_type": row.operation_type.value,
        "operation_name": row.operation_name,
        "request_id": row.request_id,
        "owner": row.owner,
        "state": row.state,
        "started_us": to_us(row.started_at),
        "heartbeat_us": to_us(row.started_at),
        "started_seq": started.seq,
        "inputs_commit": started.fact.payload.commit.hex(),
        "stop": None,
    }


def event_row(fact: Fact, seq: int, at_us: int, header: bytes, hash_: bytes) -> Parameters:
    """A fact without its payload."""
    return {
        "session_id": fact.session_id,
        "seq": seq,
        "casefile_id": fact.casefile_id,
        "event_id": fact.event_id,
        "parent_event_id": fact.parent_event_id,
        "kind": fact.kind.value,
        "operation_type": fact.operation_type and fact.operation_type.value,
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
        "operation_type": fact.operation_type and fact.operation_type.value,
        "operation_name": fact.operation_name or "",
        "kind": fact.kind.value,
        "count": 1,
        "busy_ms": (fact.duration_ms or 0) if top else 0,
        "tokens": int(usage.get("input_tokens", 0)) + int(usage.get("output_tokens", 0)),
        "cost_micros": int(Decimal(str(usage.get("cost", 0))) * 1_000_000),
    }
