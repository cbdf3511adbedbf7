"""An issuer's public keys: fetched when they are needed, kept while the issuer is away, never fetched in a flood.

Nobody who sends tokens decides how often the issuer is asked: an unknown `kid`, or a signature that does not fit, is the
sender's doing, so it leads to one look every 30 s at most, for all senders together.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from casekeeper.errors import IssuerUnavailable
from casekeeper.identity.discovery import Fetch, FetchFailed, address_in, configuration_of, json_object
from casekeeper.identity.issuer import Family, Issuer

RENEW_AFTER_S = 600.0
"""Older keys are used still, and renewed meanwhile."""

OLD_S = 3600.0
"""Older keys are used only if they cannot be renewed."""

STALE_S = 24 * 3600.0
"""Keys that could not be renewed for a day are not believed any more."""

COOLDOWN_S = 30.0
"""Between looks for a key that is not known."""

RETRY_S = 5.0
"""Between tries while there is no key at all."""

KEYS_MAX = 64

_RSA_CHARS_MIN = 342  # 2,048 bits in base64url (RFC 7518 §3.3)
_CURVES = {"EC": ("P-256", "P-384", "P-521"), "Ed25519": ("Ed25519",)}

PublicKey = RSAKey | ECKey | OKPKey


class Keys(Protocol):
    """Where the key of a token is looked up."""

    async def find(self, kid: str | None) -> PublicKey | None:
        """The key of this kid."""
        ...

    async def another(self, kid: str | None, than: PublicKey) -> PublicKey | None:
        """The key of this kid after another look, where the one that was found does not fit."""
        ...


class IssuerKeys:
    """The keys of one issuer."""

    def __init__(self, issuer: Issuer, fetch: Fetch, elapsed_s: Callable[[], float] = monotonic) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._elapsed_s = elapsed_s
        self._keys: dict[str | None, PublicKey] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._renewing: asyncio.Task[None] | None = None

    async def find(self, kid: str | None) -> PublicKey | None:
        """The key of this kid, or the issuer's only one where the token names none.

        Raises:
            IssuerUnavailable: There are no keys that can be believed, and the issuer does not give any.
        """
        age = self._elapsed_s() - self._fetched_at
        if age > STALE_S:
            await self._first()
        elif age > RENEW_AFTER_S and self._may_try(COOLDOWN_S):
            renewal = self._renew()
            if age > OLD_S:
                # Nobody has used them for long: one that the issuer has taken back must not let anybody in.
                await asyncio.shield(renewal)
        key = self._known(kid)
        if key is None and (self._renewing is not None or self._may_try(COOLDOWN_S)):
            await asyncio.shield(self._renew())
            key = self._known(kid)
        return key

    async def another(self, kid: str | None, than: PublicKey) -> PublicKey | None:
        """What the issuer has put in this key's place: tokens that name no kid do not show that it changed.

        None if it is the same still, or if the issuer was asked lately.
        """
        if self._known(kid) is than:
            if self._renewing is None and not self._may_try(COOLDOWN_S):
                return None
            await asyncio.shield(self._renew())
        key = self._known(kid)
        return None if key is None or key.thumbprint() == than.thumbprint() else key

    async def _first(self) -> None:
        if self._renewing is not None or self._may_try(RETRY_S):
            await asyncio.shield(self._renew())
        if self._elapsed_s() - self._fetched_at > STALE_S:
            raise IssuerUnavailable(f"The keys of {self._issuer.issuer} cannot be fetched.")

    def _known(self, kid: str | None) -> PublicKey | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    def _may_try(self, pause_s: float) -> bool:
        return self._elapsed_s() - self._tried_at >= pause_s

    def _renew(self) -> "asyncio.Task[None]":
        if self._renewing is None:
            self._tried_at = self._elapsed_s()
            self._renewing = asyncio.create_task(self._fetched())
        return self._renewing

    async def _fetched(self) -> None:
        """Fetch the keys; what goes wrong leaves those that there are."""
        try:
            where = self._issuer.jwks_uri
            if where is None:
                said = await configuration_of(self._issuer, self._fetch)
                where = address_in(said, "jwks_uri", self._issuer)
            keys = _usable(json_object(await self._fetch(where)).get("keys"), self._issuer.algorithm)
            if keys:
                self._keys, self._fetched_at = keys, self._elapsed_s()
        except FetchFailed:
            pass
        finally:
            self._renewing = None


def _usable(given: Any, family: Family) -> dict[str | None, PublicKey]:
    """The signing keys of this family by kid; what is anything else is passed over."""
    keys: dict[str | None, PublicKey] = {}
    items: list[Any] = given if isinstance(given, list) else []  # pyright: ignore[reportUnknownVariableType]
    objects: list[dict[str, Any]] = [item for item in items[:KEYS_MAX] if isinstance(item, dict)]
    for item in objects:
        if (key := _key(item, family)) is not None:
            kid = item.get("kid")
            keys[kid if isinstance(kid, str) else None] = key
    return keys


def _key(item: dict[str, Any], family: Family) -> PublicKey | None:
    if item.get("use", "sig") != "sig" or item.get("key_ops", ["verify"]) != ["verify"]:
        return None
    # Only what a public key is made of is read.
    public = {name: item[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in item}
    try:
        match public.get("kty"), family:
            case "RSA", "RSA" | "RSA-PSS":
                return RSAKey.import_key(public) if len(public["n"]) >= _RSA_CHARS_MIN else None
            case "EC", "EC":
                return ECKey.import_key(public) if public["crv"] in _CURVES["EC"] else None
            case "OKP", "Ed25519":
                return OKPKey.import_key(public) if public["crv"] in _CURVES["Ed25519"] else None
            case _:
                return None
    except (JoseError, ValueError, TypeError, KeyError):
        return None
