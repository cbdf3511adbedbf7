"""Accounts and credentials in SQL."""

from collections.abc import Sequence

from sqlalchemy import Column, Index, Table, Text, bindparam, delete, select, update

from casekeeper.clock import from_us, to_us
from casekeeper.identity import accounts as acc
from casekeeper.identity import credentials as cred
from casekeeper.storage.rows import account_of, account_row, instant, key_of, key_row
from casekeeper.storage.sql.parts import Finds, Writes
from casekeeper.storage.sql.schema import integer, metadata, string
from casekeeper.storage.sql.statements import Reads, Static, Tx, encoded, insert_into, put_into

ACCOUNTS = Table(
    "accounts",
    metadata,
    string("user_id", key=True),
    Column("pseudonym", Text, nullable=False, unique=True),
    string("display_name"),
    string("password_hash", null=True),
    integer("is_operator"),
    integer("is_active"),
    integer("created_us"),
)

API_KEYS = Table(
    "api_keys",
    metadata,
    string("key_id", key=True),
    string("user_id"),
    string("name"),
    string("digest"),
    integer("created_us"),
    integer("expires_us", null=True),
    integer("revoked_us", null=True),
    Index("api_keys_user", "user_id", "created_us"),
)

REFRESH_TOKENS = Table(
    "refresh_tokens",
    metadata,
    string("digest", key=True),
    string("family"),
    string("user_id"),
    integer("expires_us"),
    integer("used_us", null=True),
    Index("refresh_tokens_family", "family"),
    Index("refresh_tokens_user", "user_id"),
    Index("refresh_tokens_expires", "expires_us"),
)

_a, _k, _r = ACCOUNTS.c, API_KEYS.c, REFRESH_TOKENS.c
_PUT_ACCOUNT = put_into(ACCOUNTS, "user_id")
_PUT_KEY = put_into(API_KEYS, "key_id")
_ADD_REFRESH = insert_into(REFRESH_TOKENS)
_USE_REFRESH = Static(
    update(REFRESH_TOKENS)
    .where(_r.digest == bindparam("digest_"), _r.used_us.is_(None))
    .values(used_us=bindparam("used"))
)
_END_FAMILY = Static(delete(REFRESH_TOKENS).where(_r.family == bindparam("family")))
_END_FAMILIES = Static(delete(REFRESH_TOKENS).where(_r.user_id == bindparam("user_id")))
_ACCOUNT = Static(select(ACCOUNTS).where(_a.user_id == bindparam("user_id")))
_ACCOUNT_ID = Static(select(_a.user_id).where(_a.user_id == bindparam("user_id")))
_ACCOUNTS = Static(
    select(ACCOUNTS).where(_a.user_id > bindparam("after")).order_by(_a.user_id).limit(bindparam("n"))
)
_KEY = Static(select(API_KEYS).where(_k.key_id == bindparam("key_id")))
_KEYS = Static(select(API_KEYS).where(_k.user_id == bindparam("user_id")).order_by(_k.created_us))
_REFRESH = Static(
    select(_r.family, _r.user_id, _r.expires_us, _r.used_us).where(_r.digest == bindparam("digest"))
)


def _add_refresh(tx: Tx, r: cred.PutRefresh) -> None:
    expires_us = to_us(r.expires_at)
    tx.run(
        _ADD_REFRESH, digest=r.digest, family=r.family, user_id=r.user_id, expires_us=expires_us, used_us=None
    )


FINDS: Finds = {
    acc.AccountAbsent: lambda tx, c: tx.one(_ACCOUNT_ID, user_id=c.user_id),
    cred.FamilyLives: lambda tx, c: tx.one(_REFRESH, digest=c.digest),
}
WRITES: Writes = {
    acc.PutAccount: lambda tx, r: tx.run(_PUT_ACCOUNT, **encoded(account_row(r.stored))),
    acc.EndRefreshFamilies: lambda tx, r: tx.run(_END_FAMILIES, user_id=r.user_id),
    cred.PutKey: lambda tx, r: tx.run(_PUT_KEY, **key_row(r)),
    cred.PutRefresh: _add_refresh,
    cred.UseRefresh: lambda tx, r: tx.run(_USE_REFRESH, digest_=r.digest, used=to_us(r.now)),
    cred.EndFamily: lambda tx, r: tx.run(_END_FAMILY, family=r.family),
}


class SqlCredentials:
    """Implements `CredentialStore`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def account(self, user_id: str) -> acc.StoredAccount | None:
        row = await self._reads.point(lambda tx: tx.one(_ACCOUNT, user_id=user_id))
        return account_of(row) if row else None

    async def accounts(self, after: str, limit: int) -> Sequence[acc.Account]:
        rows = await self._reads.scan(lambda tx: tx.all(_ACCOUNTS, after=after, n=limit))
        return [account_of(row).account for row in rows]

    async def key(self, key_id: str) -> tuple[cred.ApiKey, str] | None:
        row = await self._reads.point(lambda tx: tx.one(_KEY, key_id=key_id))
        return key_of(row) if row else None

    async def keys(self, user_id: str) -> Sequence[cred.ApiKey]:
        rows = await self._reads.scan(lambda tx: tx.all(_KEYS, user_id=user_id))
        return [key_of(row)[0] for row in rows]

    async def refresh(self, digest: str) -> cred.StoredRefresh | None:
        row = await self._reads.point(lambda tx: tx.one(_REFRESH, digest=digest))
        if row is None:
            return None
        family, user_id, expires_us, used_us = row
        return cred.StoredRefresh(family, user_id, from_us(expires_us), instant(used_us))
