"""How a caller gets tokens: a password or an API key for the first, a refresh token for the next ones."""

import logging
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, model_validator

from casekeeper.acl_feed import AccessSnapshot, AclFeed, Scope
from casekeeper.clock import Clock, to_us
from casekeeper.errors import (
    AccountExists,
    AccountNotFound,
    CredentialsRejected,
    TokenRejected,
)
from casekeeper.identity.accounts import (
    Account,
    AccountAbsent,
    AccountStands,
    PutAccount,
    StoredAccount,
)
from casekeeper.identity.api_keys import ApiKeys
from casekeeper.identity.credentials import (
    CredentialStore,
    EndFamily,
    FamilyLives,
    PutRefresh,
    UseRefresh,
    digest_of,
)
from casekeeper.identity.issuers import TOKEN_BYTES_MAX, ExternalUser, Issuers
from casekeeper.identity.passwords import Passwords
from casekeeper.identity.principal import Principal
from casekeeper.identity.tokens import MAX_SCOPES, Minted, Tokens
from casekeeper.ids import CasefileId, UserId, new_pseudonym
from casekeeper.journal.commits import Commit, Commits, Superseded
from casekeeper.strict import Strict
from casekeeper.values import value

REFRESH_LIFETIME = timedelta(days=14)
REPLY_LOST = timedelta(seconds=10)
"""A used refresh token works again this long: the reply may have been lost on its way."""

_security = logging.getLogger("casekeeper.security")

Secret = Annotated[str, StringConstraints(min_length=1, max_length=256)]
WantedScopes = Annotated[
    list[CasefileId],
    Field(max_length=MAX_SCOPES, description="Casefiles whose scopes the token shall carry from the start."),
]


class Login(Strict):
    """Ask for tokens with a password (`user_id` and `password`), an `api_key`, or an issuer's `id_token`."""

    user_id: UserId | None = None
    password: Secret | None = None
    api_key: Secret | None = None
    id_token: Annotated[str, StringConstraints(min_length=1, max_length=TOKEN_BYTES_MAX)] | None = Field(
        default=None, description="A token of an issuer in the settings: docs/identity.md."
    )
    casefile_ids: WantedScopes = Field(default=[])

    @model_validator(mode="after")
    def _one_way(self) -> "Login":
        by_password = self.user_id is not None and self.password is not None
        if [by_password, self.api_key is not None, self.id_token is not None].count(True) != 1:
            raise ValueError("give either user_id and password, or api_key, or id_token")
        return self


class Refresh(Strict):
    """Ask for the next tokens. Each refresh token is good once (and ten seconds more, for a lost reply)."""

    refresh_token: Secret
    casefile_ids: WantedScopes = Field(default=[])


class TokenSet(BaseModel):
    """What a login gives."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - RFC 6750 names it so
    expires_in: int = Field(description="Seconds until the access token ends.")
    refresh_token: str | None = None
    user_id: str
    casefile_scopes: dict[str, str] = Field(description="Role by casefile, as the access token carries it.")


@value
class Known:
    """An account whose credentials were right, and the state of the permission feed on which that was judged."""

    account: Account
    snapshot: AccessSnapshot


class Logins:
    """Tokens for accounts."""

    def __init__(
        self,
        store: CredentialStore,
        commits: Commits,
        feed: AclFeed,
        tokens: Tokens,
        passwords: Passwords,
        keys: ApiKeys,
        clock: Clock,
        issuers: Issuers | None = None,
    ) -> None:
        self._issuers = issuers or Issuers((), clock)
        self._store = store
        self._commits = commits
        self._feed = feed
        self._tokens = tokens
        self._passwords = passwords
        self._keys = keys
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
        claimed = login.user_id or await self._keys.user_of(login.api_key or "")
        # The snapshot comes first: whatever changes the account after it is newer than the token's `asof`.
        snapshot = await self._snapshot(claimed or "nobody@invalid", login.casefile_ids)
        stored = await self._store.account(claimed) if claimed else None
        if login.password is not None:
            right = await self._passwords.matches(login.password, stored.password_hash if stored else None)
        else:
            right = claimed is not None and await self._keys.user_of(login.api_key or "") == claimed
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
