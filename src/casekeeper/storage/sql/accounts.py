"""Accounts, keys, the permission feed and claims, read from SQL."""

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, func, or_, select

from casekeeper.acl import Role
from casekeeper.acl_feed import ANY, AccessSnapshot, Change, FeedHead, Scope
from casekeeper.clock import from_us, to_us
from casekeeper.identity.accounts import Account, StoredAccount
from casekeeper.identity.credentials import ApiKey, StoredRefresh
from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.statements import IsInJson, Reads, Row, Static, Tx

_ACCOUNT = Static(select(t.accounts).where(t.accounts.c.user_id == bindparam("user_id")))
_ACCOUNTS = Static(
    select(t.accounts)
    .where(t.accounts.c.user_id > bindparam("after"))
    .order_by(t.accounts.c.user_id)
    .limit(bindparam("n"))
)
_KEY = Static(select(t.api_keys).where(t.api_keys.c.key_id == bindparam("key_id")))
_KEYS = Static(
    select(t.api_keys).where(t.api_keys.c.user_id == bindparam("user_id")).order_by(t.api_keys.c.created_us)
)
_REFRESH = Static(select(t.refresh_tokens).where(t.refresh_tokens.c.digest == bindparam("digest")))
_FEED_HEAD = Static(select(t.acl_head.c.epoch, t.acl_head.c.number))
_CHANGES = Static(
    select(t.acl_feed.c.number, t.acl_feed.c.casefile_id, t.acl_feed.c.user_id)
    .where(t.acl_feed.c.number > bindparam("after"))
    .order_by(t.acl_feed.c.number)
)
# Walks back from the newest number, so it reads what is younger and no more.
_NUMBER_BEFORE = Static(
    select(t.acl_feed.c.number)
    .where(t.acl_feed.c.at_us < bindparam("instant"))
    .order_by(t.acl_feed.c.number.desc())
    .limit(1)
)
_USER_CHANGED = Static(
    select(func.coalesce(func.max(t.acl_feed.c.number), 0)).where(
        t.acl_feed.c.user_id == bindparam("user_id"), t.acl_feed.c.casefile_id == ANY
    )
)
_SCOPES = Static(
    select(t.grants.c.casefile_id, t.grants.c.role, t.grants.c.expires_us)
    .select_from(t.grants.join(t.casefiles, t.casefiles.c.casefile_id == t.grants.c.casefile_id))
    .where(
        t.grants.c.user_id == bindparam("user_id"),
        IsInJson(t.grants.c.casefile_id, "ids"),
        or_(t.grants.c.expires_us.is_(None), t.grants.c.expires_us > bindparam("now")),
        t.casefiles.c.deleted_us.is_(None),
    )
)
_CLAIMED = Static(
    select(t.requests.c.fingerprint, t.requests.c.made).where(
        and_(
            t.requests.c.key == bindparam("key"),
            or_(t.requests.c.expires_us.is_(None), t.requests.c.expires_us > bindparam("now")),
        )
    )
)


class SqlAccounts:
    """Implements `CredentialStore`, `AclFeed` and `Claims`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def account(self, user_id: str) -> StoredAccount | None:
        row = await self._reads.point(lambda tx: tx.one(_ACCOUNT, user_id=user_id))
        return StoredAccount(_account(row), row[3]) if row else None

    async def accounts(self, after: str, limit: int) -> Sequence[Account]:
        rows = await self._reads.scan(lambda tx: tx.all(_ACCOUNTS, after=after, n=limit))
        return [_account(row) for row in rows]

    async def key(self, key_id: str) -> tuple[ApiKey, str] | None:
        row = await self._reads.point(lambda tx: tx.one(_KEY, key_id=key_id))
        return (_key(row), row[3]) if row else None

    async def keys(self, user_id: str) -> Sequence[ApiKey]:
        rows = await self._reads.scan(lambda tx: tx.all(_KEYS, user_id=user_id))
        return [_key(row) for row in rows]

    async def refresh(self, digest: str) -> StoredRefresh | None:
        row = await self._reads.point(lambda tx: tx.one(_REFRESH, digest=digest))
        if row is None:
            return None
        _, family, user_id, expires_us, used_us = row
        return StoredRefresh(family, user_id, from_us(expires_us), _instant(used_us))

    async def head(self) -> FeedHead:
        row = await self._reads.point(lambda tx: tx.one(_FEED_HEAD))
        assert row is not None, "a migrated store has a feed"
        return FeedHead(*row)

    async def changes(self, after: int) -> Sequence[Change]:
        rows = await self._reads.point(lambda tx: tx.all(_CHANGES, after=after))
        return [Change(*row) for row in rows]

    async def number_before(self, instant_us: int) -> int:
        row = await self._reads.point(lambda tx: tx.one(_NUMBER_BEFORE, instant=instant_us))
        return row[0] if row else 0

    async def user_changed(self, user_id: str) -> int:
        row = await self._reads.point(lambda tx: tx.one(_USER_CHANGED, user_id=user_id))
        return row[0] if row else 0

    async def snapshot(self, user_id: str, casefile_ids: Collection[str], now_us: int) -> AccessSnapshot:
        ids = json.dumps(list(casefile_ids))

        def read(tx: Tx) -> AccessSnapshot:
            head, changed = tx.one(_FEED_HEAD), tx.one(_USER_CHANGED, user_id=user_id)
            assert head is not None
            assert changed is not None
            rows = tx.all(_SCOPES, user_id=user_id, ids=ids, now=now_us) if casefile_ids else []
            scopes = {casefile_id: _scope(role, expires_us) for casefile_id, role, expires_us in rows}
            return AccessSnapshot(head[0], head[1], changed[0], scopes)

        return await self._reads.point(read)

    async def claimed(self, key: str, now: datetime) -> tuple[str, str] | None:
        row: Any = await self._reads.point(lambda tx: tx.one(_CLAIMED, key=key, now=to_us(now)))
        return row


def _scope(role: str, expires_us: int | None) -> Scope:
    # Whole seconds, rounded down: a token never outlives the grant.
    return Scope(Role(role), None if expires_us is None else expires_us // 1_000_000)


def _account(row: Row) -> Account:
    user_id, pseudonym, display_name, _, is_operator, is_active, created_us = row
    return Account(
        user_id=user_id,
        pseudonym=pseudonym,
        display_name=display_name,
        is_operator=bool(is_operator),
        is_active=bool(is_active),
        created_at=from_us(created_us),
    )


def _key(row: Row) -> ApiKey:
    key_id, user_id, name, _, created_us, expires_us, revoked_us = row
    return ApiKey(
        key_id=key_id,
        user_id=user_id,
        name=name,
        created_at=from_us(created_us),
        expires_at=_instant(expires_us),
        revoked_at=_instant(revoked_us),
    )


def _instant(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)
