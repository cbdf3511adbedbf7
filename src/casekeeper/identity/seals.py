"""Sealed values: encrypted and authenticated, for a browser to keep and send back.

The deployment's secret is in a file that all its processes share, so any of them opens what another has sealed.
"""

import hashlib
import hmac
from typing import Any

import orjson
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

_HEADER = {"alg": "dir", "enc": "A256GCM"}
_REGISTRY = jwe.JWERegistry(algorithms=list(_HEADER.values()))
# More than a browser keeps in a cookie (RFC 6265 §6.1).
_SEALED_MAX = 4096


class Seals:
    """Seals and signs with keys derived from the secret, one for each purpose."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def seal(self, purpose: str, fields: dict[str, Any]) -> str:
        """The fields, encrypted and authenticated (RFC 7516, `dir`, A256GCM), in characters that a cookie may have."""
        return jwe.encrypt_compact(_HEADER, orjson.dumps(fields), self._key(purpose), registry=_REGISTRY)

    def open(self, purpose: str, sealed: str) -> dict[str, Any] | None:
        """The fields; None where this was not sealed here for this purpose."""
        if len(sealed) > _SEALED_MAX or not sealed.isascii():
            return None
        try:
            opened = jwe.decrypt_compact(sealed, self._key(purpose), registry=_REGISTRY)
            return orjson.loads(opened.plaintext or b"")
        except (JoseError, ValueError, TypeError, KeyError):
            return None

    def mac(self, purpose: str, text: str) -> str:
        """HMAC-SHA-256 in hex."""
        return hmac.digest(self._derived(purpose), text.encode(), "sha256").hex()

    def _key(self, purpose: str) -> OctKey:
        return OctKey.import_key(self._derived(purpose))

    def _derived(self, purpose: str) -> bytes:
        return hmac.digest(self._secret, purpose.encode(), hashlib.sha256)
