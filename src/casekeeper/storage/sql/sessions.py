"""Sessions in SQL, their totals and conversations, and the one predicate that says which sessions a user sees."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    Index,
    Select,
    Table,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    tuple_,
    types,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from casekeeper.acl import Action, roles_for
from casekeeper.casefiles import casefile as cf
from casekeeper.clock import to_us
from casekeeper.sessions import adoption as ado
from casekeeper.sessions import session as ses
from casekeeper.sessions.session import SessionFilter, SessionType, Total, UnifiedSession, Visibility
from casekeeper.storage.rows import SESSION, record_session, session_of, session_row
from casekeeper.storage.sql.casefiles import CASEFILES, GRANTS, is_live
from casekeeper.storage.sql.expressions import TextPosition
from casekeeper.storage.sql.parts import Finds, Writes, first
from casekeeper.storage.sql.schema import binary, integer, metadata, partial_on_sqlite, string
from casekeeper.storage.sql.statements import Reads, Static, Tx, encoded, insert_into, put_into

SESSIONS = Table(
    "sessions",
    metadata,
    string("session_id", key=True),
    string("casefile_id"),
    string("user_id"),
    string("session_type"),
    string("visibility"),
    string("title", null=True),
    integer("auto"),
    string("metadata"),
    integer("created_us"),
    integer("last_us"),
    integer("closed_us", null=True),
    integer("head_seq"),
    binary("head_hash"),
    Index("sessions_casefile", "casefile_id", "created_us", "session_id"),
    partial_on_sqlite("sessions_auto", "auto = 1 AND closed_us IS NULL", "user_id", "casefile_id"),
)

SESSION_TOTALS = Table(
    "session_totals",
    metadata,
    string("session_id", key=True),
    string("operation_type", key=True),
    string("operation_name", key=True),
    string("kind", key=True),
    integer("count"),
    integer("busy_ms"),
    integer("tokens"),
    integer("cost_micros"),
)

CONVERSATIONS = Table(
    "conversations", metadata, string("session_id", key=True), string("event_id"), string("blob")
)

_s, _c = SESSIONS.c, CASEFILES.c
_SESSION_COLUMNS = [_s[name] for name in (*SESSION, "last_us", "head_seq", "head_hash")]
_is_it = _s.session_id == bindparam("session_id")
_is_open_auto = (
    _s.user_id == bindparam("user_id"),
    _s.casefile_id == bindparam("casefile_id"),
    _s.auto == 1,
    _s.closed_us.is_(None),
    _s.last_us >= bindparam("since"),
)
_ADD = insert_into(SESSIONS)
# A second try finds the row of the first, whose head stays where the facts are.
_new = upsert(SESSIONS).values({c.name: bindparam(c.name) for c in _s})
_ADOPT = Static(
    _new.on_conflict_do_update(
        index_elements=["session_id"],
        set_={c: _new.excluded[c] for c in ("title", "visibility", "metadata", "closed_us")},
    )
)
_END = Static(update(SESSIONS).where(_s.session_id == bindparam("id_")).values(closed_us=bindparam("at_us")))
_PUT_CONVERSATION = put_into(CONVERSATIONS, "session_id")
_ID = Static(select(_s.session_id).where(_is_it))
_CASEFILE_OF = Static(select(_s.casefile_id).where(_is_it))
_CASEFILE_ID = Static(select(_c.casefile_id).where(_c.casefile_id == bindparam("casefile_id")))
_AUTO_ID = Static(select(_s.session_id).where(*_is_open_auto))


def _added(tx: Tx, session: UnifiedSession, how: Static) -> None:
    row = encoded(session_row(session))
    tx.run(how, **row, last_us=row["created_us"], head_seq=0, head_hash=b"")


def _auto_id(tx: Tx, c: ses.AutoSessionIsAbsent) -> Any:
    return tx.one(_AUTO_ID, user_id=c.user_id, casefile_id=c.casefile_id, since=to_us(c.active_since))


def _ids_taken(tx: Tx, c: cf.CasefileIdIsFree) -> bool:
    found = tx.one(_CASEFILE_ID, casefile_id=c.casefile_id) or tx.one(_ID, session_id=c.session_id)
    return bool(found)


def _put_conversation(tx: Tx, r: ses.PutConversation) -> None:
    tx.run(_PUT_CONVERSATION, session_id=r.session_id, event_id=r.event_id, blob=r.blob)


FINDS: Finds = {
    cf.CasefileIdIsFree: _ids_taken,
    ses.SessionIdIsFree: lambda tx, c: tx.one(_ID, session_id=c.session_id),
    ses.AutoSessionIsAbsent: _auto_id,
    ado.SessionIdIsFreeIn: lambda tx, c: first(tx.one(_CASEFILE_OF, session_id=c.session_id)),
}
WRITES: Writes = {
    cf.OpenRecordSession: lambda tx, r: _added(tx, record_session(r), _ADD),
    ses.PutSession: lambda tx, r: _added(tx, r.session, _ADD),
    ado.AdoptSession: lambda tx, r: _added(tx, r.session, _ADOPT),
    ses.EndSession: lambda tx, r: tx.run(_END, id_=r.session_id, at_us=to_us(r.at)),
    ses.PutConversation: _put_conversation,
}

_SESSION = Static(
    select(*_SESSION_COLUMNS)
    .join(CASEFILES, _c.casefile_id == _s.casefile_id)
    .where(_is_it, _c.deleted_us.is_(None))
)
_AUTO = Static(select(*_SESSION_COLUMNS).where(*_is_open_auto).order_by(_s.last_us.desc()).limit(1))
_t = SESSION_TOTALS.c
_TOTALS = Static(
    select(*(column for column in _t if column.name != "session_id")).where(
        _t.session_id == bindparam("session_id")
    )
)


def seen_by(query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """Restricts a query over sessions to those that the user `:me` may see at `:now`.

    Same rule as `sessions.manager`: own ones, shared ones, and all for those who supervise; the record session for these.
    """
    supervises = or_(*(GRANTS.c.role == role.value for role in roles_for(Action.SUPERVISE)))
    is_record = _s.session_type == SessionType.RECORD.value
    shared = _s.visibility == Visibility.CASEFILE.value
    own = _s.user_id == bindparam("me", None, types.Text())
    mine = (GRANTS.c.casefile_id == _s.casefile_id) & (
        GRANTS.c.user_id == bindparam("me", None, types.Text())
    )
    return (
        query.join(CASEFILES, _c.casefile_id == _s.casefile_id)
        .join(GRANTS, mine)
        .where(is_live, _c.deleted_us.is_(None), or_(supervises, and_(~is_record, or_(own, shared))))
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
    s = _s
    restrictions = {
        "casefile_id": s.casefile_id == bindparam("casefile_id"),
        "user_id": s.user_id == bindparam("user_id"),
        "active": case((s.closed_us.is_(None), 1), else_=0) == bindparam("active"),
        "session_type": s.session_type == bindparam("session_type"),
        "created_after": s.created_us >= bindparam("created_after"),
        "created_before": s.created_us < bindparam("created_before"),
        "text": TextPosition(func.lower(s.title), bindparam("text")) > 0,
        "before_us": tuple_(s.created_us, s.session_id)
        < tuple_(bindparam("before_us"), bindparam("before_id")),
    }
    query = seen_by(select(*_SESSION_COLUMNS)).where(
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
        return session_of(row) if row else None

    async def auto_session(
        self, user_id: str, casefile_id: str, active_since: datetime
    ) -> UnifiedSession | None:
        since = to_us(active_since)
        row = await self._reads.point(
            lambda tx: tx.one(_AUTO, user_id=user_id, casefile_id=casefile_id, since=since)
        )
        return session_of(row) if row else None

    async def sessions_seen_by(
        self, user_id: str, now: datetime, wanted: SessionFilter, before: tuple[int, str] | None, limit: int
    ) -> Sequence[UnifiedSession]:
        values = sessions_values(wanted, before) | {"me": user_id, "now": to_us(now), "n": limit}
        rows = await self._reads.scan(lambda tx: tx.all(_listing(frozenset(values)), **values))
        return [session_of(row) for row in rows]

    async def totals(self, session_id: str) -> Sequence[Total]:
        rows = await self._reads.point(lambda tx: tx.all(_TOTALS, session_id=session_id))
        return [Total(*row) for row in rows]
