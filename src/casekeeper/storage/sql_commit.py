"""How commits become durable in SQL: conditions judged, facts numbered and chained, records written.

One batch is one transaction. Its commits are judged in order, each seeing what those before it wrote, so a refused
one drops out alone before anything of it is numbered. Facts and heads are written at the end, many at a time.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import Table, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql import ClauseElement

from casekeeper.acl_feed import Change
from casekeeper.clock import to_us
from casekeeper.journal.chain import canonical, genesis, link
from casekeeper.journal.events import TERMINAL, Fact, Sealed
from casekeeper.journal.stream import (
    CloseOperation,
    Commit,
    Condition,
    OpenOperation,
    OperationIsOpen,
    PermissionChanged,
    Record,
)
from casekeeper.sessions.session import EndSession, SessionIsIdle, SessionIsOpen
from casekeeper.storage import sql_schema as t
from casekeeper.storage.sql_records import CONDITIONS, RECORDS, change
from casekeeper.storage.sql_statements import Bulk, IsInJson, Parameters, Static, Tx

_HEADS = Static(
    select(
        t.sessions.c.session_id,
        t.sessions.c.head_seq,
        t.sessions.c.head_hash,
        func.coalesce(t.sessions.c.closed_us, 0),
    ).where(IsInJson(t.sessions.c.session_id, "session_ids"))
)
_OPEN = Static(
    select(t.open_operations.c.event_id).where(IsInJson(t.open_operations.c.event_id, "event_ids"))
)
_CLOSE = Static(delete(t.open_operations).where(IsInJson(t.open_operations.c.event_id, "event_ids")))
_SET_HEAD = Static(
    update(t.sessions)
    .where(t.sessions.c.session_id == bindparam("id_"))
    .values(head_seq=bindparam("seq"), head_hash=bindparam("hash"), last_us=bindparam("at_us"))
)


_TOTAL_KEYS = ("session_id", "operation_type", "operation_name", "kind")
_SUMS = ("count", "busy_ms", "tokens", "cost_micros")


def _names(table: Table) -> list[str]:
    return [column.name for column in table.c if column.name != "rid"]


def _inserts(table: Table) -> Bulk:
    return Bulk(_names(table), lambda rows: insert(table).values(rows))


def _add_totals(rows: list[dict[str, Any]]) -> ClauseElement:
    new = upsert(t.session_totals).values(rows)
    summed = {c: t.session_totals.c[c] + new.excluded[c] for c in _SUMS}
    return new.on_conflict_do_update(index_elements=list(_TOTAL_KEYS), set_=summed)


_ADD_EVENTS = _inserts(t.events)
_ADD_PAYLOADS = _inserts(t.payloads)
_ADD_OPEN = _inserts(t.open_operations)
_ADD_TOTALS = Bulk(_names(t.session_totals), _add_totals)


@dataclass(slots=True)
class _Head:
    """Where a session's chain stands within the batch; `closed_us` None: there is no such session yet."""

    seq: int
    hash: bytes
    closed_us: int | None
    at_us: int = 0


@dataclass(slots=True)
class Batch:
    """The commits of one transaction. What most of them ask for is read once for all, what they add written at the end."""

    tx: Tx
    changes: list[Change] = field(default_factory=list[Change])
    _heads: dict[str, _Head] = field(default_factory=dict[str, _Head])
    _events: list[Parameters] = field(default_factory=list[Parameters])
    _payloads: list[Parameters] = field(default_factory=list[Parameters])
    _totals: dict[tuple[Any, ...], dict[str, Any]] = field(
        default_factory=dict[tuple[Any, ...], dict[str, Any]]
    )
    _open: set[str] = field(default_factory=set[str])
    _opened: dict[str, Parameters] = field(default_factory=dict[str, Parameters])
    _closed: list[str] = field(default_factory=list[str])

    def prepare(self, commits: Sequence[Commit]) -> None:
        """Read what these commits will ask for: where sessions stand, and which operations are open."""
        self.tx.hold(commits)
        sessions: set[str] = set()
        operations: set[str] = set()
        for commit in commits:
            sessions.update(fact.session_id for fact in commit.facts)
            for condition in commit.conditions:
                match condition:
                    case SessionIsOpen(session_id):
                        sessions.add(session_id)
                    case OperationIsOpen(event_id):
                        operations.add(event_id)
                    case _:
                        pass
        for session_id, *head in self.tx.all(_HEADS, session_ids=_json(sessions)) if sessions else ():
            self._heads[session_id] = _Head(*head)
        if operations:
            self._open.update(row[0] for row in self.tx.all(_OPEN, event_ids=_json(operations)))

    def add(self, commit: Commit) -> Sequence[Sealed]:
        """Judge one commit, which was prepared, and take it in.

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
        self._flush_open()
        if self._events:
            tx.bulk(_ADD_EVENTS, self._events)
            tx.bulk(_ADD_PAYLOADS, self._payloads)
            rows = [
                {"id_": session_id, "seq": head.seq, "hash": head.hash, "at_us": head.at_us}
                for session_id, head in self._heads.items()
                if head.at_us
            ]
            if tx.many(_SET_HEAD, rows) != len(rows):
                raise LookupError("a fact was written for a session that does not exist")
        tx.bulk(_ADD_TOTALS, list(self._totals.values()))

    def _add_total(self, row: dict[str, Any]) -> None:
        # A statement may touch a row only once, so what falls on the same one is added up here.
        known = self._totals.setdefault(tuple(row[name] for name in _TOTAL_KEYS), row)
        if known is not row:
            for name in _SUMS:
                known[name] += row[name]

    def _find(self, condition: Condition) -> Any:
        """What the condition asks for: out of the batch where it knows, from the database otherwise."""
        match condition:
            case SessionIsOpen(session_id):
                return self._head(session_id).closed_us
            case OperationIsOpen(event_id):
                return event_id in self._open
            case SessionIsIdle():
                self._flush_open()
            case _:
                pass
        return CONDITIONS[type(condition)](self.tx, condition)

    def _write(self, record: Record, sealed: Sequence[Sealed]) -> None:
        match record:
            case OpenOperation():
                self._opened[record.event_id] = _open_row(record, sealed[-1])
                self._open.add(record.event_id)
            case CloseOperation(event_id):
                self._open.discard(event_id)
                if self._opened.pop(event_id, None) is None:
                    self._closed.append(event_id)
            case PermissionChanged(casefile_id, user_id):
                number = change(self.tx, record)
                self.changes.append(Change(number, casefile_id, user_id))
            case EndSession(session_id, at):
                self._head(session_id).closed_us = to_us(at)
                RECORDS[type(record)](self.tx, record)
            case _:
                RECORDS[type(record)](self.tx, record)

    def _flush_open(self) -> None:
        if self._closed:
            self.tx.run(_CLOSE, event_ids=_json(self._closed))
            self._closed.clear()
        self.tx.bulk(_ADD_OPEN, list(self._opened.values()))
        self._opened.clear()

    def _head(self, session_id: str) -> _Head:
        # One that was not there when the batch was prepared begins in it.
        return self._heads.setdefault(session_id, _Head(0, b"", None))

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
            self._add_total(_total_row(fact))
        return Sealed(fact, seq, hash_)


def _json(ids: Iterable[str]) -> str:
    return json.dumps(list(ids))


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


def _total_row(fact: Fact) -> dict[str, Any]:
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
