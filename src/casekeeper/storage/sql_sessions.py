"""Sessions, read from SQL, and the one predicate that says which sessions a user sees."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, or_, select, tuple_

from casekeeper.clock import from_us, to_us
from casekeeper.sessions.session import Head, SessionFilter, SessionType, Total, UnifiedSession, Visibility
from casekeeper.storage import sql_schema as t
from casekeeper.storage.sql_casefiles import is_live
from casekeeper.storage.sql_statements import Row, Static
from casekeeper.storage.sqlite import Reads

_SESSION = Static(
    select(t.sessions)
    .join(t.casefiles, t.casefiles.c.casefile_id == t.sessions.c.casefile_id)
    .where(t.sessions.c.session_id == bindparam("session_id"), t.casefiles.c.deleted_us.is_(None))
)
_AUTO = Static(
    select(t.sessions)
    .where(
        t.sessions.c.user_id == bindparam("user_id"),
        t.sessions.c.casefile_id == bindparam("casefile_id"),
        t.sessions.c.auto == 1,
        t.sessions.c.closed_us.is_(None),
        t.sessions.c.last_us >= bindparam("since"),
    )
    .order_by(t.sessions.c.last_us.desc())
    .limit(1)
)
_totals = t.session_totals.c
_TOTALS = Static(
    select(
        _totals.operation_type,
        _totals.operation_name,
        _totals.kind,
        _totals["count"],
        _totals.busy_ms,
        _totals.tokens,
        _totals.cost_micros,
    ).where(_totals.session_id == bindparam("session_id"))
)


def seen_by(query: Select[*tuple[Any, ...]], user_id: str, now: datetime) -> Select[*tuple[Any, ...]]:
    """Restricts a query over sessions to those that the user may see now.

    Same rule as `sessions.manager`: own ones, shared ones, and for admins all; the record session for admins.
    """
    supervises = t.grants.c.role.in_(("admin", "owner"))
    is_record = t.sessions.c.session_type == SessionType.RECORD.value
    visible: ColumnElement[bool] = or_(
        supervises,
        and_(
            ~is_record,
            or_(t.sessions.c.user_id == user_id, t.sessions.c.visibility == Visibility.CASEFILE.value),
        ),
    )
    return (
        query.join(t.casefiles, t.casefiles.c.casefile_id == t.sessions.c.casefile_id)
        .join(
            t.grants, and_(t.grants.c.casefile_id == t.sessions.c.casefile_id, t.grants.c.user_id == user_id)
        )
        .where(is_live(now), t.casefiles.c.deleted_us.is_(None), visible)
    )


class SqlSessions:
    """Implements `SessionStore`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def session(self, session_id: str) -> UnifiedSession | None:
        row = await self._reads.point(lambda tx: tx.one(_SESSION, session_id=session_id))
        return _session(row) if row else None

    async def auto_session(
        self, user_id: str, casefile_id: str, active_since: datetime
    ) -> UnifiedSession | None:
        since = to_us(active_since)
        row = await self._reads.point(
            lambda tx: tx.one(_AUTO, user_id=user_id, casefile_id=casefile_id, since=since)
        )
        return _session(row) if row else None

    async def sessions_seen_by(
        self, user_id: str, now: datetime, wanted: SessionFilter, before: tuple[int, str] | None, limit: int
    ) -> Sequence[UnifiedSession]:
        s = t.sessions.c
        query = seen_by(select(t.sessions), user_id, now).where(s.session_type != SessionType.RECORD.value)
        query = query.order_by(s.created_us.desc(), s.session_id.desc()).limit(limit)
        if wanted.casefile_id:
            query = query.where(s.casefile_id == wanted.casefile_id)
        if wanted.user_id:
            query = query.where(s.user_id == wanted.user_id)
        if wanted.active is not None:
            query = query.where(s.closed_us.is_(None) if wanted.active else s.closed_us.is_not(None))
        if wanted.session_type:
            query = query.where(s.session_type == wanted.session_type)
        if wanted.created_after:
            query = query.where(s.created_us >= to_us(wanted.created_after))
        if wanted.created_before:
            query = query.where(s.created_us < to_us(wanted.created_before))
        if wanted.text:
            query = query.where(func.lower(s.title).contains(wanted.text.lower(), autoescape=True))
        if before is not None:
            query = query.where(tuple_(s.created_us, s.session_id) < before)
        rows = await self._reads.scan(lambda tx: tx.select(query))
        return [_session(row) for row in rows]

    async def totals(self, session_id: str) -> Sequence[Total]:
        rows = await self._reads.point(lambda tx: tx.all(_TOTALS, session_id=session_id))
        return [Total(*row) for row in rows]


def _session(row: Row) -> UnifiedSession:
    (
        session_id,
        casefile_id,
        user_id,
        session_type,
        visibility,
        title,
        auto,
        metadata,
        created_us,
        last_us,
        closed_us,
        head_seq,
        head_hash,
    ) = row
    return UnifiedSession(
        session_id=session_id,
        casefile_id=casefile_id,
        user_id=user_id,
        session_type=SessionType(session_type),
        visibility=Visibility(visibility),
        title=title,
        auto=bool(auto),
        active=closed_us is None,
        created_at=from_us(created_us),
        last_activity_at=from_us(last_us),
        closed_at=None if closed_us is None else from_us(closed_us),
        head=Head(head_seq, head_hash.hex()) if head_seq else None,
        metadata=json.loads(metadata),
    )
