"""Facts as one batch meets them: numbered and chained in memory, written at its end with the heads of their sessions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.sql import ClauseElement

from casekeeper.journal.adoption import AdoptFacts, ChainEndsAt
from casekeeper.journal.chain import canonical, genesis, link
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import TERMINAL, Fact, Sealed
from casekeeper.sessions.session import SessionIsOpen
from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.many import BulkUpdate, ByIds
from casekeeper.storage.sql.rows import event_row, total_row
from casekeeper.storage.sql.statements import Bulk, Parameters, Question, Row, Writing

_s = t.sessions.c
_HEADS = ByIds(
    select(_s.session_id, _s.head_seq, _s.head_hash, func.coalesce(_s.closed_us, 0)), _s.session_id
)
_SET_HEADS = BulkUpdate(t.sessions, "session_id", "head_seq", "head_hash", "last_us")

_TOTAL_KEYS = ("session_id", "operation_type", "operation_name", "kind")
_SUMS = ("count", "busy_ms", "tokens", "cost_micros")


def _add_up(new: Insert) -> ClauseElement:
    summed = {c: t.session_totals.c[c] + new.excluded[c] for c in _SUMS}
    return new.on_conflict_do_update(index_elements=list(_TOTAL_KEYS), set_=summed)


# The tail knows by the transaction's number what is final (`sql.tail`).
_ADD_EVENTS = Bulk(t.events, rid="event_place(pg_current_xact_id()::text::bigint, {n})")
_ADD_PAYLOADS = Bulk(t.payloads)
_ADD_TOTALS = Bulk(t.session_totals, _add_up)


@dataclass(slots=True)
class Head:
    """Where a session's chain stands within the batch; `closed_us` None: there is no such session yet."""

    seq: int
    hash: bytes
    closed_us: int | None
    at_us: int = 0


class BatchFacts:
    """The facts that the commits of one transaction add, and where the chains of their sessions stand."""

    def __init__(self) -> None:
        self._heads: dict[str, Head] = {}
        self._events: list[Parameters] = []
        self._payloads: list[Parameters] = []
        self._totals: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._moved: list[Parameters] = []

    def questions(self, commits: Iterable[Commit]) -> Sequence[Question]:
        """Where the sessions stand that the commits ask for or add to."""
        sessions: set[str] = set()
        for commit in commits:
            sessions.update(fact.session_id for fact in commit.facts)
            for condition in commit.conditions:
                if isinstance(condition, SessionIsOpen | ChainEndsAt):
                    sessions.add(condition.session_id)
        return (_HEADS.question(sessions, self._know),) if sessions else ()

    def _know(self, rows: list[Row]) -> None:
        self._heads = {session_id: Head(*head) for session_id, *head in rows}

    def head(self, session_id: str) -> Head:
        """Where a session stands now."""
        # One that was not there when the batch was prepared begins in it.
        return self._heads.setdefault(session_id, Head(0, b"", None))

    def seal(self, fact: Fact) -> Sealed:
        """Number a fact and link it to the one before it."""
        head = self.head(fact.session_id)
        seq, at_us = head.seq + 1, fact.at_us
        header = canonical(fact.header(seq))
        previous = head.hash if head.seq else genesis(fact.casefile_id, fact.session_id)
        hash_ = link(previous, header, fact.payload.commit)
        head.seq, head.hash, head.at_us = seq, hash_, max(at_us, head.at_us)
        self._add_fact(fact, seq, at_us, header, hash_)
        self._add_payload(fact, seq)
        return Sealed(fact, seq, hash_)

    def adopt(self, record: AdoptFacts) -> None:
        """Take in facts that have their numbers and hashes."""
        head = self.head(record.session_id)
        for adopted in record.facts:
            fact, at_us = adopted.fact, adopted.fact.at_us
            head.seq, head.hash, head.at_us = adopted.seq, adopted.hash, max(at_us, head.at_us)
            self._add_fact(fact, adopted.seq, at_us, adopted.header, adopted.hash)
            if not adopted.is_erased:
                self._add_payload(fact, adopted.seq)

    def changes(self) -> Sequence[Writing]:
        """How they are written; last come the heads."""
        self._moved = [
            {"session_id": session_id, "head_seq": head.seq, "head_hash": head.hash, "last_us": head.at_us}
            for session_id, head in self._heads.items()
            if head.at_us
        ]
        return (
            (_ADD_EVENTS, self._events),
            (_ADD_PAYLOADS, self._payloads),
            (_ADD_TOTALS, list(self._totals.values())),
            (_SET_HEADS, self._moved),
        )

    def check(self, counts: Sequence[int]) -> None:
        """Every head was moved, by what the changes say of how many rows they touched.

        Raises:
            LookupError: There is no such session.
        """
        if self._moved and counts[-1] != len(self._moved):
            raise LookupError("a fact was written for a session that does not exist")

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

    def _add_total(self, row: dict[str, Any]) -> None:
        # A statement may touch a row only once, so what falls on the same one is added up here.
        known = self._totals.setdefault(tuple(row[name] for name in _TOTAL_KEYS), row)
        if known is not row:
            for name in _SUMS:
                known[name] += row[name]
