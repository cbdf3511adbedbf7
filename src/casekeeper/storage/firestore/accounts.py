"""Accounts and credentials in Firestore."""

from collections.abc import Sequence

from casekeeper.clock import from_us, to_us
from casekeeper.identity import accounts as acc
from casekeeper.identity import credentials as cred
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Query
from casekeeper.storage.firestore.parts import Finds, Writes
from casekeeper.storage.firestore.view import View
from casekeeper.storage.rows import ACCOUNT, KEY, account_of, account_row, instant, key_of, key_row, picked


async def _put_account(view: View, r: acc.PutAccount) -> None:
    account = r.stored.account
    await view.put(at.account(account.user_id), account_row(r.stored))
    await view.put(at.pseudonym(account.pseudonym), {"user_id": account.user_id})


async def _end_families(view: View, r: acc.EndRefreshFamilies) -> None:
    number = await _generation(view, r.user_id)
    await view.put(at.generation(r.user_id), {"number": number + 1})


async def _put_refresh(view: View, r: cred.PutRefresh) -> None:
    row = {"family": r.family, "user_id": r.user_id, "generation": await _generation(view, r.user_id)}
    view.create(at.refresh_token(r.digest), {**row, "expires_us": to_us(r.expires_at), "used_us": None})


async def _use_refresh(view: View, r: cred.UseRefresh) -> None:
    token = await view.get(at.refresh_token(r.digest))
    if token is not None and token["used_us"] is None:
        await view.put(at.refresh_token(r.digest), {**token, "used_us": to_us(r.now)})


async def _lives(view: View, c: cred.FamilyLives) -> bool:
    token = await view.get(at.refresh_token(c.digest))
    if token is None:
        return False
    family = await view.get(at.family(token["family"]))
    if family and family["has_ended"]:
        return False
    return token["generation"] == await _generation(view, token["user_id"])


async def _generation(view: View, user_id: str) -> int:
    """How often all of a user's refresh tokens have ended."""
    found = await view.get(at.generation(user_id))
    if found is None:
        await view.put(at.generation(user_id), found := {"number": 0})
    return found["number"]


FINDS: Finds = {
    acc.AccountAbsent: lambda view, c: view.get(at.account(c.user_id)),
    cred.FamilyLives: _lives,
}
WRITES: Writes = {
    acc.PutAccount: _put_account,
    acc.EndRefreshFamilies: _end_families,
    cred.PutKey: lambda view, r: view.put(at.api_key(r.key.key_id), key_row(r)),
    # Behind the end of all former ones, where one commit does both.
    cred.PutRefresh: _put_refresh,
    cred.UseRefresh: _use_refresh,
    cred.EndFamily: lambda view, r: view.put(at.family(r.family), {"has_ended": True}),
}


class FirestoreCredentials:
    """Implements `CredentialStore`."""

    def __init__(self, store: Firestore) -> None:
        self._store = store

    async def account(self, user_id: str) -> acc.StoredAccount | None:
        found = await self._store.one(at.account(user_id))
        return account_of(picked(ACCOUNT, found.fields)) if found else None

    async def accounts(self, after: str, limit: int) -> Sequence[acc.Account]:
        found = await self._store.query(
            Query("accounts", order=(("user_id", "asc"),), after=(after,), limit=limit)
        )
        return [account_of(picked(ACCOUNT, one.fields)).account for one in found]

    async def key(self, key_id: str) -> tuple[cred.ApiKey, str] | None:
        found = await self._store.one(at.api_key(key_id))
        return key_of(picked(KEY, found.fields)) if found else None

    async def keys(self, user_id: str) -> Sequence[cred.ApiKey]:
        found = await self._store.query(Query("api_keys", where=(("user_id", "==", user_id),)))
        keys = (key_of(picked(KEY, one.fields))[0] for one in found)
        return sorted(keys, key=lambda key: (key.created_at, key.key_id))

    async def refresh(self, digest: str) -> cred.StoredRefresh | None:
        token = await self._store.one(at.refresh_token(digest))
        if token is None:
            return None
        row = token.fields
        family, generation = at.family(row["family"]), at.generation(row["user_id"])
        ended = await self._store.get([family, generation])
        if family in ended or ended[generation].fields["number"] != row["generation"]:
            return None
        expires_at = from_us(row["expires_us"])
        return cred.StoredRefresh(row["family"], row["user_id"], expires_at, instant(row["used_us"]))
