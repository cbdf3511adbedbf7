import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.acl import Role
from casekeeper.acl_feed import AccessSnapshot, Scope
from casekeeper.errors import TokenExpired, TokenRejected
from casekeeper.identity.keys import SigningKeys
from casekeeper.identity.principal import Principal
from casekeeper.identity.tokens import (
    LIFETIME,
    MAX_SCOPES,
    MAX_TOKEN_BYTES,
    Minted,
    Tokens,
)
from tests.unit.support import ANNA, NOW, StepClock

CASEFILE = "cf_251023_5acf44"
SCOPES = st.dictionaries(
    st.from_regex(r"cf_[0-9]{6}_[0-9a-f]{6}", fullmatch=True),
    st.builds(Scope, st.sampled_from(Role), st.one_of(st.none(), st.integers(0, 2**40))),
    max_size=80,
)


class Mint:
    """Tokens of one deployment; `forge` signs whatever it is given with the deployment's own key."""

    def __init__(self, directory: Path, *, cache_size: int = 10_000) -> None:
        self.clock = StepClock()
        self.keys = SigningKeys(directory)
        self.tokens = Tokens(self.keys, "casekeeper", "casekeeper", self.clock, cache_size=cache_size)

    def mint(self, scopes: dict[str, Scope] | None = None, expires_at: datetime | None = None) -> Minted:
        snapshot = AccessSnapshot("epoch", 7, 0, {})
        return self.tokens.mint(
            ANNA, "usr_1", is_operator=False, snapshot=snapshot, scopes=scopes or {}, expires_at=expires_at
        )

    def header(self, **more: Any) -> dict[str, Any]:
        return {"alg": "Ed25519", "typ": "at+jwt", "kid": self.keys.current[0], **more}

    def claims(self, **more: Any) -> dict[str, Any]:
        now = int(self.clock().timestamp())
        claims: dict[str, Any] = {
            "iss": "casekeeper",
            "aud": "casekeeper",
            "sub": ANNA,
            "exp": now + 600,
            "iat": now,
            "jti": "0123456789abcdef",
            "psn": "usr_1",
            "operator": False,
            "epoch": "epoch",
            "asof": 7,
            "casefile_scopes": {},
            **more,
        }
        return {name: value for name, value in claims.items() if value is not ...}

    def forge(self, header: Any = None, claims: Any = None) -> str:
        head = header if isinstance(header, bytes) else json.dumps(header or self.header()).encode()
        body = claims if isinstance(claims, bytes) else json.dumps(claims or self.claims()).encode()
        signed = b".".join((b64(head), b64(body)))
        private = self.keys.current[1].private_key
        assert isinstance(private, Ed25519PrivateKey)
        return b".".join((signed, b64(private.sign(signed)))).decode()


def b64(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Mint:
    """For laws, which try many examples."""
    return Mint(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def mint(tmp_path: Path) -> Mint:
    return Mint(tmp_path)


def test_the_forger_of_these_tests_makes_good_tokens(mint: Mint):
    assert mint.tokens.verify(mint.forge()).user_id == ANNA


@given(scopes=SCOPES, operator=st.booleans(), asof=st.integers(0, 2**60))
def test_what_was_minted_is_what_is_verified(
    shared: Mint, scopes: dict[str, Scope], operator: bool, asof: int
):
    snapshot = AccessSnapshot("epoch", asof, 0, scopes)
    minted = shared.tokens.mint(ANNA, "usr_1", is_operator=operator, snapshot=snapshot, scopes=scopes)

    principal = shared.tokens.verify(minted.token)

    assert principal == Principal(ANNA, "usr_1", operator, "epoch", asof, minted.expires_at, minted.scopes)


@given(scopes=SCOPES)
def test_no_token_is_too_large_for_its_own_verifier(shared: Mint, scopes: dict[str, Scope]):
    assert len(shared.mint(scopes).token) <= MAX_TOKEN_BYTES


def test_two_tokens_are_never_the_same(mint: Mint):
    assert mint.mint().token != mint.mint().token


def test_a_token_lives_ten_minutes(mint: Mint):
    assert mint.mint().expires_at == NOW + LIFETIME


def test_a_token_ends_when_the_one_that_it_replaces_does(mint: Mint):
    assert mint.mint(expires_at=NOW + timedelta(minutes=3)).expires_at == NOW + timedelta(minutes=3)


def test_no_token_outlives_its_ten_minutes(mint: Mint):
    assert mint.mint(expires_at=NOW + timedelta(days=3)).expires_at == NOW + LIFETIME


def test_an_ended_token_says_that_it_has_ended(mint: Mint):
    token = mint.mint().token
    mint.clock.now += LIFETIME + timedelta(seconds=5)

    with pytest.raises(TokenExpired):
        mint.tokens.verify(token)


def test_clocks_may_be_five_seconds_apart_at_the_end(mint: Mint):
    token = mint.mint().token
    mint.clock.now += LIFETIME + timedelta(seconds=4)

    assert mint.tokens.verify(token).user_id == ANNA


def test_clocks_may_be_five_seconds_apart_at_the_beginning(mint: Mint):
    token = mint.forge(claims=mint.claims(iat=int(NOW.timestamp()) + 5))

    assert mint.tokens.verify(token).user_id == ANNA


def test_a_token_that_claims_a_long_life_still_ends_after_ten_minutes(mint: Mint):
    token = mint.forge(claims=mint.claims(exp=2**37))
    principal = mint.tokens.verify(token)
    mint.clock.now += LIFETIME + timedelta(seconds=5)

    with pytest.raises(TokenExpired):
        mint.tokens.verify(token)
    assert principal.expires_at == NOW + LIFETIME


def test_a_token_from_the_past_has_ended_whatever_exp_says(mint: Mint):
    hour_ago = int((NOW - timedelta(hours=1)).timestamp())

    with pytest.raises(TokenExpired):
        mint.tokens.verify(mint.forge(claims=mint.claims(iat=hour_ago)))


HEADERS: dict[str, dict[str, Any]] = {
    "alg none": {"alg": "none"},
    "alg nOnE": {"alg": "nOnE"},
    "alg EdDSA": {"alg": "EdDSA"},
    "alg HS256": {"alg": "HS256"},
    "alg list": {"alg": ["Ed25519"]},
    "crit": {"crit": ["exp"], "exp": 1},
    "b64": {"crit": ["b64"], "b64": False},
    "jwk": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}},
    "jku": {"jku": "https://attacker.example/keys"},
    "x5u": {"x5u": "https://attacker.example/cert"},
    "cty": {"cty": "JWT"},
    "typ of an ID token": {"typ": "id+jwt"},
    "typ JWT": {"typ": "JWT"},
    "typ in capitals": {"typ": "AT+JWT"},
    "kid unknown": {"kid": "00000000000000000000-00000000"},
    "kid a path": {"kid": "../../etc/passwd"},
    "kid a number": {"kid": 1},
    "kid null": {"kid": None},
    "kid a list": {"kid": ["a"]},
}


@pytest.mark.parametrize("changes", HEADERS.values(), ids=HEADERS)
def test_a_header_that_we_would_not_write_is_refused(mint: Mint, changes: dict[str, Any]):
    with pytest.raises(TokenRejected):
        mint.tokens.verify(mint.forge(header=mint.header(**changes)))


@pytest.mark.parametrize("name", ["alg", "typ", "kid"])
def test_a_header_without_something_is_refused(mint: Mint, name: str):
    header = mint.header()
    del header[name]

    with pytest.raises(TokenRejected):
        mint.tokens.verify(mint.forge(header=header))


CLAIMS: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "other"},
    "a list as audience": {"aud": ["casekeeper"]},
    "another issuer": {"iss": "other"},
    "an issuer that begins alike": {"iss": "casekeeper.attacker.example"},
    "a list as issuer": {"iss": ["casekeeper"]},
    "a number as subject": {"sub": 7},
    "no subject": {"sub": ...},
    "no expiry": {"exp": ...},
    "no issue": {"iat": ...},
    "no id": {"jti": ...},
    "no issuer": {"iss": ...},
    "no audience": {"aud": ...},
    "no epoch": {"epoch": ...},
    "no number of the feed": {"asof": ...},
    "no scopes": {"casefile_scopes": ...},
    "no pseudonym": {"psn": ...},
    "an id too short": {"jti": "1"},
    "a string as expiry": {"exp": "9999999999"},
    "a fraction as expiry": {"exp": 9999999999.5},
    "true as expiry": {"exp": True},
    "null as expiry": {"exp": None},
    "an endless expiry": {"exp": 2**70},
    "an expiry beyond all years": {"exp": 2**60},
    "an issue before all years": {"iat": -(2**60)},
    "an issue before year one": {"iat": -(2**36)},
    "issued in the future": {"iat": int(NOW.timestamp()) + 6},
    "not before a future instant": {"nbf": int(NOW.timestamp()) + 6},
    "a string as not-before": {"nbf": "0"},
    "a negative number of the feed": {"asof": -1},
    "a string as operator": {"operator": "true"},
    "one as operator": {"operator": 1},
    "too many scopes": {"casefile_scopes": {f"cf_{n}": ["viewer", None] for n in range(MAX_SCOPES + 1)}},
    "an unknown role": {"casefile_scopes": {CASEFILE: ["root", None]}},
    "a role in capitals": {"casefile_scopes": {CASEFILE: ["OWNER", None]}},
    "a scope without an end": {"casefile_scopes": {CASEFILE: ["owner"]}},
    "a scope that is a string": {"casefile_scopes": {CASEFILE: "owner"}},
    "a list of scopes": {"casefile_scopes": [CASEFILE]},
}


@pytest.mark.parametrize("changes", CLAIMS.values(), ids=CLAIMS)
def test_claims_that_we_would_not_make_are_refused(mint: Mint, changes: dict[str, Any]):
    with pytest.raises(TokenRejected):
        mint.tokens.verify(mint.forge(claims=mint.claims(**changes)))


BODIES: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe",
    "nested a thousand times": b"[" * 2000 + b"]" * 2000,
    "NaN": b'{"exp":NaN}',
    "a name twice": b'{"alg":"Ed25519","alg":"Ed25519"}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_payload_that_holds_no_claims_is_refused(mint: Mint, body: bytes):
    with pytest.raises(TokenRejected):
        mint.tokens.verify(mint.forge(claims=body or b"\x20"))


@pytest.mark.parametrize("head", BODIES.values(), ids=BODIES)
def test_a_header_that_holds_no_header_is_refused(mint: Mint, head: bytes):
    with pytest.raises(TokenRejected):
        mint.tokens.verify(mint.forge(header=head or b"\x20"))


@pytest.mark.parametrize("name", ["sub", "exp", "operator", "casefile_scopes"])
def test_a_claim_that_stands_twice_is_refused_even_if_both_agree(mint: Mint, name: str):
    claims = mint.claims()
    once = json.dumps(claims).encode()
    twice = json.dumps({name: claims[name]}).encode()[:-1] + b"," + once[1:]

    assert mint.tokens.verify(mint.forge(claims=once)).user_id == ANNA
    with pytest.raises(TokenRejected):
        mint.tokens.verify(mint.forge(claims=twice))


def test_a_header_with_a_name_twice_is_refused(mint: Mint):
    once = json.dumps(mint.header()).encode()

    assert mint.tokens.verify(mint.forge(header=once)).user_id == ANNA
    with pytest.raises(TokenRejected):
        mint.tokens.verify(mint.forge(header=b'{"alg":"Ed25519",' + once[1:]))


def unsigned(mint: Mint) -> str:
    head, body, _ = mint.forge(header=mint.header(alg="none")).split(".")
    return f"{head}.{body}."


def signed_with_the_public_key(mint: Mint) -> str:
    head, body, _ = mint.forge(header=mint.header(alg="HS256")).split(".")
    public = mint.keys.current[1].as_pem(private=False)
    return f"{head}.{body}." + b64(hmac.digest(public, f"{head}.{body}".encode(), "sha256")).decode()


def signed_by_another(mint: Mint) -> str:
    head, body, _ = mint.forge().split(".")
    other = Ed25519PrivateKey.generate().sign(f"{head}.{body}".encode())
    return f"{head}.{body}." + b64(other).decode()


def with_another_payload(mint: Mint) -> str:
    head, _, signature = mint.forge().split(".")
    return ".".join((head, b64(json.dumps(mint.claims(sub="ben@example.com")).encode()).decode(), signature))


def as_json(mint: Mint) -> str:
    head, body, signature = mint.forge().split(".")
    return json.dumps({"protected": head, "payload": body, "signature": signature})


WHOLE: dict[str, Callable[[Mint], str]] = {
    "unsigned": unsigned,
    "signed with the public key as a secret": signed_with_the_public_key,
    "signed by another key": signed_by_another,
    "another payload": with_another_payload,
    "JSON serialization": as_json,
    "bytes behind it": lambda m: m.forge() + "AAAA",
    "a newline behind it": lambda m: m.forge() + "\n",
    "a space in front": lambda m: " " + m.forge(),
    "a fourth part": lambda m: m.forge() + ".AAAA",
    "two parts": lambda m: m.forge().rpartition(".")[0],
    "dots only": lambda _: "..",
    "a word": lambda _: "token",
    "beyond ASCII": lambda m: m.forge() + "é",
    "a lone surrogate": lambda m: m.forge() + "\ud800",
    "NUL": lambda m: m.forge() + "\x00",
    "two megabytes": lambda _: "a" * 2_000_000,
    "two megabytes of nesting": lambda m: m.forge(claims=b"[" * 1_000_000),
    "a hundred thousand levels": lambda m: m.forge(claims=b"[" * 100_000),
    "a bearer scheme": lambda m: "Bearer " + m.forge(),
}


@pytest.mark.parametrize("bad", WHOLE.values(), ids=WHOLE)
def test_a_string_that_is_no_token_of_ours_is_refused(mint: Mint, bad: Callable[[Mint], str]):
    with pytest.raises(TokenRejected):
        mint.tokens.verify(bad(mint))


@given(data=st.data())
def test_a_flipped_bit_is_refused(shared: Mint, data: st.DataObject):
    parts = [bytearray(urlsafe_b64decode(p + "=" * (-len(p) % 4))) for p in shared.forge().split(".")]
    part = parts[data.draw(st.integers(0, 2))]
    bit = data.draw(st.integers(0, len(part) * 8 - 1))
    part[bit // 8] ^= 1 << bit % 8

    with pytest.raises(TokenRejected):
        shared.tokens.verify(b".".join(b64(bytes(p)) for p in parts).decode())


@given(st.text(max_size=300))
def test_no_text_at_all_raises_anything_else(shared: Mint, token: str):
    with pytest.raises(TokenRejected):
        shared.tokens.verify(token)


def test_a_token_of_the_key_before_the_rotation_still_verifies(mint: Mint):
    token = mint.mint().token
    mint.keys.rotate()

    assert mint.tokens.verify(token).user_id == ANNA


def test_a_token_of_another_deployment_is_refused(mint: Mint, tmp_path: Path):
    other = Mint(tmp_path / "other")

    with pytest.raises(TokenRejected, match="signing key"):
        mint.tokens.verify(other.mint().token)


# The cache of verified tokens


def test_a_verified_token_is_not_checked_again(mint: Mint):
    token = mint.mint().token

    assert mint.tokens.verify(token) is mint.tokens.verify(token)


def test_a_cached_token_is_checked_again_after_a_minute(mint: Mint):
    token = mint.mint().token
    first = mint.tokens.verify(token)
    mint.clock.advance(seconds=60)

    assert mint.tokens.verify(token) is not first


def test_a_cached_token_ends_when_the_token_does(mint: Mint):
    token = mint.mint(expires_at=NOW + timedelta(seconds=20)).token
    mint.tokens.verify(token)
    mint.clock.advance(seconds=25)

    with pytest.raises(TokenExpired):
        mint.tokens.verify(token)


def test_the_cache_does_not_grow_without_end(tmp_path: Path):
    mint = Mint(tmp_path, cache_size=2)
    tokens = [mint.mint().token for _ in range(3)]
    first, second, _ = [mint.tokens.verify(token) for token in tokens]

    assert mint.tokens.verify(tokens[1]) is second
    assert mint.tokens.verify(tokens[0]) is not first


def test_the_cache_forgets_what_was_not_used_longest(tmp_path: Path):
    mint = Mint(tmp_path, cache_size=2)
    old, used, new = [mint.mint().token for _ in range(3)]
    principal = mint.tokens.verify(used)
    mint.tokens.verify(old)
    mint.tokens.verify(used)
    mint.tokens.verify(new)

    assert mint.tokens.verify(used) is principal


def test_a_refused_token_is_not_cached(mint: Mint):
    token = mint.forge(claims=mint.claims(iat=int(NOW.timestamp()) + 6))
    with pytest.raises(TokenRejected):
        mint.tokens.verify(token)
    mint.clock.advance(seconds=1)

    assert mint.tokens.verify(token).user_id == ANNA


def test_a_digest_is_what_the_cache_knows_a_token_by(mint: Mint):
    token = mint.mint().token
    mint.tokens.verify(token)

    kept = repr(vars(mint.tokens))

    assert token not in kept
    assert repr(hashlib.sha256(token.encode()).digest()) in kept
