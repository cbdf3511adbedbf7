"""Tokens that no server makes: put together by hand, signed by whomever the test likes."""

import base64
import time
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import OKPKey

from casekeeper.server import Server

Claims = dict[str, Any]


def b64(data: bytes) -> str:
    """base64url without padding, as JWS writes it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def parts_of(token: str) -> tuple[Claims, Claims]:
    """Header and claims of a token, unverified."""
    header, claims, _ = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
    return orjson.loads(header), orjson.loads(claims)


def sign(server: Server, claims: Claims | bytes, header: Claims | None = None) -> str:
    """A token with the server's own signature, whatever it says."""
    kid, key = server.identity.signing_keys.current
    whole = {"alg": "Ed25519", "typ": "at+jwt", "kid": kid} | (header or {})
    body = claims if isinstance(claims, bytes) else orjson.dumps(claims)
    return sign_with(key, whole, body)


def sign_with(key: OKPKey, header: Claims, body: bytes) -> str:
    """A token signed with this key; headers that a library would refuse are written as they are."""
    return _signed(key, orjson.dumps(header), body)


def sign_text(server: Server, header: bytes, body: bytes) -> str:
    """A token with the server's own signature over whatever stands there, JSON or not."""
    return _signed(server.identity.signing_keys.current[1], header, body)


def _signed(key: OKPKey, header: bytes, body: bytes) -> str:
    signing_input = f"{b64(header)}.{b64(body)}"
    private = key.private_key
    assert isinstance(private, Ed25519PrivateKey)
    signature = private.sign(signing_input.encode())
    return f"{signing_input}.{b64(signature)}"


def forged(token: str, server: Server) -> str:
    """The same token, signed by a stranger's key under the server's kid."""
    header, claims = parts_of(token)
    assert header["kid"] == server.identity.signing_keys.current[0]
    return sign_with(OKPKey.generate_key("Ed25519"), header, orjson.dumps(claims))


def expired(token: str, server: Server) -> str:
    """The same token, issued and ended an hour ago."""
    _, claims = parts_of(token)
    now = int(time.time())
    return sign(server, claims | {"iat": now - 4200, "exp": now - 3600})
