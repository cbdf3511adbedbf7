"""Access tokens: what is not one of ours is refused, and what they carry is never believed for too long."""

import asyncio
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from dirty_equals import IsPartialDict

from casekeeper.server import Server
from tests.doors.forging import Claims, b64, forged, parts_of, sign, sign_text
from tests.doors.problems import assert_problem
from tests.support import Api, House

Forge = Callable[[Server, Claims, str], str]


def with_claims(**changes: Any) -> Forge:
    """Our signature over changed claims; `...` takes a claim out."""

    def forge(server: Server, claims: Claims, token: str) -> str:
        changed = {name: value for name, value in (claims | changes).items() if value is not ...}
        return sign(server, changed)

    return forge


def with_header(**changes: Any) -> Forge:
    """Our signature under a changed header."""
    return lambda server, claims, token: sign(server, claims, changes)


def with_header_of(header: bytes) -> Forge:
    """An unsigned header in place of ours."""
    return lambda server, claims, token: ".".join((b64(header), *token.split(".")[1:]))


def unsigned(alg: str) -> Forge:
    """No signature, and a header that says so."""

    def forge(server: Server, claims: Claims, token: str) -> str:
        header = {**parts_of(token)[0], "alg": alg}
        return f"{b64(json.dumps(header).encode())}.{token.split('.')[1]}."

    return forge


def hmac_with_public_key(server: Server, claims: Claims, token: str) -> str:
    """HS256 with our public key as the secret: the classic confusion of keys."""
    kid, key = server.identity.signing_keys.current
    header = {"alg": "HS256", "typ": "at+jwt", "kid": kid}
    signing_input = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signing_input}.{b64(hmac.digest(key.as_pem(private=False), signing_input.encode(), 'sha256'))}"


def claimed_twice(name: str, value: Any) -> Forge:
    """A claim twice, first another's value, then ours: a reader that takes the last one would let it in."""

    def forge(server: Server, claims: Claims, token: str) -> str:
        first = f"{{{json.dumps(name)}:{json.dumps(value)},"
        return sign(server, first.encode() + json.dumps(claims).encode()[1:])

    return forge


def scope_twice(server: Server, claims: Claims, token: str) -> str:
    """One casefile with two roles."""
    scopes = b'{"cf_260101_abcdef":["viewer",null],"cf_260101_abcdef":["owner",null]}'
    rest = {name: value for name, value in claims.items() if name != "casefile_scopes"}
    return sign(server, b'{"casefile_scopes":' + scopes + b"," + json.dumps(rest).encode()[1:])


def header_twice(server: Server, claims: Claims, token: str) -> str:
    """`alg` twice in the header, under our signature."""
    header = json.dumps(parts_of(token)[0]).encode()
    return sign_text(server, b'{"alg":"none",' + header[1:], json.dumps(claims).encode())


def with_text(change: Callable[[str], str]) -> Forge:
    """The token itself, changed as text."""
    return lambda server, claims, token: change(token)


NOW = int(time.time())
# T1 of research/security-reliability.md §4, and some of our own.
BAD_TOKENS: dict[str, Forge] = {
    "alg none": unsigned("none"),
    "alg nOnE": unsigned("nOnE"),
    "alg empty": unsigned(""),
    "alg EdDSA": with_header(alg="EdDSA"),
    "alg HS256 by name": with_header(alg="HS256"),
    "alg a list": with_header(alg=["Ed25519"]),
    "HS256 with the public key": hmac_with_public_key,
    "crit": with_header(crit=["exp"]),
    "b64 false": with_header(b64=False, crit=["b64"]),
    "jwk": with_header(jwk={"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}),
    "jku": with_header(jku="http://127.0.0.1/keys"),
    "x5u": with_header(x5u="http://127.0.0.1/cert"),
    "zip": with_header(zip="DEF"),
    "cty": with_header(cty="JWT"),
    "typ missing": with_header(typ=None),
    "typ JWT": with_header(typ="JWT"),
    "typ id token": with_header(typ="id+jwt"),
    "typ in capitals": with_header(typ="AT+JWT"),
    "kid unknown": with_header(kid="0" * 29),
    "kid a path": with_header(kid="../../etc/passwd"),
    "kid a number": with_header(kid=7),
    "kid null": with_header(kid=None),
    "header not JSON": with_header_of(b"{"),
    "header a list": with_header_of(b"[]"),
    "header nested": with_header_of(b"[" * 3000 + b"]" * 3000),
    "aud of another": with_claims(aud="somebody"),
    "aud a list": with_claims(aud=["casekeeper"]),
    "aud missing": with_claims(aud=...),
    "iss of another": with_claims(iss="https://evil.example"),
    "iss with a prefix of ours": with_claims(iss="casekeeper.evil.example"),
    "iss a list": with_claims(iss=["casekeeper"]),
    "sub missing": with_claims(sub=...),
    "sub a number": with_claims(sub=7),
    "exp missing": with_claims(exp=...),
    "exp text": with_claims(exp=str(NOW + 600)),
    "exp a float": with_claims(exp=NOW + 600.5),
    "exp true": with_claims(exp=True),
    "exp past": with_claims(exp=NOW - 60, iat=NOW - 600),
    "exp 2**70": with_claims(exp=2**62),
    "exp negative": with_claims(exp=-1),
    "iat missing": with_claims(iat=...),
    "iat in the future": with_claims(iat=NOW + 3600, exp=NOW + 4000),
    "iat too long ago": with_claims(iat=NOW - 3600, exp=NOW + 3600),
    "nbf in the future": with_claims(nbf=NOW + 3600),
    "jti missing": with_claims(jti=...),
    "asof negative": with_claims(asof=-1),
    "asof text": with_claims(asof="0"),
    "epoch of another store": with_claims(epoch="restored"),
    "operator text": with_claims(operator="true"),
    "scopes a list": with_claims(casefile_scopes=[]),
    "scope of an invented role": with_claims(casefile_scopes={"cf_260101_abcdef": ["king", None]}),
    "65 scopes": with_claims(casefile_scopes={f"cf_260101_{n:06x}": ["viewer", None] for n in range(65)}),
    "sub twice": claimed_twice("sub", "ben@example.com"),
    "exp twice": claimed_twice("exp", NOW - 600),
    "operator twice": claimed_twice("operator", True),
    "a claim nobody reads, twice": claimed_twice("jti", "0123456789abcdef"),
    "a scope twice": scope_twice,
    "alg twice": header_twice,
    "claims not JSON": lambda server, claims, token: sign(server, b"{"),
    "claims a list": lambda server, claims, token: sign(server, b"[]"),
    "claims nested": lambda server, claims, token: sign(server, b"[" * 2000 + b"]" * 2000),
    "claims not text": lambda server, claims, token: sign(server, b"\xff\xfe"),
    "another's signature": lambda server, claims, token: forged(token, server),
    "signature cut": with_text(lambda token: token[:-10]),
    "signature empty": with_text(lambda token: token.rsplit(".", 1)[0] + "."),
    "signature missing": with_text(lambda token: token.rsplit(".", 1)[0]),
    "bytes behind": with_text(lambda token: token + "AAAA"),
    "a part behind": with_text(lambda token: token + ".AAAA"),
    "claims swapped": lambda server, claims, token: _swapped(token, claims | {"operator": True}),
    "only dots": with_text(lambda token: ".."),
    "nonsense": with_text(lambda token: "nonsense"),
    "20 KB": with_text(lambda token: token + "A" * 20_000),
    "not ASCII": with_text(lambda token: token + "é"),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_bad_token_is_refused(api: Api, server: Server, name: str) -> None:
    _, token = await api.user("anna")
    _, claims = parts_of(token)
    bad = BAD_TOKENS[name](server, claims, token)
    headers = [(b"authorization", f"Bearer {bad}".encode("latin-1"))]
    response = await api.http.get("/v1/catalog", headers=headers)
    problem = assert_problem(response, 401)
    assert problem["code"] in ("token_rejected", "token_expired")


async def test_the_forging_bench_makes_good_tokens_too(api: Api, server: Server) -> None:
    _, token = await api.user("anna")
    header, claims = parts_of(token)
    text = sign_text(server, json.dumps(header).encode(), json.dumps(claims).encode())
    statuses = [(await api.get("/v1/catalog", token=t)).status_code for t in (sign(server, claims), text)]
    assert statuses == [200, 200]


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "bearer\tx", "Token abc", "null"])
async def test_without_a_bearer_token_one_is_asked_for(api: Api, header: str) -> None:
    response = await api.http.get("/v1/catalog", headers={"Authorization": header})
    assert_problem(response, 401)
    assert response.headers["WWW-Authenticate"].startswith('Bearer realm="casekeeper"')


async def test_tokens_outlive_a_rotation_of_the_key(api: Api, server: Server) -> None:
    user_id, old = await api.user("anna")
    server.identity.signing_keys.rotate()
    new = await api.token(user_id)
    statuses = [(await api.get("/v1/catalog", token=token)).status_code for token in (old, new)]
    assert statuses == [200, 200]
    assert parts_of(old)[0]["kid"] < parts_of(new)[0]["kid"]


async def test_no_good_token_is_refused_while_keys_rotate(api: Api, server: Server) -> None:
    user_id, token = await api.user("anna")

    async def use() -> set[int]:
        fresh = [token, *[await api.token(user_id) for _ in range(10)]]
        return {(await api.get("/v1/catalog", token=each)).status_code for each in fresh}

    async def rotate() -> set[int]:
        for _ in range(5):
            server.identity.signing_keys.rotate()
            await asyncio.sleep(0)
        return {200}

    assert set().union(*await asyncio.gather(use(), rotate(), use())) == {200}


# What the token carries


async def look(api: Api, token: str, casefile_id: str) -> Any:
    """The answer to an operation that only reads."""
    return (await api.run(token, "noop", casefile_id=casefile_id)).json()["payload"]


async def test_a_first_call_asks_the_store_and_hands_out_a_scope(api: Api, house: House) -> None:
    first = await look(api, house["editor"], house.casefile_id)
    scopes = first["updated_scopes"]["casefile_scopes"]
    second = await look(api, first["updated_scopes"]["token"], house.casefile_id)
    assert (first["permission_from_cache"], scopes) == (
        False,
        {house.casefile_id: {"role": "editor", "not_after": None}},
    )
    assert second == IsPartialDict(permission_from_cache=True, updated_scopes=None)


async def test_a_swapped_token_ends_when_the_old_one_does(api: Api, house: House) -> None:
    first = await look(api, house["editor"], house.casefile_id)
    old, new = parts_of(house["editor"])[1], parts_of(first["updated_scopes"]["token"])[1]
    assert (new["exp"], new["sub"]) == (old["exp"], old["sub"])


async def test_a_change_by_another_is_in_force_at_once(api: Api, house: House) -> None:
    token = (await look(api, house["editor"], house.casefile_id))["updated_scopes"]["token"]
    await api.grant(house["owner"], house.casefile_id, house.users["editor"], "viewer")
    assert_problem(await api.run(token, "touch", casefile_id=house.casefile_id), 403, "role_too_low")
    seen = await look(api, token, house.casefile_id)
    # The refused call has read it, and this one still finds it there.
    assert seen == IsPartialDict(
        permission_from_cache=True,
        updated_scopes=IsPartialDict(
            casefile_scopes={house.casefile_id: {"role": "viewer", "not_after": None}}
        ),
    )


async def test_a_revoke_by_another_is_in_force_at_once(api: Api, house: House) -> None:
    token = (await look(api, house["editor"], house.casefile_id))["updated_scopes"]["token"]
    gone = {"casefile_id": house.casefile_id, "user_id": house.users["editor"]}
    await api.ask("/v1/permissions/revoke", gone, token=house["owner"])
    assert_problem(await api.run(token, "noop", casefile_id=house.casefile_id), 404, "casefile_not_found")


async def test_a_change_of_somebody_else_leaves_a_scope_believed(api: Api, house: House) -> None:
    token = (await look(api, house["editor"], house.casefile_id))["updated_scopes"]["token"]
    await api.grant(house["owner"], house.casefile_id, house.users["stranger"], "viewer")
    assert (await look(api, token, house.casefile_id))["permission_from_cache"] is True


async def test_eviction_changes_the_cost_and_never_the_answer(api: Api) -> None:
    _, owner = await api.user("owner")
    user_id, token = await api.user("busy")
    roles = ["viewer", "editor", "admin"]
    expected: dict[str, int] = {}
    for number in range(70):
        casefile_id = await api.casefile(owner, f"{number}")
        await api.grant(owner, casefile_id, user_id, roles[number % 3])
        expected[casefile_id] = 403 if number % 3 == 0 else 200
    evicted: set[str] = set()
    for _ in range(2):
        statuses: dict[str, int] = {}
        for casefile_id in expected:
            seen = await look(api, token, casefile_id)
            if update := seen["updated_scopes"]:
                token = update["token"]
                evicted |= set(update["evicted"])
            statuses[casefile_id] = (await api.run(token, "touch", casefile_id=casefile_id)).status_code
            assert len(parts_of(token)[1]["casefile_scopes"]) <= 64
            assert len(token) <= 8192
        assert statuses == expected
    assert evicted


async def test_what_was_used_last_is_evicted_last(api: Api) -> None:
    _, token = await api.user("busy")
    casefiles = [await api.casefile(token, f"{number}") for number in range(66)]
    for casefile_id in casefiles:
        token = (await look(api, token, casefile_id))["updated_scopes"]["token"]
        await look(api, token, casefiles[0])
    carried = parts_of(token)[1]["casefile_scopes"]
    assert (casefiles[0] in carried, casefiles[1] in carried) == (True, False)


def _swapped(token: str, claims: Claims) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{b64(json.dumps(claims).encode())}.{signature}"
