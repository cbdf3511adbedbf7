"""Facts in SQL: numbered and chained in memory, written at a batch's end with the heads of their sessions; how they are read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Index, Select, Table, UniqueConstraint, func, select
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.sql import ClauseElement

from casekeeper.clock import to_us
from casekeeper.journal.adoption import AdoptFacts, ChainEndsAt
from casekeeper.journal.chain import canonical, genesis, link
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import TERMINAL, Fact, Sealed
from casekeeper.sessions.session import EndSession, SessionIsOpen
from casekeeper.storage.rows import event_row, payload_row, totals_of
from casekeeper.storage.sql.accounts import ACCOUNTS
from casekeeper.storage.sql.expressions import IsInJson
from casekeeper.storage.sql.parts import FindsHere, Part, TakesHere
from casekeeper.storage.sql.schema import binary, integer, metadata, partial_on_sqlite, row_id, string
from casekeeper.storage.sql.sessions import SESSION_TOTALS, SESSIONS
from casekeeper.storage.sql.statements import (
    Bulk,
    BulkUpdate,
    ByIds,
    Parameters,
    Question,
    Reads,
    Row,
    Static,
    Tx,
    Writing,
)

EVENTS = Table(
    "events",
    metadata,
    row_id(),
    string("session_id"),
    integer("seq"),
    string("casefile_id"),
    string("event_id"),
    string("parent_event_id", null=True),
    string("kind"),
    string("operation_type", null=True),
    string("operation_name", null=True),
    string("actor"),
    string("request_id", null=True),
    integer("at_us"),
    integer("started_seq", null=True),
    binary("header"),
    binary("commitment"),
    binary("hash"),
    CheckConstraint("seq >= 1", name="events_seq"),
    UniqueConstraint("session_id", "seq", name="events_place"),
    Index("events_event", "event_id"),
    partial_on_sqlite("events_parent", "parent_event_id IS NOT NULL", "parent_event_id"),
    Index("events_tail", "casefile_id", "rid"),
    Index("events_time", "casefile_id", "at_us"),
    Index("events_name", "casefile_id", "operation_name", "operation_type", "at_us"),
    Index("events_kind", "casefile_id", "kind", "at_us"),
    Index("events_actor", "actor", "at_us"),
)

PAYLOADS = Table(
    "payloads",
    metadata,
    string("session_id", key=True),
    integer("seq", key=True),
    binary("salt"),
    binary("body", null=True),
    string("blob", null=True),
    integer("size"),
)

_e, _p, _s = EVENTS.c, PAYLOADS.c, SESSIONS.c
_HEADS = ByIds(
    select(_s.session_id, _s.head_seq, _s.head_hash, func.coalesce(_s.closed_us, 0)), _s.session_id
)
_SET_HEADS = BulkUpdate(SESSIONS, "session_id", "head_seq", "head_hash", "last_us")

_TOTAL_KEYS = ("session_id", "operation_type", "operation_name", "kind")
_SUMS = ("count", "busy_ms", "tokens", "cost_micros")


def _add_up(new: Insert) -> ClauseElement:
    summed = {c: SESSION_TOTALS.c[c] + new.excluded[c] for c in _SUMS}
    return new.on_conflict_do_update(index_elements=list(_TOTAL_KEYS), set_=summed)


# The tail knows by the transaction's number what is final (`tail`).
_ADD_EVENTS = Bulk(EVENTS, rid="event_place(pg_current_xact_id()::text::bigint, {n})")
_ADD_PAYLOADS = Bulk(PAYLOADS)
_ADD_TOTALS = Bulk(SESSION_TOTALS, _add_up)


@dataclass(slots=True)
class _ChainHead:
    """Where a session's chain stands within the batch; `closed_us` None: there is no such session yet."""

    seq: int
    hash: bytes
    closed_us: int | None
    at_us: int = 0


class BatchFacts(Part):
    """The facts that the commits of one transaction add, and where the chains of their sessions stand."""

    def __init__(self) -> None:
        self._newest: Sealed | None = None
        self._heads: dict[str, _ChainHead] = {}
        self._events: list[Parameters] = []
        self._payloads: list[Parameters] = []
        self._totals: dict[tuple[str, ...], tuple[int, ...]] = {}
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
        self._heads = {session_id: _ChainHead(*head) for session_id, *head in rows}

    def _head(self, session_id: str) -> _ChainHead:
        # One that was not there when the batch was prepared begins in it.
        return self._heads.setdefault(session_id, _ChainHead(0, b"", None))

    def _closed_us(self, condition: SessionIsOpen) -> int | None:
        return self._head(condition.session_id).closed_us

    def _end(self, condition: ChainEndsAt) -> tuple[int, bytes]:
        head = self._head(condition.session_id)
        return head.seq, head.hash

    def _end_session(self, record: EndSession) -> None:
        self._head(record.session_id).closed_us = to_us(record.at)

    def newest(self) -> Sealed:
        """The fact that was numbered last."""
        assert self._newest is not None, "what begins has a fact that says so"
        return self._newest

    def seal(self, fact: Fact) -> Sealed:
        """Number a fact and link it to the one before it."""
        head = self._head(fact.session_id)
        seq, at_us = head.seq + 1, fact.at_us
        header = canonical(fact.header(seq))
        previous = head.hash if head.seq else genesis(fact.casefile_id, fact.session_id)
        hash_ = link(previous, header, fact.payload.commit)
        head.seq, head.hash, head.at_us = seq, hash_, max(at_us, head.at_us)
        self._add_fact(fact, seq, at_us, header, hash_)
        self._add_payload(fact, seq)
        self._newest = Sealed(fact, seq, hash_)
        return self._newest

    def _adopt(self, record: AdoptFacts) -> None:
        head = self._head(record.session_id)
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
        names: tuple[str, ...] = (*_TOTAL_KEYS, *_SUMS)
        totals: list[Parameters] = [
            dict(zip(names, (*at, *sums), strict=True)) for at, sums in self._totals.items()
        ]
        return (
            (_ADD_EVENTS, self._events),
            (_ADD_PAYLOADS, self._payloads),
            (_ADD_TOTALS, totals),
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
            names, counted = totals_of(fact, fact.operation_type)
            # A statement may touch a row only once, so what falls on the same one is added up here.
            place = (fact.session_id, *names)
            known = self._totals.get(place, (0, 0, 0, 0))
            self._totals[place] = tuple(map(add, known, counted))

    def _add_payload(self, fact: Fact, seq: int) -> None:
        self._payloads.append({"session_id": fact.session_id, "seq": seq, **payload_row(fact.payload)})

    finds: ClassVar[FindsHere] = {SessionIsOpen: _closed_us, ChainEndsAt: _end}
    takes: ClassVar[TakesHere] = {AdoptFacts: _adopt, EndSession: _end_session}


asked = PAYLOADS.alias("asked")
"""The payload of the fact that started what this one ends."""

HEADER = (_e.session_id, _e.seq, _e.at_us, _e.header, _e.hash, _e.actor)
"""A fact without its payload, in the order of `StoredFact`, with the actor's pseudonym in place of the user id."""

_PAYLOAD = (_p.salt, _p.body, _p.blob, func.coalesce(_p.size, 0))
_ASKED = (
    asked.c.body.label("asked_body"),
    asked.c.blob.label("asked_blob"),
    func.coalesce(asked.c.size, 0).label("asked_size"),
)

_NAMES = Static(
    select(ACCOUNTS.c.pseudonym, ACCOUNTS.c.user_id).where(IsInJson(ACCOUNTS.c.pseudonym, "actors"))
)
# Past it the names are read anew, which only costs a look-up a page.
_NAMES_KEPT = 100_000


def facts(*before: Any) -> Select[*tuple[Any, ...]]:
    """Selects other columns and then facts with their payloads, in the order of `StoredFact`."""
    return (
        select(*before, *HEADER, *_PAYLOAD, *_ASKED)
        .select_from(EVENTS)
        .outerjoin(PAYLOADS, (_p.session_id == _e.session_id) & (_p.seq == _e.seq))
        .outerjoin(asked, (asked.c.session_id == _e.session_id) & (asked.c.seq == _e.started_seq))
    )


class Names:
    """The user ids of pseudonyms, which never change."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._known: dict[str, str] = {}

    async def of(self, actors: Iterable[str]) -> Mapping[str, str]:
        """The user ids of these pseudonyms and of others; pseudonyms without an account are missing."""
        wanted = set(actors)
        if wanted <= self._known.keys():
            return self._known
        return await self._reads.point(lambda tx: self.within(tx, wanted))

    def within(self, tx: Tx, actors: Iterable[str]) -> Mapping[str, str]:
        """The same, as part of another read."""
        known, wanted = self._known, set(actors)
        if unknown := wanted - known.keys():
            if len(known) > _NAMES_KEPT:
                known.clear()
                unknown = wanted
            found = tx.all(_NAMES, actors=json.dumps(sorted(unknown)))
            known.update((pseudonym, user_id) for pseudonym, user_id in found)
        return known
