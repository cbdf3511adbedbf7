"""The tail in SQL: facts in the order of `rid`, as far as they are final.

On SQLite there is one writer, and a visible fact is final. On PostgreSQL a `rid` begins with the number of its
transaction (`schema.postgres_place`), and facts before the oldest running transaction are final.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, bindparam, exists, func, select, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from casekeeper.errors import PositionInvalid, PositionOfAnotherEpoch
from casekeeper.journal.events import Kind, StoredFact
from casekeeper.journal.tail import CasefilesWithNews, Position, TailFact
from casekeeper.storage.sql.facts import EVENTS, HEADER, Names, facts
from casekeeper.storage.sql.feed import ACL_HEAD
from casekeeper.storage.sql.statements import Reads, Row, Static, Tx

_e = EVENTS.c
_BEYOND_ALL = 2**63 - 1
# A decimal number that fits into 63 bits.
_DIGITS_MAX = 18


class _Final(ColumnElement[int]):
    """The first `rid` that is not final.

    Transactions of other databases of a PostgreSQL server count as running, too, unless `here`: then they are told
    apart, which takes some milliseconds because all locks of the server are listed.
    """

    type = BigInteger()
    inherit_cache = False

    def __init__(self, *, here: bool) -> None:
        self.oldest = _OLDEST_HERE if here else _OLDEST


@compiles(_Final)
def _final(element: _Final, compiler: SQLCompiler, **more: Any) -> str:
    return str(_BEYOND_ALL)


@compiles(_Final, "postgresql")
def _final_postgres(element: _Final, compiler: SQLCompiler, **more: Any) -> str:
    return f"event_place({element.oldest}, 0)"


_OLDEST = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
# Transactions known to belong to another database are left out; a transaction has its number a moment before pg_locks
# shows it, so the opposite would miss some. The snapshot is the one by which the facts are read.
_OLDEST_HERE = """coalesce((SELECT min(running::text::bigint) FROM pg_snapshot_xip(pg_current_snapshot()) AS running
WHERE NOT EXISTS (SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'transactionid' AND transactionid = running::xid AND mode = 'ExclusiveLock' AND granted
AND datid <> (SELECT oid FROM pg_database WHERE datname = current_database()))),
pg_snapshot_xmax(pg_current_snapshot())::text::bigint)"""


class _End(ColumnElement[int]):
    """A `rid` behind which every fact that is not final yet will come."""

    type = BigInteger()
    inherit_cache = False

    def __init__(self, final: _Final) -> None:
        self.final = final


@compiles(_End)
def _end(element: _End, compiler: SQLCompiler, **more: Any) -> str:
    return "(SELECT coalesce(max(rid), 0) FROM events)"


@compiles(_End, "postgresql")
def _end_postgres(element: _End, compiler: SQLCompiler, **more: Any) -> str:
    return f"{compiler.process(element.final, **more)} - 1"


class _LongAgo(ColumnElement[int]):
    """Two seconds ago: a fact older than that has been held back for too long."""

    type = BigInteger()
    inherit_cache = True


@compiles(_LongAgo)
def _long_ago(element: _LongAgo, compiler: SQLCompiler, **more: Any) -> str:
    return "0"


@compiles(_LongAgo, "postgresql")
def _long_ago_postgres(element: _LongAgo, compiler: SQLCompiler, **more: Any) -> str:
    return "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 2000000"


def _page(columns: Any, final: _Final) -> Static:
    """In one statement: the epoch, whether a fact has been held back for too long, and a page; at least one row."""
    here = _e.casefile_id == bindparam("casefile_id")
    page = (
        columns.where(here, _e.rid > bindparam("after"), _e.rid < final)
        .order_by(_e.rid)
        .limit(bindparam("n"))
        .subquery("page")
    )
    held = exists().where(here, _e.rid >= final, _e.at_us < _LongAgo())
    asked = select(ACL_HEAD.c.epoch, held, *page.c).select_from(ACL_HEAD.outerjoin(page, true()))
    return Static(asked.order_by(page.c.rid))


def _news(final: _Final) -> Static:
    """Likewise the end of the tail, and casefiles with the number of facts looked at and the last of them."""
    looked_at = (
        select(_e.casefile_id, _e.rid)
        .where(_e.rid > bindparam("after"), _e.rid < final)
        .order_by(_e.rid)
        .limit(bindparam("n"))
        .subquery("looked_at")
    )
    last = func.max(looked_at.c.rid).label("last")
    grouped = select(looked_at.c.casefile_id, func.count().label("facts"), last)
    news = grouped.group_by(looked_at.c.casefile_id).subquery("news")
    held = exists().where(_e.rid >= final, _e.at_us < _LongAgo())
    asked = select(ACL_HEAD.c.epoch, held, _End(final), *news.c)
    return Static(asked.select_from(ACL_HEAD.outerjoin(news, true())))


_FINALS = (_Final(here=False), _Final(here=True))
_NAMED = (_e.rid, _e.event_id, _e.kind)
_PAGES = {
    False: [_page(select(*_NAMED, *HEADER), final) for final in _FINALS],
    True: [_page(facts(*_NAMED), final) for final in _FINALS],
}
_NEWS = [_news(final) for final in _FINALS]
_AT_END = Static(select(ACL_HEAD.c.epoch, _End(_FINALS[0])))
_NO_PAYLOAD = (None, None, None, 0)


class SqlTail:
    """Implements `Tail`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._names = Names(reads)

    async def read(
        self, casefile_id: str, after: Position | None, limit: int, *, payloads: bool = False
    ) -> tuple[Sequence[TailFact], Position]:
        values = {"casefile_id": casefile_id, "after": _rid(after), "n": limit}
        epoch, rows = await self._rows(_PAGES[payloads], after, values)
        if rows[0][0] is None:
            return (), after or Position(epoch, "0")
        names = await self._names.of(row[8] for row in rows)
        found: list[TailFact] = []
        for rid, event_id, kind, session_id, seq, at_us, header, hash_, actor, *given in rows:
            payload: Row = tuple(given) or _NO_PAYLOAD
            fact = StoredFact(session_id, seq, at_us, header, hash_, names.get(actor), *payload)
            found.append(TailFact(Position(epoch, str(rid)), event_id, Kind(kind), fact))
        return found, found[-1].position

    async def end(self, casefile_id: str) -> Position:
        [(epoch, rid)] = await self._reads.point(lambda tx: tx.all(_AT_END))
        return Position(epoch, str(rid))

    async def casefiles_with_news(self, after: Position, facts: int = 1_000) -> CasefilesWithNews:
        epoch, rows = await self._rows(_NEWS, after, {"after": _rid(after), "n": facts})
        known = [row for row in rows if row[1] is not None]
        is_all = sum(row[2] for row in known) < facts
        reached = rows[0][0] if is_all else max(row[3] for row in known)
        position = Position(epoch, str(max(reached, _rid(after))))
        return CasefilesWithNews({row[1] for row in known}, position, is_all)

    async def _rows(
        self, statements: Sequence[Static], after: Position | None, values: dict[str, Any]
    ) -> tuple[str, list[Row]]:
        """The epoch and the rest of the rows, read once more if other databases have held something back for too long."""
        rows: list[Row] = []
        for statement in statements:
            rows = await self._reads.point(partial(_all, statement=statement, values=values))
            if not rows[0][1]:
                break
        epoch = rows[0][0]
        if after is not None and after.epoch != epoch:
            raise PositionOfAnotherEpoch
        if _rid(after) == _BEYOND_ALL:
            raise PositionInvalid
        return epoch, [row[2:] for row in rows]


def _all(tx: Tx, statement: Static, values: dict[str, Any]) -> list[Row]:
    return tx.all(statement, **values)


def _rid(position: Position | None) -> int:
    if position is None:
        return 0
    place = position.place
    return int(place) if place.isdecimal() and len(place) <= _DIGITS_MAX else _BEYOND_ALL
