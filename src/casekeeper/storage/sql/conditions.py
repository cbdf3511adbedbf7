"""What each condition looks up in SQL, by type."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select

from casekeeper.casefiles import casefile as cf
from casekeeper.clock import from_us, to_us
from casekeeper.identity import accounts as acc
from casekeeper.identity import credentials as cred
from casekeeper.journal import commits
from casekeeper.sessions import adoption as ado
from casekeeper.sessions import session as ses
from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.blobs import BLOB_CONDITIONS
from casekeeper.storage.sql.statements import Static, Tx

_SESSION_OPEN_OPERATIONS = Static(
    select(t.open_operations.c.event_id).where(t.open_operations.c.session_id == bindparam("session_id"))
)
_AUTO = Static(
    select(t.sessions.c.session_id).where(
        t.sessions.c.user_id == bindparam("user_id"),
        t.sessions.c.casefile_id == bindparam("casefile_id"),
        t.sessions.c.auto == 1,
        t.sessions.c.closed_us.is_(None),
        t.sessions.c.last_us >= bindparam("since"),
    )
)
_STATUS = Static(
    select(t.casefiles.c.status).where(
        t.casefiles.c.casefile_id == bindparam("casefile_id"), t.casefiles.c.deleted_us.is_(None)
    )
)
_VERSION = Static(
    select(t.casefiles.c.version).where(
        t.casefiles.c.casefile_id == bindparam("casefile_id"), t.casefiles.c.deleted_us.is_(None)
    )
)
_CASEFILE_ID = Static(
    select(t.casefiles.c.casefile_id).where(t.casefiles.c.casefile_id == bindparam("casefile_id"))
)
_SESSION_ID = Static(
    select(t.sessions.c.session_id).where(t.sessions.c.session_id == bindparam("session_id"))
)
_SESSION_CASEFILE = Static(
    select(t.sessions.c.casefile_id).where(t.sessions.c.session_id == bindparam("session_id"))
)
_GRANT_END = Static(
    select(t.grants.c.expires_us).where(
        t.grants.c.user_id == bindparam("user_id"), t.grants.c.casefile_id == bindparam("casefile_id")
    )
)
_ACCOUNT_ID = Static(select(t.accounts.c.user_id).where(t.accounts.c.user_id == bindparam("user_id")))
_REFRESH = Static(select(t.refresh_tokens.c.digest).where(t.refresh_tokens.c.digest == bindparam("digest")))


def _first(row: tuple[Any, ...] | None) -> Any:
    return row[0] if row else None


def _ids_taken(tx: Tx, c: cf.CasefileIdIsFree) -> bool:
    return bool(
        tx.one(_CASEFILE_ID, casefile_id=c.casefile_id) or tx.one(_SESSION_ID, session_id=c.session_id)
    )


def _grant_end(tx: Tx, c: cf.GrantEndsAt) -> datetime | None:
    row = tx.one(_GRANT_END, user_id=c.user_id, casefile_id=c.casefile_id)
    return from_us(row[0]) if row and row[0] is not None else None


CONDITIONS: dict[type[commits.Condition], Callable[[Tx, Any], Any]] = {
    ses.SessionIsIdle: lambda tx, c: [
        r[0] for r in tx.all(_SESSION_OPEN_OPERATIONS, session_id=c.session_id)
    ],
    ses.SessionIdIsFree: lambda tx, c: tx.one(_SESSION_ID, session_id=c.session_id),
    ses.AutoSessionIsAbsent: lambda tx, c: tx.one(
        _AUTO, user_id=c.user_id, casefile_id=c.casefile_id, since=to_us(c.active_since)
    ),
    cf.CasefileIsActive: lambda tx, c: _first(tx.one(_STATUS, casefile_id=c.casefile_id)),
    cf.CasefileIsAt: lambda tx, c: _first(tx.one(_VERSION, casefile_id=c.casefile_id)),
    cf.CasefileIdIsFree: _ids_taken,
    cf.CasefileIsAbsent: lambda tx, c: tx.one(_CASEFILE_ID, casefile_id=c.casefile_id),
    ado.SessionIdIsFreeIn: lambda tx, c: _first(tx.one(_SESSION_CASEFILE, session_id=c.session_id)),
    cf.GrantEndsAt: _grant_end,
    acc.AccountAbsent: lambda tx, c: tx.one(_ACCOUNT_ID, user_id=c.user_id),
    cred.FamilyLives: lambda tx, c: tx.one(_REFRESH, digest=c.digest),
    **BLOB_CONDITIONS,
}
"""What a condition's `refusal` is given, found inside the transaction."""
