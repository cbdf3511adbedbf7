"""How commits become durable in SQL: conditions judged, facts numbered and chained, records written.

One batch is one transaction. Its commits are judged in order, each seeing what those before it wrote, so a refused
one drops out alone before anything of it is numbered. Facts and heads are written at the end, many at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from casekeeper.clock import to_us
from casekeeper.journal.chain import canonical, genesis, link
from casekeeper.journal.events import TERMINAL, Fact, Sealed
from casekeeper.journal.stream import (
    CloseOperation,
    Commit,
    Condition,
    OpenOperation,
    OperationIsOpen,
    Record,
)
from casekeeper.sessions.session import EndSession, SessionIsIdle, SessionIsOpen
from casekeeper.storage import sql_schema as t
from casekeeper.storage.sql_records import CONDITIONS, RECORDS
from casekeeper.storage.sql_statements import Parameters, Static, Tx

_HEAD = Static(
    select(t.sessions.c.head_seq, t.sessions.c.head_hash, func.coalesce(t.sessions.c.closed_us, 0)).where(
        t.sessions.c.session_id == bindparam("session_id")
    )
)
_SET_HEAD = Static(
    update(t.sessions)
    .where(t.sessions.c.session_id == bindparam("id_"))
    .values(head_seq=bindparam("seq"), head_hash=bindparam("hash"), last_us=bindparam("at_us"))
)
_ADD_EVENT = Static(
    insert(t.events).values({c.name: bindparam(c.name) for c in t.events.c if c.name != "rid"})
)
_ADD_PAYLOAD = Static(insert(t.payloads).values({c.name: bindparam(c.name) for c in t.payloads.c}))
_ADD_OPEN = Static(insert(t.open_operations).values({c.name: bindparam(c.name) for c in t.open_operations.c}))
_totals = upsert(t.session_totals).values({c.name: bindparam(c.name) for c in t.session_totals.c})
_ADD_TOTAL = Static(
    _totals.on_conflict_do_update(
        index_elements=["session_id", "operation_type", "operation_name", "kind"],
        set_={
            name: t.session_totals.c[name] + _totals.excluded[name]
            for name in ("count", "busy_ms", "tokens", "cost_micros")
        },
    )
)


@dataclass(slots=True)
class _Head:
    """Where a session's chain stands within the batch; `closed_us` None: there is no such session yet."""

    seq: int
    hash: bytes
    closed_us: int | None
    at_us: int = 0


@dataclass(slots=True)
class Batch:
    """The commits of one transaction."""

    tx: Tx
    _heads: dict[str, _Head] = field(default_factory=dict[str, _Head])
    _events: list[Parameters] = field(default_factory=list[Parameters])
    _payloads: list[Parameters] = field(default_factory=list[Parameters])
    _totals: list[Parameters] = field(default_factory=list[Parameters])
    _opened: dict[str, Parameters] = field(default_factory=dict[str, Parameters])

    def add(self, commit: Commit) -> Sequence[Sealed]:
        """Judge one commit and take it in.

        Raises:
            Refused: A condition does not hold; nothing of this commit was written.
            Superseded: Likewise, because of a race.
        """
        for condition in commit.conditions:
            refusal = condition.refusal(self._find(condition))
            if refusal is not None:
                raise refusal
        sealed = [self._seal(fact) for fact in commit.facts]
        for record in commit.records:
            self._write(record, sealed)
        return sealed

    def flush(self) -> None:
        """Write what was numbered; the transaction can be committed then."""
        tx = self.tx
        self._flush_opened()
        if self._events:
            tx.many(_ADD_EVENT, self._events)
            tx.many(_ADD_PAYLOAD, self._payloads)
            rows = [
                {"id_": session_id, "seq": head.seq, "hash": head.hash, "at_us": head.at_us}
                for session_id, head in self._heads.items()
                if head.at_us
            ]
            if tx.many(_SET_HEAD, rows) != len(rows):
                raise LookupError("a fact was written for a session that does not exist")
        if self._totals:
            tx.many(_ADD_TOTAL, self._totals)

    def _find(self, condition: Condition) -> Any:
        """What the condition asks for: out of the batch where it knows, from the database otherwise."""
        match condition:
            case SessionIsOpen(session_id):
                return self._head(session_id).closed_us
            case OperationIsOpen(event_id) if event_id in self._opened:
                return event_id
            case SessionIsIdle():
                self._flush_opened()
            case _:
                pass
        return CONDITIONS[type(condition)](self.tx, condition)

    def _write(self, record: Record, sealed: Sequence[Sealed]) -> None:
        match record:
            case OpenOperation():
                self._opened[record.event_id] = _open_row(record, sealed[-1])
                return
            case CloseOperation(event_id) if event_id in self._opened:
                del self._opened[event_id]
                return
            case EndSession(session_id, at):
                self._head(session_id).closed_us = to_us(at)
            case _:
                pass
        RECORDS[type(record)](self.tx, record)

    def _flush_opened(self) -> None:
        if self._opened:
            self.tx.many(_ADD_OPEN, list(self._opened.values()))
            self._opened.clear()

    def _head(self, session_id: str) -> _Head:
        head = self._heads.get(session_id)
        if head is None:
            row = self.tx.one(_HEAD, session_id=session_id)
            head = self._heads[session_id] = _Head(*row) if row else _Head(0, b"", None)
        return head

    def _seal(self, fact: Fact) -> Sealed:
        head = self._head(fact.session_id)
        seq, at_us = head.seq + 1, fact.at_us
        header = canonical(fact.header(seq))
        previous = head.hash if head.seq else genesis(fact.casefile_id, fact.session_id)
        hash_ = link(previous, header, fact.payload.commit)
        head.seq, head.hash, head.at_us = seq, hash_, max(at_us, head.at_us)
        self._events.append(_event_row(fact, seq, at_us, header, hash_))
        payload = fact.payload
        self._payloads.append(
            {
                "session_id": fact.session_id,
                "seq": seq,
                "salt": payload.salt,
                "body": payload.body,
                "blob": payload.blob,
                "size": payload.size,
            }
        )
        if fact.kind in TERMINAL and fact.operation_type is not None:
            self._totals.append(_total_row(fact))
        return Sealed(fact, seq, hash_)


def _open_row(row: OpenOperation, started: Sealed) -> Parameters:
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
    }


def _event_row(fact: Fact, seq: int, at_us: int, header: bytes, hash_: bytes) -> Parameters:
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


def _total_row(fact: Fact) -> Parameters:
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
