"""How a caller gets tokens: a password or an API key for the first, a refresh token for the next ones."""

import hashlib
import hmac
import logging
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from casekeeper.acl_feed import ANY, AccessSnapshot, AclFeed, Scope, Stops
from casekeeper.clock import Clock, to_us
from casekeeper.errors import (
    AccountExists,
    AccountNotFound,
    CredentialsRejected,
    KeyNotFound,
    OperatorOnly,
    TokenRejected,
)
from casekeeper.identity.accounts import (
    Account,
    AccountAbsent,
    AccountStands,
    AccountStore,
    EndRefreshFamilies,
    EndsAt,
    Name,
    Passwords,
    PutAccount,
    StoredAccount,
)
from casekeeper.identity.issuers import TOKEN_BYTES_MAX, ExternalUser, Issuers
from casekeeper.identity.principal import Principal
from casekeeper.identity.tokens import MAX_SCOPES, Minted, Tokens
from casekeeper.ids import CasefileId, KeyId, UserId, new_key_id, new_pseudonym
from casekeeper.journal.requests import Ask, Requests
from casekeeper.journal.stream import Commit, Commits, Condition, PermissionChanged, Record, Superseded

REFRESH_LIFETIME = timedelta(days=14)
REPLY_LOST = timedelta(seconds=10)
"""A used refresh token works again this long: the reply may have been lost on its way."""

_security = logging.getLogger("casekeeper.security")

Secret = Annotated[str, StringConstraints(min_length=1, max_length=256)]
WantedScopes = Annotated[
    list[CasefileId],
    Field(max_length=MAX_SCOPES, description="Casefiles whose scopes the token shall carry from the start."),
]


class Login(BaseModel):
    """Ask for tokens with a password (`user_id` and `password`), an `api_key`, or an issuer's `id_token`."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId | None = None
    password: Secret | None = None
    api_key: Secret | None = None
    id_token: Annotated[str, StringConstraints(min_length=1, max_length=TOKEN_BYTES_MAX)] | None = Field(
        default=None, description="A token of an issuer in the settings: docs/identity.md."
    )
    casefile_ids: WantedScopes = []

    @model_validator(mode="after")
    def _one_way(self) -> "Login":
        by_password = self.user_id is not None and self.password is not None
        if [by_password, self.api_key is not None, self.id_token is not None].count(True) != 1:
            raise ValueError("give either user_id and password, or api_key, or id_token")
        return self


class Refresh(BaseModel):
    """Ask for the next tokens. Each refresh token is good once (and ten seconds more, for a lost reply)."""

    model_config = ConfigDict(extra="forbid")

    refresh_token: Secret
    casefile_ids: WantedScopes = []


class TokenSet(BaseModel):
    """What a login gives."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - RFC 6750 names it so
    expires_in: int = Field(description="Seconds until the access token ends.")
    refresh_token: str | None = None
    user_id: str
    casefile_scopes: dict[str, str] = Field(description="Role by casefile, as the access token carries it.")


class ApiKey(BaseModel):
    """An API key without its secret."""

    model_config = ConfigDict(frozen=True)

    key_id: KeyId
    user_id: UserId
    name: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class NewApiKey(ApiKey):
    """A fresh API key; the secret is shown this once."""

    api_key: str | None = Field(
        default=None, description="Shown once; a replayed request does not show it again."
    )


class CreateKey(BaseModel):
    """Make an API key for oneself, or, as an operator, for another account."""

    model_config = ConfigDict(extra="forbid")

    name: Name = ""
    user_id: UserId | None = None
    expires_at: EndsAt | None = None


class ListKeys(BaseModel):
    """The keys of oneself, or, as an operator, of another account."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId | None = None


class RevokeKey(BaseModel):
    """End a key. As tokens may have been made with it, all tokens of its account end too."""

    model_config = ConfigDict(extra="forbid")

    key_id: KeyId


@dataclass(frozen=True, slots=True)
class PutKey(Record):
    """The key as it is from now on; `digest` is the SHA-256 of its secret."""

    key: ApiKey
    digest: str


@dataclass(frozen=True, slots=True)
class PutRefresh(Record):
    """A refresh token that may be used once."""

    digest: str
    family: str
    user_id: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class UseRefresh(Record):
    """Marks the first use of a refresh token."""

    digest: str
    now: datetime


@dataclass(frozen=True, slots=True)
class EndFamily(Record):
    """No token of this family works any more."""

    family: str


@dataclass(frozen=True, slots=True)
class FamilyLives(Condition):
    """The refresh token has not been ended by a logout or deactivation."""

    digest: str

    def refusal(self, found: Any) -> Exception | None:
        return None if found else Superseded()


@dataclass(frozen=True, slots=True)
class StoredRefresh:
    """A refresh token as stored."""

    family: str
    user_id: str
    expires_at: datetime
    used_at: datetime | None


class CredentialStore(AccountStore, Protocol):
    """Secrets as a store keeps them: only their SHA-256."""

    async def key(self, key_id: str) -> tuple[ApiKey, str] | None:
        """The key and the digest of its secret."""
        ...

    async def keys(self, user_id: str) -> Sequence[ApiKey]:
        """All keys of an account, oldest first."""
        ...

    async def refresh(self, digest: str) -> StoredRefresh | None:
        """The refresh token of this digest, used or not; None where its family has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """An account whose credentials were right, and the state of the permission feed on which that was judged."""

    account: Account
    snapshot: AccessSnapshot


def digest_of(secret: str) -> str:
    """Under which a secret is kept."""
    # 256 random bits need no slow hash.
    return hashlib.sha256(secret.encode()).hexdigest()


class Logins:
    """Tokens for accounts, and the API keys that stand for them."""

    def __init__(
        self,
        store: CredentialStore,
        commits: Commits,
        feed: AclFeed,
        tokens: Tokens,
        passwords: Passwords,
        requests: Requests,
        stops: Stops,
        clock: Clock,
        issuers: Issuers | None = None,
    ) -> None:
        self._issuers = issuers or Issuers((), clock)
        self._store = store
        self._commits = commits
        self._feed = feed
        self._tokens = tokens
        self._passwords = passwords
        self._requests = requests
        self._stops = stops
        self._clock = clock

    async def log_in(self, login: Login) -> TokenSet:
        """Tokens for a password, an API key or an issuer's token; for the last one no refresh token.

        Raises:
            CredentialsRejected: Unknown, wrong, ended or deactivated; which of them is not told.
            IssuerUnavailable: The keys of the token's issuer cannot be had.
        """
        known = await self.known(login)
        if login.id_token is not None:
            return self._token_set(known.account, known.snapshot, None)
        try:
            return await self._issue(known.account, known.snapshot, secrets.token_hex(16), ())
        except Superseded as error:
            raise CredentialsRejected from error

    async def known(self, login: Login) -> Known:
        """Whose credentials these are; raises as `log_in`."""
        if login.id_token is not None:
            return await self.external(await self._issuers.user_of(login.id_token), login.casefile_ids)
        claimed = login.user_id or await self._user_of_key(login.api_key or "")
        # The snapshot comes first: whatever changes the account after it is newer than the token's `asof`.
        snapshot = await self._snapshot(claimed or "nobody@invalid", login.casefile_ids)
        stored = await self._store.account(claimed) if claimed else None
        if login.password is not None:
            right = await self._passwords.matches(login.password, stored.password_hash if stored else None)
        else:
            right = claimed is not None and await self._user_of_key(login.api_key or "") == claimed
        if not right or stored is None or not stored.account.is_active:
            _security.warning("login refused", extra={"user_id": claimed})
            raise CredentialsRejected
        return Known(stored.account, snapshot)

    async def external(self, user: ExternalUser, casefile_ids: Collection[str] = ()) -> Known:
        """The account of somebody whom an issuer has named.

        Raises:
            CredentialsRejected: There is none, or it was deactivated.
        """
        # Whoever wants the next token asks the issuer again: it may have ended the account.
        snapshot = await self._snapshot(user.user_id, casefile_ids)
        stored = await self._store.account(user.user_id)
        if stored is None and user.may_be_made:
            stored = await self._made(user)
        if stored is None or not stored.account.is_active:
            _security.warning("login refused", extra={"user_id": user.user_id})
            raise CredentialsRejected
        return Known(stored.account, snapshot)

    async def _made(self, user: ExternalUser) -> StoredAccount | None:
        account = Account(
            user_id=user.user_id,
            display_name=user.display_name,
            created_at=self._clock(),
            pseudonym=new_pseudonym(),
        )
        made = StoredAccount(account, None)
        try:
            await self._commits.commit(Commit((), (AccountAbsent(user.user_id),), (PutAccount(made),)))
        except AccountExists:
            return await self._store.account(user.user_id)
        return made

    async def refresh(self, command: Refresh) -> TokenSet:
        """The next tokens. A refresh token used twice was stolen: its whole family ends.

        Raises:
            CredentialsRejected: Unknown, used, ended, or of a deactivated account.
        """
        digest, now = digest_of(command.refresh_token), self._clock()
        stored = await self._store.refresh(digest)
        if stored is None or now >= stored.expires_at:
            raise CredentialsRejected
        if stored.used_at is not None and now - stored.used_at > REPLY_LOST:
            _security.warning("refresh token used twice", extra={"user_id": stored.user_id})
            await self._commits.commit(Commit(records=(EndFamily(stored.family),)))
            raise CredentialsRejected
        snapshot = await self._snapshot(stored.user_id, command.casefile_ids)
        account = await self._store.account(stored.user_id)
        if account is None or not account.account.is_active:
            raise CredentialsRejected
        try:
            return await self._issue(account.account, snapshot, stored.family, (digest,))
        except Superseded as error:
            raise CredentialsRejected from error

    async def scopes_for(self, caller: Principal, casefile_id: str) -> Minted:
        """The caller's token with one casefile more, everything in it read afresh, ending when the old one ends.

        Raises:
            TokenRejected: The account was ended meanwhile.
        """
        recent = [c for c in caller.used if c != casefile_id]
        order = (
            [c for c in caller.scopes if c not in caller.used and c != casefile_id] + recent + [casefile_id]
        )
        snapshot = await self._snapshot(caller.user_id, order)
        if snapshot.epoch != caller.epoch or snapshot.user_changed > caller.asof:
            raise TokenRejected("The account has changed since this access token was made; log in again.")
        return self._tokens.mint(
            caller.user_id,
            caller.pseudonym,
            is_operator=caller.is_operator,
            snapshot=snapshot,
            scopes=_in_order(snapshot.scopes, order),
            expires_at=caller.expires_at,
        )

    async def mint_for(self, user_id: str) -> TokenSet:
        """An access token without credentials, for whoever holds the data directory.

        Raises:
            AccountNotFound: No such active account.
        """
        snapshot = await self._snapshot(user_id, ())
        stored = await self._store.account(user_id)
        if stored is None or not stored.account.is_active:
            raise AccountNotFound(user_id)
        return self._token_set(stored.account, snapshot, None)

    async def create_key(self, caller: Principal, command: CreateKey, ask: Ask) -> tuple[NewApiKey, bool]:
        """Make an API key; its secret is in this answer and nowhere else."""
        user_id = own_or_operator(caller, command.user_id)
        return await self._requests.once(
            ask, lambda: self._create_key(user_id, command, ask), self._key_without_secret
        )

    async def _create_key(self, user_id: str, command: CreateKey, ask: Ask) -> NewApiKey:
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

    async def list_keys(self, caller: Principal, command: ListKeys) -> Sequence[ApiKey]:
        """All keys of an account, oldest first, without their secrets."""
        user_id = own_or_operator(caller, command.user_id)
        if await self._store.account(user_id) is None:
            raise AccountNotFound(user_id)
        return await self._store.keys(user_id)

    async def revoke_key(self, caller: Principal, command: RevokeKey, ask: Ask) -> tuple[ApiKey, bool]:
        """End a key and every token of its account; repeating it changes nothing."""
        found = await self._store.key(command.key_id)
        if found is None or (found[0].user_id != caller.user_id and not caller.is_operator):
            raise KeyNotFound(command.key_id)
        return await self._requests.once(
            ask, lambda: self._revoke_key(*found, ask=ask), self._key_without_secret
        )

    async def _revoke_key(self, key: ApiKey, digest: str, ask: Ask) -> ApiKey:
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

    async def _key_without_secret(self, key_id: str) -> NewApiKey:
        found = await self._store.key(key_id)
        if found is None:
            raise KeyNotFound(key_id)
        return NewApiKey(**found[0].model_dump())

    async def _user_of_key(self, api_key: str) -> str | None:
        prefix, _, rest = api_key.partition("_")
        name, _, secret = rest.partition("_")
        found = await self._store.key(f"key_{name}") if prefix == "ck" else None
        if found is None or not hmac.compare_digest(found[1], digest_of(secret)):
            return None
        key = found[0]
        ended = key.revoked_at is not None or (key.expires_at is not None and self._clock() >= key.expires_at)
        return None if ended else key.user_id

    async def _snapshot(self, user_id: str, casefile_ids: Collection[str]) -> AccessSnapshot:
        return await self._feed.snapshot(user_id, casefile_ids, to_us(self._clock()))

    async def _issue(
        self, account: Account, snapshot: AccessSnapshot, family: str, used: tuple[str, ...]
    ) -> TokenSet:
        secret, now = f"cr_{secrets.token_urlsafe(32)}", self._clock()
        fresh = PutRefresh(digest_of(secret), family, account.user_id, now + REFRESH_LIFETIME)
        await self._commits.commit(
            Commit(
                conditions=(
                    AccountStands(account.user_id, snapshot.asof),
                    *(FamilyLives(digest) for digest in used),
                ),
                records=(*(UseRefresh(digest, now) for digest in used), fresh),
            )
        )
        return self._token_set(account, snapshot, secret)

    def _token_set(self, account: Account, snapshot: AccessSnapshot, refresh_token: str | None) -> TokenSet:
        minted = self._tokens.mint(
            account.user_id,
            account.pseudonym,
            is_operator=account.is_operator,
            snapshot=snapshot,
            scopes=snapshot.scopes,
        )
        return TokenSet(
            access_token=minted.token,
            expires_in=int((minted.expires_at - self._clock()).total_seconds()),
            refresh_token=refresh_token,
            user_id=account.user_id,
            casefile_scopes={c: s.role.value for c, s in minted.scopes.items()},
        )


def _in_order(scopes: Mapping[str, Scope], order: Sequence[str]) -> dict[str, Scope]:
    return {casefile_id: scopes[casefile_id] for casefile_id in order if casefile_id in scopes}


def own_or_operator(caller: Principal, user_id: str | None) -> str:
    """Whose credentials are meant: one's own, or, for operators, another's."""
    if user_id is None or user_id == caller.user_id:
        return caller.user_id
    if not caller.is_operator:
        raise OperatorOnly
    return user_id
