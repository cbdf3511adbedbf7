"""Refresh tokens and API keys as a store keeps them: only the SHA-256 of each secret."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from casekeeper.identity.accounts import AccountStore
from casekeeper.ids import KeyId, UserId
from casekeeper.journal.commits import About, Condition, Record, Superseded
from casekeeper.values import value


class ApiKey(BaseModel):
    """An API key without its secret."""

    model_config = ConfigDict(frozen=True)

    key_id: KeyId
    user_id: UserId
    name: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


@value
class PutKey(Record):
    """The key as it is from now on; `digest` is the SHA-256 of its secret."""

    key: ApiKey
    digest: str

    @property
    def about(self) -> Sequence[About]:
        return (About("key", self.key.key_id, alone=True),)


@value
class PutRefresh(Record):
    """A refresh token that may be used once."""

    digest: str
    family: str
    user_id: str
    expires_at: datetime

    @property
    def about(self) -> Sequence[About]:
        return (
            About("account", self.user_id, alone=True),
            About("family", self.family, alone=True),
            About("token", self.digest, alone=True),
        )


@value
class UseRefresh(Record):
    """Marks the first use of a refresh token."""

    digest: str
    now: datetime

    @property
    def about(self) -> Sequence[About]:
        return (About("token", self.digest, alone=True),)


@value
class EndFamily(Record):
    """No token of this family works any more."""

    family: str

    @property
    def about(self) -> Sequence[About]:
        return (About("family", self.family, alone=True),)


@value
class FamilyLives(Condition):
    """The refresh token has not been ended by a logout or deactivation."""

    digest: str

    @property
    def about(self) -> Sequence[About]:
        # Of the family and the account is the token that goes with it.
        return (About("token", self.digest, alone=True),)

    def refusal(self, found: Any) -> Exception | None:
        return None if found else Superseded()


@value
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


def digest_of(secret: str) -> str:
    """Under which a secret is kept."""
    # 256 random bits need no slow hash.
    return hashlib.sha256(secret.encode()).hexdigest()
