"""Tokens of external issuers: verifying them, and finding the account of the person they name.

Believed is what an issuer of the settings has signed, with a key of its own and an algorithm of its family, for this
deployment, and for now (RFC 8725; OpenID Connect Core §3.1.3.7). Nothing that a token says about where its keys are
is read.
"""

import base64
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from joserfc import jws
from joserfc.errors import BadSignatureError, JoseError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from casekeeper.clock import Clock
from casekeeper.errors import CredentialsRejected
from casekeeper.identity.issuer import Family, Issuer
from casekeeper.identity.issuer_keys import KeyLookup, PublicKey
from casekeeper.identity.strict_json import loads_once
from casekeeper.ids import UserId
from casekeeper.values import value

TOKEN_BYTES_MAX = 16_384

# Ed25519 is RFC 9864's name; most issuers still write EdDSA.
ALGORITHMS: Mapping[Family, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512"),
    "RSA-PSS": ("PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "Ed25519": ("Ed25519", "EdDSA"),
}


class _Registry(jws.JWSRegistry):
    def get_alg(self, name: str) -> Any:
        # One algorithm under two names; the library warns of the older.
        return super().get_alg("Ed25519" if name == "EdDSA" else name)


_REGISTRIES = {
    family: _Registry(algorithms=list(names), strict_check_header=False)
    for family, names in ALGORITHMS.items()
}
# ID tokens and access tokens; a logout token or a security event is no login.
_TYPES = (None, "jwt", "at+jwt", "application/at+jwt")

_USER_ID: TypeAdapter[str] = TypeAdapter(UserId)
_security = logging.getLogger("casekeeper.security")


class _Claims(BaseModel):
    """What is read of a token. Strict: a claim of another type is a bad token."""

    model_config = ConfigDict(strict=True, frozen=True)

    iss: str
    sub: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    aud: str | Annotated[list[str], Field(min_length=1)]
    exp: int | float
    iat: int | float
    nbf: int | float = 0
    azp: str | None = None
    nonce: str | None = None
    # What issuers put here differs, and a login by subject must not depend on it.
    email: Any = None
    email_verified: Any = False
    name: Any = None


@value
class ExternalUser:
    """Whom an issuer's token stands for; `may_be_made`: the account is made where there is none."""

    user_id: str
    display_name: str
    may_be_made: bool


class _Unbelievable(Exception):
    """What is wrong with a token, for the security log only."""


class _WrongKey(_Unbelievable):
    """It is signed, with another key than the one that was taken."""


class Issuers:
    """The issuers of the settings, by their exact names."""

    def __init__(self, issuers: Iterable[tuple[Issuer, KeyLookup]], clock: Clock) -> None:
        self._issuers = {issuer.issuer: (issuer, keys) for issuer, keys in issuers}
        self._clock = clock

    async def user_of(self, token: str, *, of: str | None = None, nonce: str | None = None) -> ExternalUser:
        """Whom the token stands for; `of` and `nonce`: which issuer must have made it, for which login.

        Raises:
            CredentialsRejected: It is not believable, or stands for nobody here; why is not told.
            IssuerUnavailable: Its issuer's keys cannot be had.
        """
        try:
            issuer, claims = await self._believed(token)
            if of not in (None, issuer.issuer) or (nonce is not None and claims.nonce != nonce):
                raise _Unbelievable("it was made for another login")
            return _linked(issuer, claims)
        except _Unbelievable as error:
            _security.warning("external token refused: %s", error)
            raise CredentialsRejected from error

    async def _believed(self, token: str) -> tuple[Issuer, _Claims]:
        header, payload = _peek(token)
        found = self._issuers.get(payload["iss"]) if isinstance(payload.get("iss"), str) else None
        if found is None:
            raise _Unbelievable("its issuer is not known here")
        issuer, keys = found
        kid = header.get("kid")
        # Judged before any key is looked for: `none` and HMAC never get as far as a key.
        if header.get("alg") not in ALGORITHMS[issuer.algorithm]:
            raise _Unbelievable("its algorithm is not the issuer's")
        typ = header.get("typ")
        if "crit" in header or (typ.lower() if isinstance(typ, str) else typ) not in _TYPES:
            raise _Unbelievable("it is another kind of token")
        if kid is not None and not isinstance(kid, str):
            raise _Unbelievable("its kid is no text")
        key = await keys.find(kid)
        if key is None:
            raise _Unbelievable("its key is not one of the issuer's")
        try:
            claims = _opened(token, key, issuer.algorithm)
        except _WrongKey:
            other = await keys.another(kid, key)
            if other is None:
                raise
            claims = _opened(token, other, issuer.algorithm)
        self._must_be_for_us_now(issuer, claims)
        return issuer, claims

    def _must_be_for_us_now(self, issuer: Issuer, claims: _Claims) -> None:
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if claims.iss != issuer.issuer or issuer.audience not in audiences:
            raise _Unbelievable("it was made by or for another")
        if claims.azp not in (None, issuer.audience) or (len(audiences) > 1 and claims.azp is None):
            raise _Unbelievable("another party may use it")
        now, leeway = self._clock(), timedelta(seconds=issuer.leeway_s)
        if _instant(claims.exp) <= now - leeway:
            raise _Unbelievable("it has expired")
        if max(_instant(claims.iat), _instant(claims.nbf)) > now + leeway:
            raise _Unbelievable("it begins in the future")


def _opened(token: str, key: PublicKey, family: Family) -> _Claims:
    """The claims, verified."""
    try:
        signed = jws.deserialize_compact(token.encode(), key, registry=_REGISTRIES[family])
        return _Claims.model_validate_json(signed.payload)
    except BadSignatureError as error:
        raise _WrongKey("it was not signed with the issuer's key") from error
    except (JoseError, ValidationError, ValueError, TypeError, RecursionError) as error:
        raise _Unbelievable(f"it does not verify ({type(error).__name__})") from error


def _peek(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and payload, believed for nothing but finding the issuer."""
    if len(token) > TOKEN_BYTES_MAX or not token.isascii():
        raise _Unbelievable("it is too large, or no token")
    try:
        header, payload = (
            loads_once(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
            for part in token.split(".")[:2]
        )
    except (ValueError, RecursionError) as error:
        raise _Unbelievable("it is no token") from error
    if not isinstance(header, dict) or not isinstance(payload, dict):
        raise _Unbelievable("it is no token")
    return header, payload  # pyright: ignore[reportUnknownVariableType] - foreign JSON


def _linked(issuer: Issuer, claims: _Claims) -> ExternalUser:
    """The account that the token stands for."""
    name = claims.name if isinstance(claims.name, str) else ""
    display_name = name[:200] if name.isprintable() else ""
    if issuer.link == "subject":
        return ExternalUser(user_of_subject(issuer.issuer, claims.sub), display_name, issuer.creates_accounts)
    # Some issuers write "true"; whether that means the claim is anybody's guess.
    if claims.email_verified is not True:
        raise _Unbelievable("it names no verified e-mail address")
    try:
        user_id = _USER_ID.validate_python(claims.email)
    except ValidationError as error:
        raise _Unbelievable("its e-mail address is no user id") from error
    if issuer.email_domains and user_id.rpartition("@")[2] not in issuer.email_domains:
        raise _Unbelievable("its e-mail address is of a domain that this issuer does not speak for")
    return ExternalUser(user_id, display_name, issuer.creates_accounts)


def user_of_subject(issuer: str, subject: str) -> str:
    """The user id of a subject of an issuer: 128 bits of their SHA-256, at `oidc.invalid` (RFC 2606), where no mail is."""
    digest = hashlib.sha256(json.dumps([issuer, subject]).encode()).digest()
    return f"oidc-{digest[:16].hex()}@oidc.invalid"


def _instant(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise _Unbelievable("it names an impossible time") from error
