"""Sessions, read from SQL, and the one predicate that says which sessions a user sees."""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Select, and_, bindparam, case, func, or_, select, tuple_, types

from casekeeper.acl import Role
from casekeeper.clock import from_us, to_us
from casekeeper.sessions.session import Head, SessionFilter, SessionType, Total, UnifiedSession, Visibility
from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.casefiles import is_live
from casekeeper.storage.sql.statements import Place, Reads, Row, Static

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


def seen_by(query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """Restricts a query over sessions to those that the user `:me` may see at `:now`.

    Same rule as `sessions.manager`: own ones, shared ones, and for admins all; the record session for admins.
    """
    supervises = or_(t.grants.c.role == Role.ADMIN.value, t.grants.c.role == Role.OWNER.value)
    is_record = t.sessions.c.session_type == SessionType.RECORD.value
    shared = t.sessions.c.visibility == Visibility.CASEFILE.value
    own = t.sessions.c.user_id == bindparam("me", None, types.Text())
    mine = (t.grants.c.casefile_id == t.sessions.c.casefile_id) & (
        t.grants.c.user_id == bindparam("me", None, types.Text())
    )
    return (
        query.join(t.casefiles, t.casefiles.c.casefile_id == t.sessions.c.casefile_id)
        .join(t.grants, mine)
        .where(
            is_live, t.casefiles.c.deleted_us.is_(None), or_(supervises, and_(~is_record, or_(own, shared)))
        )
    )


def sessions_values(wanted: SessionFilter, before: tuple[int, str] | None) -> dict[str, Any]:
    """The values of a list's filters, by the names of their parameters; only those that restrict."""
    values: dict[str, Any] = {
        "casefile_id": wanted.casefile_id,
        "user_id": wanted.user_id,
        "active": None if wanted.active is None else int(wanted.active),
        "session_type": wanted.session_type,
        "created_after": wanted.created_after and to_us(wanted.created_after),
        "created_before": wanted.created_before and to_us(wanted.created_before),
        "text": wanted.text and wanted.text.lower(),
    }
    if before is not None:
        values["before_us"], values["before_id"] = before
    return {name: value for name, value in values.items() if value is not None}


@cache
def _listing(names: frozenset[str]) -> Static:
    """The list's statement for these parameters; there are few combinations, and compiling is dear."""
    s = t.sessions.c
    restrictions = {
        "casefile_id": s.casefile_id == bindparam("casefile_id"),
        "user_id": s.user_id == bindparam("user_id"),
        "active": case((s.closed_us.is_(None), 1), else_=0) == bindparam("active"),
        "session_type": s.session_type == bindparam("session_type"),
        "created_after": s.created_us >= bindparam("created_after"),
        "created_before": s.created_us < bindparam("created_before"),
        "text": Place(func.lower(s.title), bindparam("text")) > 0,
        "before_us": tuple_(s.created_us, s.session_id)
        < tuple_(bindparam("before_us"), bindparam("before_id")),
    }
    query = seen_by(select(t.sessions)).where(
        s.session_type != SessionType.RECORD.value,
        *(restrictions[n] for n in sorted(names & restrictions.keys())),
    )
    return Static(query.order_by(s.created_us.desc(), s.session_id.desc()).limit(bindparam("n")))


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
        values = sessions_values(wanted, before) | {"me": user_id, "now": to_us(now), "n": limit}
        rows = await self._reads.scan(lambda tx: tx.all(_listing(frozenset(values)), **values))
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
