"""Casefiles and grants, read from SQL."""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import bindparam, exists, func, or_, select, tuple_, types

from casekeeper.acl import Grant, Role
from casekeeper.acl_feed import ANY
from casekeeper.casefiles.casefile import Casefile, PublicRole, Status, StoredAccess
from casekeeper.clock import from_us, to_us
from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.statements import Reads, Row, Static

_casefile = [c for c in t.casefiles.c if c.name not in ("deleted_us", "erased_us")]
_grant_columns = [c for c in t.grants.c if c.name != "created_us"]

_CASEFILE = Static(
    select(*_casefile).where(
        t.casefiles.c.casefile_id == bindparam("casefile_id"), t.casefiles.c.deleted_us.is_(None)
    )
)
_user_changed = (
    select(func.coalesce(func.max(t.acl_feed.c.number), 0))
    .where(t.acl_feed.c.user_id == bindparam("user_id"), t.acl_feed.c.casefile_id == ANY)
    .scalar_subquery()
)
# A deactivated account has no grant, whatever its rows say.
_ACCESS = Static(
    select(
        t.casefiles.c.public_role,
        t.casefiles.c.tags,
        t.acl_head.c.number,
        _user_changed,
        *_grant_columns,
    )
    .select_from(t.casefiles)
    .join(t.acl_head, t.acl_head.c.id == 1)
    .join(t.accounts, t.accounts.c.user_id == bindparam("user_id"))
    .outerjoin(
        t.grants,
        (t.grants.c.casefile_id == t.casefiles.c.casefile_id) & (t.grants.c.user_id == t.accounts.c.user_id),
    )
    .where(
        t.casefiles.c.casefile_id == bindparam("casefile_id"),
        t.casefiles.c.deleted_us.is_(None),
        t.accounts.c.is_active == 1,
    )
)
_GRANT = Static(
    select(*_grant_columns).where(
        t.grants.c.casefile_id == bindparam("casefile_id"), t.grants.c.user_id == bindparam("user_id")
    )
)
_GRANTS = Static(
    select(*_grant_columns)
    .where(t.grants.c.casefile_id == bindparam("casefile_id"), t.grants.c.user_id > bindparam("after"))
    .order_by(t.grants.c.user_id)
    .limit(bindparam("n"))
)
_EXPIRED = Static(
    select(*_grant_columns)
    .where(t.grants.c.expires_us <= bindparam("now"))
    .order_by(t.grants.c.expires_us)
    .limit(bindparam("n"))
)
_IDS = Static(
    select(t.casefiles.c.casefile_id)
    .where(t.casefiles.c.casefile_id > bindparam("after"), t.casefiles.c.deleted_us.is_(None))
    .order_by(t.casefiles.c.casefile_id)
    .limit(bindparam("n"))
)
_DELETED = Static(
    select(t.casefiles.c.casefile_id)
    .where(
        t.casefiles.c.deleted_us.is_not(None),
        t.casefiles.c.erased_us.is_(None),
        # What still runs will write its end, and that has to be erased as well.
        ~exists().where(t.open_operations.c.casefile_id == t.casefiles.c.casefile_id),
    )
    .limit(bindparam("n"))
)


is_live = or_(
    t.grants.c.expires_us.is_(None), t.grants.c.expires_us > bindparam("now", None, types.BigInteger())
)
"""The grant counts at the instant `:now`."""


@cache
def _listing(by_status: bool, behind: bool) -> Static:
    c, g = t.casefiles.c, t.grants.c
    # Walks the index of the user's grants from its newest end, and stops when the page is full.
    query = (
        select(*_casefile, g.role)
        .join(t.grants, g.casefile_id == c.casefile_id)
        .where(g.user_id == bindparam("me"), is_live, c.deleted_us.is_(None))
        .order_by(g.created_us.desc(), g.casefile_id.desc())
        .limit(bindparam("n"))
    )
    if by_status:
        query = query.where(c.status == bindparam("status"))
    if behind:
        place = tuple_(bindparam("before_us"), bindparam("before_id"))
        query = query.where(tuple_(g.created_us, g.casefile_id) < place)
    return Static(query)


class SqlCasefiles:
    """Implements `CasefileStore`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def access(self, user_id: str, casefile_id: str) -> StoredAccess | None:
        row = await self._reads.point(lambda tx: tx.one(_ACCESS, user_id=user_id, casefile_id=casefile_id))
        if row is None:
            return None
        public_role, tags, number, user_changed, *grant = row
        kept = _grant(tuple(grant)) if grant[0] else None
        return StoredAccess(kept, PublicRole(public_role), number, user_changed, frozenset(json.loads(tags)))

    async def casefile(self, casefile_id: str) -> Casefile | None:
        row = await self._reads.point(lambda tx: tx.one(_CASEFILE, casefile_id=casefile_id))
        return casefile_of(row) if row else None

    async def casefiles_of(
        self, user_id: str, now: datetime, status: Status | None, before: tuple[int, str] | None, limit: int
    ) -> Sequence[tuple[Casefile, Role]]:
        values: dict[str, Any] = {"me": user_id, "now": to_us(now), "n": limit}
        if status is not None:
            values["status"] = status.value
        if before is not None:
            values["before_us"], values["before_id"] = before
        listing = _listing(status is not None, before is not None)
        rows = await self._reads.scan(lambda tx: tx.all(listing, **values))
        return [(casefile_of(row[:-1]), Role(row[-1])) for row in rows]

    async def grant(self, casefile_id: str, user_id: str) -> Grant | None:
        row = await self._reads.point(lambda tx: tx.one(_GRANT, casefile_id=casefile_id, user_id=user_id))
        return _grant(row) if row else None

    async def grants(self, casefile_id: str, after: str, limit: int) -> Sequence[Grant]:
        rows = await self._reads.scan(
            lambda tx: tx.all(_GRANTS, casefile_id=casefile_id, after=after, n=limit)
        )
        return [_grant(row) for row in rows]

    async def expired_grants(self, now: datetime, limit: int) -> Sequence[Grant]:
        rows = await self._reads.scan(lambda tx: tx.all(_EXPIRED, now=to_us(now), n=limit))
        return [_grant(row) for row in rows]

    async def casefile_ids(self, after: str, limit: int) -> Sequence[str]:
        rows = await self._reads.scan(lambda tx: tx.all(_IDS, after=after, n=limit))
        return [row[0] for row in rows]

    async def deleted_casefiles(self, limit: int) -> Sequence[str]:
        rows = await self._reads.scan(lambda tx: tx.all(_DELETED, n=limit))
        return [row[0] for row in rows]


def casefile_of(row: Row) -> Casefile:
    """The casefile in a row of its columns."""
    (
        casefile_id,
        title,
        description,
        tags,
        status,
        public_role,
        owner,
        version,
        created_us,
        updated_us,
        record_session_id,
    ) = row
    return Casefile(
        casefile_id=casefile_id,
        title=title,
        description=description,
        tags=json.loads(tags),
        status=Status(status),
        public_role=PublicRole(public_role),
        owner=owner,
        version=version,
        created_at=from_us(created_us),
        updated_at=from_us(updated_us),
        record_session_id=record_session_id,
    )


def _grant(row: Row) -> Grant:
    user_id, casefile_id, role, expires_us, granted_by, granted_us, note = row
    return Grant(
        casefile_id=casefile_id,
        user_id=user_id,
        role=Role(role),
        expires_at=None if expires_us is None else from_us(expires_us),
        granted_by=granted_by,
        granted_at=from_us(granted_us),
        note=note,
    )
