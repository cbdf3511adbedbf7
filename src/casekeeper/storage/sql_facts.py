"""Facts as one batch meets them: numbered and chained in memory, written at its end with the heads of their sessions."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.sql import ClauseElement

from casekeeper.journal.adoption import AdoptFacts, ChainEndsAt
from casekeeper.journal.chain import canonical, genesis, link
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import TERMINAL, Fact, Sealed
from casekeeper.sessions.session import SessionIsOpen
from casekeeper.storage import sql_schema as t
from casekeeper.storage.sql_rows import event_row, total_row
from casekeeper.storage.sql_statements import Bulk, IsInJson, Parameters, Static, Tx

_HEADS = Static(
    select(
        t.sessions.c.session_id,
        t.sessions.c.head_seq,
        t.sessions.c.head_hash,
        func.coalesce(t.sessions.c.closed_us, 0),
    ).where(IsInJson(t.sessions.c.session_id, "session_ids"))
)
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


_ADD_EVENTS = Bulk(t.events)
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

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._heads: dict[str, Head] = {}
        self._events: list[Parameters] = []
        self._payloads: list[Parameters] = []
        self._totals: dict[tuple[Any, ...], dict[str, Any]] = {}

    def prepare(self, commits: Iterable[Commit]) -> None:
        """Read where the sessions stand that the commits ask for or add to."""
        sessions: set[str] = set()
        for commit in commits:
            sessions.update(fact.session_id for fact in commit.facts)
            for condition in commit.conditions:
                if isinstance(condition, SessionIsOpen | ChainEndsAt):
                    sessions.add(condition.session_id)
        if sessions:
            rows = self._tx.all(_HEADS, session_ids=json.dumps(list(sessions)))
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

    def settle(self) -> None:
        """Write them.

        Raises:
            LookupError: There is no such session.
        """
        if self._events:
            self._tx.bulk(_ADD_EVENTS, self._events)
            self._tx.bulk(_ADD_PAYLOADS, self._payloads)
            rows = [
                {"id_": session_id, "seq": head.seq, "hash": head.hash, "at_us": head.at_us}
                for session_id, head in self._heads.items()
                if head.at_us
            ]
            if self._tx.many(_SET_HEAD, rows) != len(rows):
                raise LookupError("a fact was written for a session that does not exist")
        self._tx.bulk(_ADD_TOTALS, list(self._totals.values()))

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
