"""An issuer's public keys: of one family of algorithms, and only those that are large enough to sign.

An unknown `kid`, or a signature that does not fit, is the sender's doing, so it leads to one look every 30 s at most.
"""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Protocol

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from casekeeper.identity.discovery import address_in, configuration_of, json_object
from casekeeper.identity.issuer import Family, Issuer
from casekeeper.identity.published import Fetch, FetchFailed, Published

KEYS_MAX = 64

_RSA_CHARS_MIN = 342  # 2,048 bits in base64url (RFC 7518 §3.3)
_CURVES = {"EC": ("P-256", "P-384", "P-521"), "Ed25519": ("Ed25519",)}

PublicKey = RSAKey | ECKey | OKPKey


class KeyLookup(Protocol):
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
        self._keys = Published(issuer.issuer, "The keys", self._asked, elapsed_s)

    async def find(self, kid: str | None) -> PublicKey | None:
        """The key of this kid, or the issuer's only one where the token names none.

        Raises:
            IssuerUnavailable: There are no keys that can be believed, and the issuer does not give any.
        """
        key = _of(await self._keys.current(), kid)
        return _of(await self._keys.looked_up_again(), kid) if key is None else key

    async def another(self, kid: str | None, than: PublicKey) -> PublicKey | None:
        """What the issuer has put in this key's place: tokens that name no kid do not show that it changed.

        None if it is the same still, or if the issuer was asked lately.
        """
        key = _of(await self._keys.current(), kid)
        if key is than:
            key = _of(await self._keys.looked_up_again(), kid)
        return None if key is None or key.thumbprint() == than.thumbprint() else key

    async def _asked(self) -> Mapping[str | None, PublicKey]:
        where = self._issuer.jwks_uri
        if where is None:
            said = await configuration_of(self._issuer, self._fetch)
            where = address_in(said, "jwks_uri", self._issuer)
        keys = _usable(json_object(await self._fetch(where)).get("keys"), self._issuer.algorithm)
        if not keys:
            raise FetchFailed(f"{where} names no key that can be used")
        return keys


def _of(keys: Mapping[str | None, PublicKey], kid: str | None) -> PublicKey | None:
    if kid is None:
        return next(iter(keys.values())) if len(keys) == 1 else None
    return keys.get(kid)


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
