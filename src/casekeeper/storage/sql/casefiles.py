"""Casefiles and grants in SQL."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, ClassVar

from sqlalchemy import (
    CheckConstraint,
    Index,
    Table,
    bindparam,
    delete,
    exists,
    or_,
    select,
    tuple_,
    types,
    update,
)

from casekeeper.acl import Grant, Role
from casekeeper.casefiles import casefile as cf
from casekeeper.casefiles.casefile import Casefile, PublicRole, Status, StoredAccess
from casekeeper.clock import to_us
from casekeeper.journal.commits import Commit
from casekeeper.storage.rows import (
    CASEFILE,
    GRANT,
    casefile_of,
    casefile_row,
    grant_of,
    grant_row,
    instant,
    tags_of,
)
from casekeeper.storage.sql.accounts import ACCOUNTS
from casekeeper.storage.sql.feed import ACL_HEAD, user_changed
from casekeeper.storage.sql.operations import OPEN_OPERATIONS
from casekeeper.storage.sql.parts import Finds, FindsHere, Part, TakesHere, Writes, first
from casekeeper.storage.sql.schema import integer, metadata, partial_on_sqlite, string
from casekeeper.storage.sql.statements import ByIds, Question, Reads, Static, Tx, encoded, put_into

CASEFILES = Table(
    "casefiles",
    metadata,
    string("casefile_id", key=True),
    string("title"),
    string("description"),
    string("tags"),
    string("status"),
    string("public_role"),
    string("owner"),
    integer("version"),
    integer("created_us"),
    integer("updated_us"),
    string("record_session_id"),
    integer("deleted_us", null=True),
    integer("erased_us", null=True),
    partial_on_sqlite("casefiles_to_erase", "deleted_us IS NOT NULL AND erased_us IS NULL", "deleted_us"),
)

GRANTS = Table(
    "grants",
    metadata,
    string("user_id", key=True),
    string("casefile_id", key=True),
    string("role"),
    integer("expires_us", null=True),
    string("granted_by"),
    integer("granted_us"),
    string("note", null=True),
    # The casefile's, by which a user's casefiles are listed.
    integer("created_us", default="0"),
    CheckConstraint("role IN ('viewer', 'editor', 'admin', 'owner')", name="grants_role"),
    Index("grants_casefile", "casefile_id", "user_id"),
    Index("grants_newest", "user_id", "created_us", "casefile_id"),
    partial_on_sqlite("grants_expires", "expires_us IS NOT NULL", "expires_us"),
)

_c, _g = CASEFILES.c, GRANTS.c
_CASEFILE_COLUMNS = [_c[name] for name in CASEFILE]
_GRANT_COLUMNS = [_g[name] for name in GRANT]
_is_it = _c.casefile_id == bindparam("casefile_id")
_is_there = (_is_it, _c.deleted_us.is_(None))
_is_the_grant = (_g.user_id == bindparam("user_id"), _g.casefile_id == bindparam("casefile_id"))

_PUT_CASEFILE = put_into(CASEFILES, "casefile_id", keep=("deleted_us", "erased_us"))
_DELETE_CASEFILE = Static(
    update(CASEFILES).where(_c.casefile_id == bindparam("id_")).values(deleted_us=bindparam("at_us"))
)
_CREATED = Static(select(_c.created_us).where(_is_it))
_PUT_GRANT = put_into(GRANTS, "user_id", "casefile_id")
_REMOVE_GRANT = Static(delete(GRANTS).where(*_is_the_grant))
_STATUSES = ByIds(select(_c.casefile_id, _c.status).where(_c.deleted_us.is_(None)), _c.casefile_id)
_STATUS = Static(select(_c.status).where(*_is_there))
_VERSION = Static(select(_c.version).where(*_is_there))
_ID = Static(select(_c.casefile_id).where(_is_it))
_GRANT_END = Static(select(_g.expires_us).where(*_is_the_grant))


def _put_grant(tx: Tx, r: cf.PutGrant) -> None:
    created_us = first(tx.one(_CREATED, casefile_id=r.grant.casefile_id))
    tx.run(_PUT_GRANT, **grant_row(r.grant, created_us))


def _grant_end(tx: Tx, c: cf.GrantEndsAt) -> datetime | None:
    return instant(first(tx.one(_GRANT_END, user_id=c.user_id, casefile_id=c.casefile_id)))


FINDS: Finds = {
    cf.CasefileIsActive: lambda tx, c: first(tx.one(_STATUS, casefile_id=c.casefile_id)),
    cf.CasefileIsAt: lambda tx, c: first(tx.one(_VERSION, casefile_id=c.casefile_id)),
    cf.CasefileIsAbsent: lambda tx, c: tx.one(_ID, casefile_id=c.casefile_id),
    cf.GrantEndsAt: _grant_end,
}
WRITES: Writes = {
    cf.PutCasefile: lambda tx, r: tx.run(_PUT_CASEFILE, **encoded(casefile_row(r.casefile))),
    cf.DeleteCasefile: lambda tx, r: tx.run(_DELETE_CASEFILE, id_=r.casefile_id, at_us=to_us(r.at)),
    cf.PutGrant: _put_grant,
    cf.RemoveGrant: lambda tx, r: tx.run(_REMOVE_GRANT, user_id=r.user_id, casefile_id=r.casefile_id),
}


class BatchStatuses(Part):
    """The statuses of casefiles that are as they were when the batch was prepared."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        # None where there is no such casefile.
        self._known: dict[str, str | None] = {}

    def questions(self, commits: Iterable[Commit]) -> Sequence[Question]:
        """The statuses that the commits ask for."""
        conditions = (one for commit in commits for one in commit.conditions)
        self._known = {one.casefile_id: None for one in conditions if isinstance(one, cf.CasefileIsActive)}
        return (_STATUSES.question(self._known, self._known.update),) if self._known else ()

    def _find(self, condition: cf.CasefileIsActive) -> str | None:
        if condition.casefile_id in self._known:
            return self._known[condition.casefile_id]
        return FINDS[cf.CasefileIsActive](self._tx, condition)

    def _forget(self, _: object) -> None:
        self._known.clear()

    finds: ClassVar[FindsHere] = {cf.CasefileIsActive: _find}
    takes: ClassVar[TakesHere] = {cf.PutCasefile: _forget, cf.DeleteCasefile: _forget}


# A deactivated account has no grant, whatever its rows say.
_ACCESS = Static(
    select(_c.public_role, _c.tags, ACL_HEAD.c.number, user_changed.scalar_subquery(), *_GRANT_COLUMNS)
    .select_from(CASEFILES)
    .join(ACL_HEAD, ACL_HEAD.c.id == 1)
    .join(ACCOUNTS, ACCOUNTS.c.user_id == bindparam("user_id"))
    .outerjoin(GRANTS, (_g.casefile_id == _c.casefile_id) & (_g.user_id == ACCOUNTS.c.user_id))
    .where(*_is_there, ACCOUNTS.c.is_active == 1)
)
_CASEFILE = Static(select(*_CASEFILE_COLUMNS).where(*_is_there))
_GRANT = Static(select(*_GRANT_COLUMNS).where(*_is_the_grant))
_GRANTS = Static(
    select(*_GRANT_COLUMNS)
    .where(_g.casefile_id == bindparam("casefile_id"), _g.user_id > bindparam("after"))
    .order_by(_g.user_id)
    .limit(bindparam("n"))
)
_EXPIRED = Static(
    select(*_GRANT_COLUMNS)
    .where(_g.expires_us <= bindparam("now"))
    .order_by(_g.expires_us)
    .limit(bindparam("n"))
)
_IDS = Static(
    select(_c.casefile_id)
    .where(_c.casefile_id > bindparam("after"), _c.deleted_us.is_(None))
    .order_by(_c.casefile_id)
    .limit(bindparam("n"))
)
_DELETED = Static(
    select(_c.casefile_id)
    .where(
        _c.deleted_us.is_not(None),
        _c.erased_us.is_(None),
        # What still runs will write its end, and that has to be erased as well.
        ~exists().where(OPEN_OPERATIONS.c.casefile_id == _c.casefile_id),
    )
    .limit(bindparam("n"))
)


is_live = or_(_g.expires_us.is_(None), _g.expires_us > bindparam("now", None, types.BigInteger()))
"""The grant counts at the instant `:now`."""


@cache
def _listing(by_status: bool, behind: bool) -> Static:
    # Walks the index of the user's grants from its newest end, and stops when the page is full.
    query = (
        select(*_CASEFILE_COLUMNS, _g.role)
        .join(GRANTS, _g.casefile_id == _c.casefile_id)
        .where(_g.user_id == bindparam("me"), is_live, _c.deleted_us.is_(None))
        .order_by(_g.created_us.desc(), _g.casefile_id.desc())
        .limit(bindparam("n"))
    )
    if by_status:
        query = query.where(_c.status == bindparam("status"))
    if behind:
        place = tuple_(bindparam("before_us"), bindparam("before_id"))
        query = query.where(tuple_(_g.created_us, _g.casefile_id) < place)
    return Static(query)


class SqlCasefiles:
    """Implements `CasefileStore`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def access(self, user_id: str, casefile_id: str) -> StoredAccess | None:
        row = await self._reads.point(lambda tx: tx.one(_ACCESS, user_id=user_id, casefile_id=casefile_id))
        if row is None:
            return None
        public_role, tags, number, changed, *grant = row
        kept = grant_of(grant) if grant[0] else None
        return StoredAccess(kept, PublicRole(public_role), number, changed, tags_of(tags))

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
        return grant_of(row) if row else None

    async def grants(self, casefile_id: str, after: str, limit: int) -> Sequence[Grant]:
        rows = await self._reads.scan(
            lambda tx: tx.all(_GRANTS, casefile_id=casefile_id, after=after, n=limit)
        )
        return [grant_of(row) for row in rows]

    async def expired_grants(self, now: datetime, limit: int) -> Sequence[Grant]:
        rows = await self._reads.scan(lambda tx: tx.all(_EXPIRED, now=to_us(now), n=limit))
        return [grant_of(row) for row in rows]

    async def casefile_ids(self, after: str, limit: int) -> Sequence[str]:
        rows = await self._reads.scan(lambda tx: tx.all(_IDS, after=after, n=limit))
        return [row[0] for row in rows]

    async def deleted_casefiles(self, limit: int) -> Sequence[str]:
        rows = await self._reads.scan(lambda tx: tx.all(_DELETED, n=limit))
        return [row[0] for row in rows]
