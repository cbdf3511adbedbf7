"""The record, read from SQL."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, literal_column, or_, select, tuple_, types

from casekeeper.clock import to_us
from casekeeper.journal.events import TERMINAL, StoredFact
from casekeeper.sessions.reading import EventFilter, EventPage, QueryEvents
from casekeeper.storage.sql.accounts import ACCOUNTS
from casekeeper.storage.sql.expressions import BodyText, IsInJson
from casekeeper.storage.sql.facts import EVENTS, PAYLOADS, Names, asked, facts
from casekeeper.storage.sql.operations import SqlOperations
from casekeeper.storage.sql.sessions import CONVERSATIONS, SESSIONS, seen_by
from casekeeper.storage.sql.statements import Reads, Row, Static, Tx

_e, _p, _s = EVENTS.c, PAYLOADS.c, SESSIONS.c
_TERMINAL = sorted(kind.value for kind in TERMINAL)


def _constant(value: str) -> ColumnElement[str]:
    """A constant of ours in the statement's text, so that the statement stays static."""
    return literal_column(f"'{value}'", types.Text())


def _page(view: str, order: str) -> Static:
    query = facts().where(_e.session_id == bindparam("session_id")).limit(bindparam("n"))
    if view == "operations":
        query = query.where(_e.kind.in_([_constant(kind) for kind in _TERMINAL]))
    if order == "asc":
        query = query.where(_e.seq > bindparam("beyond")).order_by(_e.seq)
    else:
        query = query.where(_e.seq < bindparam("beyond")).order_by(_e.seq.desc())
    return Static(query)


_PAGES = {
    (view, order): _page(view, order) for view in ("operations", "journal") for order in ("asc", "desc")
}
_OPERATION = Static(facts().where(_e.event_id == bindparam("event_id")).order_by(_e.seq))
_HEADS = Static(select(_s.session_id, _s.head_seq).where(IsInJson(_s.session_id, "session_ids")))
_CHILDREN = Static(facts().where(_e.parent_event_id == bindparam("event_id")).order_by(_e.seq))
_RECORD = Static(
    select(_e.seq, _e.header, _e.hash, _e.commitment, _p.salt, _p.body, _p.blob)
    .select_from(EVENTS)
    .outerjoin(PAYLOADS, (_p.session_id == _e.session_id) & (_p.seq == _e.seq))
    .where(_e.session_id == bindparam("session_id"), _e.seq > bindparam("after"))
    .order_by(_e.seq)
    .limit(bindparam("n"))
)
_CONVERSATION = Static(
    select(CONVERSATIONS.c.blob).where(CONVERSATIONS.c.session_id == bindparam("session_id"))
)


class SqlEvents(SqlOperations):
    """Implements `Events`."""

    def __init__(self, reads: Reads) -> None:
        super().__init__(reads)
        self._names = Names(reads)

    async def facts(
        self, session_id: str, wanted: EventPage, beyond: int | None, limit: int
    ) -> Sequence[StoredFact]:
        if beyond is None:
            beyond = 0 if wanted.order == "asc" else 2**62
        if not wanted.restricts:
            page = _PAGES[wanted.view, wanted.order]
            values = {"session_id": session_id, "beyond": beyond, "n": limit}
            return await self._named(await self._reads.point(lambda tx: tx.all(page, **values)))
        query = facts().where(_e.session_id == session_id, *_filters(wanted)).limit(limit)
        if wanted.order == "asc":
            query = query.where(_e.seq > beyond).order_by(_e.seq)
        else:
            query = query.where(_e.seq < beyond).order_by(_e.seq.desc())
        return await self._named(await self._reads.scan(lambda tx: tx.select(query)))

    async def facts_seen_by(
        self,
        user_id: str,
        now: datetime,
        wanted: QueryEvents,
        beyond: tuple[int, str, int] | None,
        limit: int,
    ) -> Sequence[StoredFact]:
        query = facts().join(SESSIONS, _s.session_id == _e.session_id)
        query = seen_by(query).where(*_filters(wanted)).limit(limit)
        if wanted.event_ids:
            query = query.where(_e.event_id.in_(wanted.event_ids))
        if wanted.casefile_id:
            query = query.where(_e.casefile_id == wanted.casefile_id)
        if wanted.session_ids:
            query = query.where(_e.session_id.in_(wanted.session_ids))
        place = tuple_(_e.at_us, _e.session_id, _e.seq)
        if wanted.order == "asc":
            query = query.order_by(_e.at_us, _e.session_id, _e.seq)
            query = query.where(place > beyond) if beyond else query
        else:
            query = query.order_by(_e.at_us.desc(), _e.session_id.desc(), _e.seq.desc())
            query = query.where(place < beyond) if beyond else query
        values = {"me": user_id, "now": to_us(now)}
        return await self._named(await self._reads.scan(lambda tx: tx.select(query, values)))

    async def heads(self, session_ids: Collection[str]) -> Mapping[str, int]:
        ids = json.dumps(list(session_ids))
        rows = await self._reads.point(lambda tx: tx.all(_HEADS, session_ids=ids))
        return {row[0]: row[1] for row in rows}

    async def operation(self, event_id: str) -> Sequence[StoredFact]:
        # One read whatever is found: its reader has not been let in yet, and must not tell by the time what is there.
        def read(tx: Tx) -> list[StoredFact]:
            rows = tx.all(_OPERATION, event_id=event_id)
            return _stored(rows, self._names.within(tx, (row[5] for row in rows)))

        return await self._reads.point(read)

    async def children(self, event_id: str) -> Sequence[StoredFact]:
        return await self._named(await self._reads.point(lambda tx: tx.all(_CHILDREN, event_id=event_id)))

    async def record(self, session_id: str, after: int, limit: int) -> Sequence[Row]:
        """Raw record rows (seq, header, hash, commitment, salt, body, blob) behind a seq, for verification."""
        return await self._reads.scan(lambda tx: tx.all(_RECORD, session_id=session_id, after=after, n=limit))

    async def conversation(self, session_id: str) -> str | None:
        """The blob of the session's newest conversation snapshot."""
        row = await self._reads.point(lambda tx: tx.one(_CONVERSATION, session_id=session_id))
        return row[0] if row else None

    async def _named(self, rows: Sequence[Row]) -> list[StoredFact]:
        # A read of its own: on PostgreSQL one statement by itself is spared a transaction.
        return _stored(rows, await self._names.of(row[5] for row in rows))


def _stored(rows: Sequence[Row], names: Mapping[str, str]) -> list[StoredFact]:
    return [
        StoredFact(session_id, seq, at_us, header, hash_, names.get(actor), *payload)
        for session_id, seq, at_us, header, hash_, actor, *payload in rows
    ]


def _filters(wanted: EventFilter) -> Iterator[Any]:
    kinds = [kind.value for kind in wanted.kinds]
    if isinstance(wanted, EventPage) and wanted.view == "operations":
        kinds = [kind for kind in kinds or _TERMINAL if kind in _TERMINAL]
        yield _e.kind.in_(kinds)
    elif kinds:
        yield _e.kind.in_(kinds)
    if wanted.operation_type:
        yield _e.operation_type == wanted.operation_type
    if wanted.operation_name:
        yield _e.operation_name == wanted.operation_name
    if wanted.actor:
        yield _e.actor == (
            select(ACCOUNTS.c.pseudonym).where(ACCOUNTS.c.user_id == wanted.actor).scalar_subquery()
        )
    if wanted.parent_event_id:
        yield _e.parent_event_id == wanted.parent_event_id
    if wanted.request_id:
        yield _e.request_id == wanted.request_id
    if wanted.after:
        yield _e.at_us >= to_us(wanted.after)
    if wanted.before:
        yield _e.at_us < to_us(wanted.before)
    if wanted.text:
        bodies = (BodyText(_p.body), BodyText(asked.c.body))
        yield or_(*(body.icontains(wanted.text, autoescape=True) for body in bodies))
