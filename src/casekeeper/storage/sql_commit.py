"""How commits become durable in SQL: conditions judged, facts numbered and chained, records written.

One batch is one transaction. Its commits are judged in order, each seeing what those before it wrote, so a refused
one drops out alone before anything of it is numbered. Facts and heads are written at the end, many at a time.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.sql import ClauseElement

from casekeeper.acl_feed import Change
from casekeeper.casefiles.casefile import Fence
from casekeeper.clock import to_us
from casekeeper.identity.accounts import AccountStands
from casekeeper.journal.adoption import AdoptFacts, ChainEndsAt
from casekeeper.journal.chain import canonical, genesis, link
from casekeeper.journal.commits import Commit, Condition, PermissionChanged, Record
from casekeeper.journal.events import TERMINAL, Fact, Sealed
from casekeeper.journal.operations import AskToStop, CloseOperation, OpenOperation, OperationIsOpen
from casekeeper.journal.requests import Claim, ReleaseClaim
from casekeeper.sessions.session import EndSession, SessionIsIdle, SessionIsOpen
from casekeeper.storage import sql_schema as t
from casekeeper.storage.sql_claims import BatchClaims
from casekeeper.storage.sql_conditions import CONDITIONS
from casekeeper.storage.sql_feed import BatchFeed
from casekeeper.storage.sql_records import RECORDS
from casekeeper.storage.sql_rows import event_row, open_row, total_row
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
_ASK_TO_STOP = Static(
    update(t.open_operations)
    .where(t.open_operations.c.event_id == bindparam("event_id"))
    .values(stop=bindparam("reason"))
)
_CLOSE = Static(delete(t.open_operations).where(IsInJson(t.open_operations.c.event_id, "event_ids")))
_SET_HEAD = Static(
    update(t.sessions)
    .where(t.sessions.c.session_id == bindparam("id_"))
    .values(head_seq=bindparam("seq"), head_hash=bindparam("hash"), last_us=bindparam("at_us"))
)


_TOTAL_KEYS = ("session_id", "operation_type", "operation_name", "kind")
_SUMS = ("count", "busy_ms", "tokens", "cost_micros")


def _add_up(new: Insert) -> ClauseElement:
    summed = {c: t.session_totals.c[c] + new.excluded[c] for c in _SUMS}
    return new.on_conflict_do_update(index_elements=list(_TOTAL_KEYS), set_=summed)


# The tail knows by the transaction's number what is final (`sql_tail.py`).
_ADD_EVENTS = Bulk(t.events, rid="event_place(pg_current_xact_id()::text::bigint, n)")
_ADD_PAYLOADS = Bulk(t.payloads)
_ADD_OPEN = Bulk(t.open_operations)
_ADD_TOTALS = Bulk(t.session_totals, _add_up)


@dataclass(slots=True)
class _Head:
    """Where a session's chain stands within the batch; `closed_us` None: there is no such session yet."""

    seq: int
    hash: bytes
    closed_us: int | None
    at_us: int = 0


@dataclass(slots=True)
class Batch:
    """The commits of one transaction. What most of them ask for is read once for all, what they add written at the end.

    `holds_feed`: the head of the permission feed is held from the beginning, or nobody else writes; otherwise it is
    taken last, and `flush` may find the batch overtaken. `changes` are there after `flush`.
    """

    tx: Tx
    holds_feed: bool = True
    changes: Sequence[Change] = ()
    _heads: dict[str, _Head] = field(default_factory=dict[str, _Head])
    _events: list[Parameters] = field(default_factory=list[Parameters])
    _payloads: list[Parameters] = field(default_factory=list[Parameters])
    _totals: dict[tuple[Any, ...], dict[str, Any]] = field(
        default_factory=dict[tuple[Any, ...], dict[str, Any]]
    )
    _open: set[str] = field(default_factory=set[str])
    _opened: dict[str, Parameters] = field(default_factory=dict[str, Parameters])
    _closed: list[str] = field(default_factory=list[str])
    _feed: BatchFeed = field(init=False)
    _claims: BatchClaims = field(init=False)

    def __post_init__(self) -> None:
        self._feed = BatchFeed(self.tx, is_held=self.holds_feed)
        self._claims = BatchClaims(self.tx)

    def prepare(self, commits: Sequence[Commit]) -> None:
        """Read what these commits will ask for: where sessions stand, which operations are open, and the like."""
        self.tx.hold(commits, feed=self.holds_feed)
        self._claims.prepare(commits)
        self._feed.prepare(commits)
        sessions: set[str] = set()
        operations: set[str] = set()
        for commit in commits:
            sessions.update(fact.session_id for fact in commit.facts)
            for condition in commit.conditions:
                match condition:
                    case SessionIsOpen(session_id) | ChainEndsAt(session_id=session_id):
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
        self._feed.accept(commit)
        sealed = [self._seal(fact) for fact in commit.facts]
        for record in commit.records:
            self._write(record, sealed)
        return sealed

    def flush(self) -> None:
        """Write what was numbered; the transaction can be committed then.

        Raises:
            Overtaken: It must be rolled back; a batch that holds the feed is never overtaken.
        """
        tx = self.tx
        self._claims.settle()
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
        tx.settle()
        self.changes = self._feed.settle()

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
            case ChainEndsAt():
                head = self._head(condition.session_id)
                return head.seq, head.hash
            case OperationIsOpen(event_id):
                return event_id in self._open
            case Fence() | AccountStands():
                return self._feed.newest(condition)
            case Claim():
                return self._claims.live(condition)
            case SessionIsIdle():
                self._flush_open()
            case _:
                pass
        return CONDITIONS[type(condition)](self.tx, condition)

    def _write(self, record: Record, sealed: Sequence[Sealed]) -> None:
        match record:
            case OpenOperation():
                self._opened[record.event_id] = open_row(record, sealed[-1])
                self._open.add(record.event_id)
            case CloseOperation(event_id):
                self._open.discard(event_id)
                if self._opened.pop(event_id, None) is None:
                    self._closed.append(event_id)
            case AskToStop():
                self._flush_open()
                self.tx.run(_ASK_TO_STOP, event_id=record.event_id, reason=record.reason)
            case PermissionChanged():
                self._feed.add(record)
            case Claim():
                self._claims.put(record)
            case ReleaseClaim():
                self._claims.release(record)
            case AdoptFacts():
                self._adopt(record)
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
        self._add_fact(fact, seq, at_us, header, hash_)
        self._add_payload(fact, seq)
        return Sealed(fact, seq, hash_)

    def _adopt(self, record: AdoptFacts) -> None:
        head = self._head(record.session_id)
        for adopted in record.facts:
            fact, at_us = adopted.fact, adopted.fact.at_us
            head.seq, head.hash, head.at_us = adopted.seq, adopted.hash, max(at_us, head.at_us)
            self._add_fact(fact, adopted.seq, at_us, adopted.header, adopted.hash)
            if not adopted.is_erased:
                self._add_payload(fact, adopted.seq)

    def _add_fact(self, fact: Fact, seq: int, at_us: int, header: bytes, hash_: bytes) -> None:
        self._events.append(event_row(fact, seq, at_us, header, hash_))
        if fact.kind in TERMINAL and fact.operation_type is not None:
            self._add_total(total_row(fact))

    def _add_payload(self, fact: Fact, seq: int) -> None:
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


def _json(ids: Iterable[str]) -> str:
    return json.dumps(list(ids))
