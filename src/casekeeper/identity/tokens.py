"""Access tokens: JWT signed with Ed25519 (RFC 7519, RFC 8037, RFC 9068 for `typ`), and how scopes live in them.

Checked on every token: size, `typ`, `alg`, `kid`, signature, `iss`, `aud`, `exp`, `iat`, `nbf`, `sub` (RFC 8725), and
that nothing stands in it twice.
"""

import hashlib
import secrets
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import orjson
from joserfc import jws
from joserfc.errors import JoseError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from casekeeper.acl import Role
from casekeeper.acl_feed import AccessSnapshot, Scope
from casekeeper.clock import Clock
from casekeeper.errors import TokenExpired, TokenMissing, TokenRejected
from casekeeper.identity.keys import SigningKeys
from casekeeper.identity.principal import Principal
from casekeeper.identity.strict_json import loads_once
from casekeeper.values import value

LIFETIME = timedelta(minutes=10)
MAX_SCOPES = 64
MAX_SCOPES_BYTES = 4096
MAX_TOKEN_BYTES = 8192
TYP = "at+jwt"
ALG = "Ed25519"  # RFC 9864; EdDSA is the older, wider name

_LEEWAY = timedelta(seconds=5)
_CACHED = timedelta(seconds=60)
_CACHE_SIZE = 10_000
_REGISTRY = jws.JWSRegistry(algorithms=[ALG])


class Claims(BaseModel):
    """What an access token says. Strict: a claim of another type is a bad token."""

    model_config = ConfigDict(strict=True, frozen=True)

    iss: str
    aud: str
    sub: str
    exp: int
    iat: int
    nbf: int = 0
    jti: str = Field(min_length=8)
    psn: str
    operator: bool = False
    epoch: str
    asof: int = Field(ge=0)
    casefile_scopes: dict[str, tuple[str, int | None]] = Field(max_length=MAX_SCOPES)


@value
class Minted:
    """A new access token, what it carries, and which casefiles had to leave."""

    token: str
    expires_at: datetime
    scopes: Mapping[str, Scope]
    evicted: tuple[str, ...]


class Standing(Protocol):
    """Whether an account's tokens still stand: no user-wide change (logout, deactivation) since they were made."""

    async def stands(self, user_id: str, epoch: str, asof: int) -> bool:
        """Whether nothing ended the tokens that were made at this number of this feed."""
        ...


def fit_scopes(scopes: Mapping[str, Scope]) -> tuple[dict[str, Scope], tuple[str, ...]]:
    """The scopes that fit into a token and those that leave; expects the least recently used ones first."""
    kept = OrderedDict(scopes)
    evicted: list[str] = []
    while len(kept) > MAX_SCOPES or len(orjson.dumps(_wire(kept))) > MAX_SCOPES_BYTES:
        evicted.append(kept.popitem(last=False)[0])
    return dict(kept), tuple(evicted)


def _wire(scopes: Mapping[str, Scope]) -> dict[str, tuple[str, int | None]]:
    return {casefile_id: (scope.role.value, scope.not_after) for casefile_id, scope in scopes.items()}


class Tokens:
    """Mints and verifies the deployment's own access tokens."""

    def __init__(
        self,
        keys: SigningKeys,
        issuer: str,
        audience: str,
        clock: Clock,
        *,
        cache_size: int = _CACHE_SIZE,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._cache_size = cache_size
        self._verified: OrderedDict[bytes, tuple[datetime, Principal]] = OrderedDict()

    def mint(
        self,
        user_id: str,
        pseudonym: str,
        *,
        is_operator: bool,
        snapshot: AccessSnapshot,
        scopes: Mapping[str, Scope],
        expires_at: datetime | None = None,
    ) -> Minted:
        """A token for this user; `scopes` in order of use, the least recently used first.

        Everything that the token claims about permissions was read in `snapshot`.
        """
        now = self._clock()
        expires_at = min(expires_at or now + LIFETIME, now + LIFETIME)
        kept, evicted = fit_scopes(scopes)
        kid, key = self._keys.current
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user_id,
            "exp": int(expires_at.timestamp()),
            "iat": int(now.timestamp()),
            "jti": secrets.token_hex(8),
            "psn": pseudonym,
            "operator": is_operator,
            "epoch": snapshot.epoch,
            "asof": snapshot.asof,
            "casefile_scopes": _wire(kept),
        }
        header = {"alg": ALG, "typ": TYP, "kid": kid}
        token = jws.serialize_compact(header, orjson.dumps(claims), key, registry=_REGISTRY)
        return Minted(token, expires_at, kept, evicted)

    def verify(self, token: str) -> Principal:
        """The principal of a token. Only the signature check is cached, for at most a minute.

        Raises:
            TokenExpired: It was good, and has ended.
            TokenRejected: It is not one of ours, or not an access token, or malformed.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenRejected("The access token is larger than any that this server makes.")
        now = self._clock()
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        if cached := self._verified.get(digest):
            until, principal = cached
            if now < until:
                self._verified.move_to_end(digest)
                return principal
            del self._verified[digest]
        principal = self._check(token, now)
        self._verified[digest] = (min(principal.expires_at, now + _CACHED), principal)
        while len(self._verified) > self._cache_size:
            self._verified.popitem(last=False)
        return principal

    def _check(self, token: str, now: datetime) -> Principal:
        claims = self._open(token)
        if claims.iss != self._issuer or claims.aud != self._audience:
            raise TokenRejected("The access token was made by or for another server.")
        issued = _instant(claims.iat)
        expires = _instant(claims.exp)
        if max(issued, _instant(claims.nbf)) > now + _LEEWAY:
            raise TokenRejected("The access token begins in the future.")
        if expires <= now - _LEEWAY or issued <= now - LIFETIME - _LEEWAY:
            raise TokenExpired
        try:
            scopes = {c: Scope(Role(role), until) for c, (role, until) in claims.casefile_scopes.items()}
        except ValueError as error:
            raise TokenRejected from error
        return Principal(
            user_id=claims.sub,
            pseudonym=claims.psn,
            is_operator=claims.operator,
            epoch=claims.epoch,
            asof=claims.asof,
            expires_at=min(expires, issued + LIFETIME),
            scopes=scopes,
        )

    def _open(self, token: str) -> Claims:
        try:
            signed = jws.extract_compact(token.encode("ascii"))
            header: dict[str, Any] = signed.headers()
            kid = header.get("kid")
            # `jwk`, `jku`, `x5u` and `crit` are the sender's wishes; only what we write ourselves is read.
            if set(header) != {"alg", "typ", "kid"} or header["typ"] != TYP or header["alg"] != ALG:
                raise TokenRejected("The token is not an access token of this server.")
            key = self._keys.find(kid) if isinstance(kid, str) else None
            if key is None:
                raise TokenRejected("The access token names a signing key that is not known here.")
            verified = jws.deserialize_compact(token.encode("ascii"), key, registry=_REGISTRY)
            loads_once(urlsafe_b64decode(token.partition(".")[0] + "=="))
            loads_once(verified.payload)
            return Claims.model_validate_json(verified.payload)
        except (JoseError, ValidationError, ValueError, TypeError, RecursionError) as error:
            raise TokenRejected from error


class Authenticator:
    """Turns a bearer token into a principal that still stands."""

    def __init__(self, tokens: Tokens, standing: Standing) -> None:
        self._tokens = tokens
        self._standing = standing

    async def authenticate(self, token: str | None) -> Principal:
        """WHO.

        Raises:
            TokenMissing: There is none.
            TokenExpired: It has ended.
            TokenRejected: It is not believable, or its account was logged out, deactivated or changed since.
        """
        if not token:
            raise TokenMissing
        principal = self._tokens.verify(token)
        if not await self._standing.stands(principal.user_id, principal.epoch, principal.asof):
            raise TokenRejected("The account has changed since this access token was made; log in again.")
        return principal


def _instant(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise TokenRejected from error
