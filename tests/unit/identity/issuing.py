"""An issuer of the tests' own: keys, a scripted answer to whoever asks for them, and tokens of every kind."""

import base64
import hmac
import json
import warnings
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from casekeeper.identity.published import FetchFailed
from tests.unit.support import NOW

URL, AUDIENCE = "https://login.example.com", "casekeeper-console"
CONFIGURATION, JWKS = f"{URL}/.well-known/openid-configuration", f"{URL}/keys"

# Making an RSA key takes longer than a test.
RSA, OTHER_RSA = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
EC, ED = ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519")

AnyKey = RSAKey | ECKey | OKPKey


def public(key: RSAKey | ECKey | OKPKey, kid: str | None = "k1", **more: Any) -> dict[str, Any]:
    """A key as an issuer publishes it."""
    named = {"kid": kid} if kid is not None else {}
    return {**key.as_dict(private=False), **named, "use": "sig", **more}


def claims(now: datetime = NOW, **more: Any) -> dict[str, Any]:
    """What a good token says; None takes a claim away."""
    at = int(now.timestamp())
    good = {"iss": URL, "aud": AUDIENCE, "sub": "anna-1", "iat": at, "exp": at + 300}
    return {name: value for name, value in {**good, **more}.items() if value is not None}


def signed(
    said: dict[str, Any], key: AnyKey = RSA, alg: str = "RS256", kid: str | None = "k1", **header: Any
) -> str:
    """A token."""
    head = {"alg": alg, **({"kid": kid} if kid is not None else {}), **header}
    registry = jws.JWSRegistry(algorithms=[alg], strict_check_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        return jws.serialize_compact(head, json.dumps(said).encode(), key, registry=registry)


def with_secret(said: dict[str, Any], secret: bytes) -> str:
    """A token with an HMAC under these bytes; libraries refuse to make one with a public key."""
    text = unsigned(said, "HS256")[:-1]
    mac = hmac.digest(secret, text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def with_text(head: bytes, said: bytes) -> str:
    """A token under the first RSA key over whatever stands there, JSON or not."""
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, said))
    private = RSA.private_key
    assert isinstance(private, RSAPrivateKey)
    signature = private.sign(text, PKCS1v15(), SHA256())
    return b".".join((text, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


def unsigned(said: dict[str, Any], alg: str = "none", **header: Any) -> str:
    """A token without a signature."""
    parts = ({"alg": alg, "kid": "k1", **header}, said)
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + "."
    )


class Site:
    """Answers to those who ask an issuer, and what they asked for."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.asked: list[str] = []
        self.pages: dict[str, Any] = {
            CONFIGURATION: {"issuer": URL, "jwks_uri": JWKS},
            JWKS: {"keys": list(keys or (public(RSA),))},
        }

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        page = self.pages.get(url)
        if page is None:
            raise FetchFailed(url)
        return page if isinstance(page, bytes) else json.dumps(page).encode()

    def publish(self, *keys: dict[str, Any]) -> None:
        """These are the keys from now on."""
        self.pages[JWKS] = {"keys": list(keys)}
