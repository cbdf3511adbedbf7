"""API keys: made and ended by their users and by operators, and the accounts that they stand for."""

import hmac
import secrets

from pydantic import Field

from casekeeper.acl import EndsAt
from casekeeper.acl_feed import ANY, Stops
from casekeeper.clock import Clock
from casekeeper.errors import AccountNotFound, KeyNotFound
from casekeeper.identity.account_commands import Name
from casekeeper.identity.accounts import EndRefreshFamilies
from casekeeper.identity.credentials import ApiKey, CredentialStore, PutKey, digest_of
from casekeeper.identity.principal import Principal, own_or_operator
from casekeeper.ids import KeyId, UserId, new_key_id
from casekeeper.journal.commits import Commit, Commits, PermissionChanged
from casekeeper.journal.requests import Ask, Requests
from casekeeper.paging import Page
from casekeeper.strict import Strict


class NewApiKey(ApiKey):
    """A fresh API key; the secret is shown this once."""

    api_key: str | None = Field(
        default=None, description="Shown once; a replayed request does not show it again."
    )


class CreateKey(Strict):
    """Make an API key for oneself, or, as an operator, for another account."""

    name: Name = ""
    user_id: UserId | None = None
    expires_at: EndsAt | None = None


class ListKeys(Strict):
    """The keys of oneself, or, as an operator, of another account."""

    user_id: UserId | None = None


class RevokeKey(Strict):
    """End a key. As tokens may have been made with it, all tokens of its account end too."""

    key_id: KeyId


class ApiKeys:
    """What users, and operators for them, do with API keys, and whose a key is."""

    def __init__(
        self, store: CredentialStore, commits: Commits, requests: Requests, stops: Stops, clock: Clock
    ) -> None:
        self._store = store
        self._commits = commits
        self._requests = requests
        self._stops = stops
        self._clock = clock

    async def create(self, caller: Principal, command: CreateKey, ask: Ask) -> tuple[NewApiKey, bool]:
        """Make an API key; its secret is in this answer and nowhere else."""
        user_id = own_or_operator(caller, command.user_id)
        return await self._requests.once(
            ask, lambda: self._create(user_id, command, ask), self._without_secret
        )

    async def _create(self, user_id: str, command: CreateKey, ask: Ask) -> NewApiKey:
        if await self._store.account(user_id) is None:
            raise AccountNotFound(user_id)
        key_id, secret = new_key_id(), secrets.token_urlsafe(32)
        key = ApiKey(
            key_id=key_id,
            user_id=user_id,
            name=command.name,
            created_at=self._clock(),
            expires_at=command.expires_at,
        )
        claim = self._requests.claim(ask, key_id)
        await self._commits.commit(Commit(conditions=claim, records=(*claim, PutKey(key, digest_of(secret)))))
        return NewApiKey(**key.model_dump(), api_key=f"ck_{key_id.removeprefix('key_')}_{secret}")

    async def page(self, caller: Principal, command: ListKeys) -> Page[ApiKey]:
        """All keys of an account, oldest first, without their secrets."""
        user_id = own_or_operator(caller, command.user_id)
        if await self._store.account(user_id) is None:
            raise AccountNotFound(user_id)
        return Page[ApiKey](items=list(await self._store.keys(user_id)))

    async def revoke(self, caller: Principal, command: RevokeKey, ask: Ask) -> tuple[ApiKey, bool]:
        """End a key and every token of its account; repeating it changes nothing."""
        found = await self._store.key(command.key_id)
        if found is None or (found[0].user_id != caller.user_id and not caller.is_operator):
            raise KeyNotFound(command.key_id)
        return await self._requests.once(ask, lambda: self._revoke(*found, ask=ask), self._without_secret)

    async def user_of(self, api_key: str) -> str | None:
        """Whose key this is; None for one that is unknown or has ended."""
        prefix, _, rest = api_key.partition("_")
        name, _, secret = rest.partition("_")
        found = await self._store.key(f"key_{name}") if prefix == "ck" else None
        if found is None or not hmac.compare_digest(found[1], digest_of(secret)):
            return None
        key = found[0]
        ended = key.revoked_at is not None or (key.expires_at is not None and self._clock() >= key.expires_at)
        return None if ended else key.user_id

    async def _revoke(self, key: ApiKey, digest: str, ask: Ask) -> ApiKey:
        if key.revoked_at is not None:
            return key
        now = self._clock()
        key = key.model_copy(update={"revoked_at": now})
        claim = self._requests.claim(ask, key.key_id)
        change = PermissionChanged(ANY, key.user_id, "key_revoked", now)
        records = (*claim, PutKey(key, digest), EndRefreshFamilies(key.user_id), change)
        await self._commits.commit(Commit(conditions=claim, records=records))
        await self._stops.stop("an API key of the account was revoked", user_id=key.user_id)
        return key

    async def _without_secret(self, key_id: str) -> NewApiKey:
        found = await self._store.key(key_id)
        if found is None:
            raise KeyNotFound(key_id)
        return NewApiKey(**found[0].model_dump())
