"""Accounts, keys, the permission feed and claims, read from Firestore."""

from collections.abc import Collection, Sequence
from datetime import datetime

from casekeeper.acl import Role
from casekeeper.acl_feed import ANY, AccessSnapshot, Change, FeedHead, Scope
from casekeeper.clock import from_us, to_us
from casekeeper.identity.accounts import Account, StoredAccount
from casekeeper.identity.credentials import ApiKey, StoredRefresh
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Query
from casekeeper.storage.firestore.rows import account_of, instant, is_live, key_of

# How far back a look into the feed goes at a time.
_FEED_PAGE = 100


class FirestoreAccounts:
    """Implements `CredentialStore`, `AclFeed` and `Claims`."""

    def __init__(self, store: Firestore) -> None:
        self._store = store

    async def account(self, user_id: str) -> StoredAccount | None:
        found = await self._store.one(at.account(user_id))
        return account_of(found.fields) if found else None

    async def accounts(self, after: str, limit: int) -> Sequence[Account]:
        found = await self._store.query(
            Query("accounts", order=(("user_id", "asc"),), after=(after,), limit=limit)
        )
        return [account_of(one.fields).account for one in found]

    async def key(self, key_id: str) -> tuple[ApiKey, str] | None:
        found = await self._store.one(at.api_key(key_id))
        return (key_of(found.fields), found.fields["digest"]) if found else None

    async def keys(self, user_id: str) -> Sequence[ApiKey]:
        found = await self._store.query(Query("api_keys", where=(("user_id", "==", user_id),)))
        return sorted((key_of(one.fields) for one in found), key=lambda key: (key.created_at, key.key_id))

    async def refresh(self, digest: str) -> StoredRefresh | None:
        token = await self._store.one(at.refresh_token(digest))
        if token is None:
            return None
        row = token.fields
        family, generation = at.family(row["family"]), at.generation(row["user_id"])
        ended = await self._store.get([family, generation])
        if family in ended or ended[generation].fields["number"] != row["generation"]:
            return None
        expires_at = from_us(row["expires_us"])
        return StoredRefresh(row["family"], row["user_id"], expires_at, instant(row["used_us"]))

    async def head(self) -> FeedHead:
        found = await self._store.one(at.FEED_HEAD)
        assert found is not None, "an open store has a feed"
        return FeedHead(found.fields["epoch"], found.fields["number"])

    async def changes(self, after: int) -> Sequence[Change]:
        found = await self._store.query(
            Query("acl_feed", where=(("number", ">", after),), order=(("number", "asc"),))
        )
        rows = [one.fields for one in found]
        return [Change(row["number"], row["casefile_id"], row["user_id"]) for row in rows]

    async def number_before(self, instant_us: int) -> int:
        after: tuple[int, ...] | None = None
        # Walks back from the newest number, so it reads what is younger and little more.
        while True:
            page = Query("acl_feed", order=(("number", "desc"),), after=after, limit=_FEED_PAGE)
            found = await self._store.query(page)
            for one in found:
                if one.fields["at_us"] < instant_us:
                    return one.fields["number"]
            if len(found) < _FEED_PAGE:
                return 0
            after = (found[-1].fields["number"],)

    async def user_changed(self, user_id: str) -> int:
        found = await self._store.one(at.mark(user_id, ANY))
        return found.fields["number"] if found else 0

    async def snapshot(self, user_id: str, casefile_ids: Collection[str], now_us: int) -> AccessSnapshot:
        mark = at.mark(user_id, ANY)
        grants = {casefile_id: at.grant(casefile_id, user_id) for casefile_id in casefile_ids}
        casefiles = {casefile_id: at.casefile(casefile_id) for casefile_id in casefile_ids}
        paths = (at.FEED_HEAD, mark, *grants.values(), *casefiles.values())
        found = await self._store.get(paths, consistent=True)
        head, changed = found[at.FEED_HEAD].fields, found.get(mark)
        scopes: dict[str, Scope] = {}
        for casefile_id in casefile_ids:
            grant, casefile = found.get(grants[casefile_id]), found.get(casefiles[casefile_id])
            if grant and casefile and casefile.fields["deleted_us"] is None and is_live(grant.fields, now_us):
                ends_us = grant.fields["expires_us"]
                # Whole seconds, rounded down: a token never outlives the grant.
                not_after = None if ends_us is None else ends_us // 1_000_000
                scopes[casefile_id] = Scope(Role(grant.fields["role"]), not_after)
        user_changed = changed.fields["number"] if changed else 0
        return AccessSnapshot(head["epoch"], head["number"], user_changed, scopes)

    async def claimed(self, key: str, now: datetime) -> tuple[str, str] | None:
        found = await self._store.one(at.request(key))
        if found is None:
            return None
        row = found.fields
        is_over = row["expires_us"] is not None and row["expires_us"] <= to_us(now)
        return None if is_over else (row["fingerprint"], row["made"])
