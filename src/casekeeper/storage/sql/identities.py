"""Accounts, the permission feed and claims as one reader, and what a token is made of."""

import json
from collections.abc import Collection

from sqlalchemy import bindparam, select

from casekeeper.acl_feed import AccessSnapshot
from casekeeper.storage.rows import scope_of
from casekeeper.storage.sql.accounts import SqlCredentials
from casekeeper.storage.sql.casefiles import CASEFILES, GRANTS, is_live
from casekeeper.storage.sql.expressions import IsInJson
from casekeeper.storage.sql.feed import HEAD, USER_CHANGED, SqlFeed
from casekeeper.storage.sql.requests import SqlClaims
from casekeeper.storage.sql.statements import Static, Tx

_c, _g = CASEFILES.c, GRANTS.c
_SCOPES = Static(
    select(_g.casefile_id, _g.role, _g.expires_us)
    .select_from(GRANTS.join(CASEFILES, _c.casefile_id == _g.casefile_id))
    .where(
        _g.user_id == bindparam("user_id"), IsInJson(_g.casefile_id, "ids"), is_live, _c.deleted_us.is_(None)
    )
)


class SqlIdentities(SqlCredentials, SqlFeed, SqlClaims):
    """Implements `Identities`."""

    async def snapshot(self, user_id: str, casefile_ids: Collection[str], now_us: int) -> AccessSnapshot:
        ids = json.dumps(list(casefile_ids))

        def read(tx: Tx) -> AccessSnapshot:
            head, changed = tx.one(HEAD), tx.one(USER_CHANGED, user_id=user_id)
            assert head is not None
            assert changed is not None
            rows = tx.all(_SCOPES, user_id=user_id, ids=ids, now=now_us) if casefile_ids else []
            scopes = {casefile_id: scope_of(role, expires_us) for casefile_id, role, expires_us in rows}
            return AccessSnapshot(head[0], head[1], changed[0], scopes)

        return await self._reads.point(read)
