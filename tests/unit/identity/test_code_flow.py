"""The code flow against an issuer that is scripted: what it is sent, and every way in which it may answer."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from casekeeper.errors import (
    ArgumentsInvalid,
    CredentialsRejected,
    IssuerUnavailable,
    LoginDeclined,
    LoginStateRejected,
    Overloaded,
)
from casekeeper.identity.code_flow import LOGIN_LIFETIME, CodeFlow, Return, Start
from casekeeper.identity.discovery import Endpoints
from casekeeper.identity.issuer import Issuer
from casekeeper.identity.issuer_keys import IssuerKeys
from casekeeper.identity.issuers import Issuers
from casekeeper.identity.published import FetchFailed
from casekeeper.identity.seals import Seals
from tests.unit.identity.issuing import AUDIENCE, URL, Site, claims, signed
from tests.unit.support import ANNA, House

BACK = "https://cases.example.com/v1/auth/callback"


@dataclass
class Scripted:
    """An issuer's endpoints; it answers a code as `status` and `said` tell, and checks PKCE as RFC 7636 §4.6 does."""

    house: House
    query: dict[str, str] = field(default_factory=dict[str, str])
    found: Endpoints = field(
        default_factory=lambda: Endpoints(f"{URL}/authorize", f"{URL}/token", False, True)
    )
    claims: dict[str, Any] = field(default_factory=dict[str, Any])
    answer: tuple[int, bytes] | None = None
    sent: list[tuple[str, Mapping[str, str], Mapping[str, str]]] = field(
        default_factory=list[tuple[str, Mapping[str, str], Mapping[str, str]]]
    )
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def endpoints(self) -> Endpoints:
        return self.found

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.sent.append((url, form, headers))
        await self.gate.wait()
        if self.answer is not None:
            if self.answer[0] == 0:
                raise FetchFailed(url)
            return self.answer
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if challenge != self.query["code_challenge"]:
            return 400, b'{"error":"invalid_grant"}'
        said = claims(self.house.clock(), nonce=self.query["nonce"], email=ANNA, email_verified=True)
        return 200, json.dumps({"id_token": signed({**said, **self.claims})}).encode()


class Desk:
    """The flow, and the browser before it."""

    def __init__(self, house: House, **more: Any) -> None:
        fields: dict[str, Any] = {"issuer": URL, "audience": AUDIENCE, "link": "email", "browser": True}
        issuer = Issuer(**{**fields, **more})
        self.house = house
        self.scripted = Scripted(house)
        believed = Issuers([(issuer, IssuerKeys(issuer, Site().fetch, house.clock.monotonic))], house.clock)
        self.flow = CodeFlow(
            [(issuer, self.scripted)],
            believed,
            house.logins,
            self.scripted.post,
            Seals(b"s" * 32),
            BACK,
            house.clock,
        )

    async def start(self, issuer: str | None = None) -> Start:
        start = await self.flow.start(issuer, "/console")
        self.scripted.query = {k: v[0] for k, v in parse_qs(urlsplit(start.location).query).items()}
        return start

    async def finish(self, start: Start, **more: Any) -> tuple[str, str]:
        known, next_path = await self.flow.finish(
            start.sealed, Return(**{"state": start.state, "code": "c", **more})
        )
        return known.account.user_id, next_path


@pytest.fixture
async def desk(house: House) -> Desk:
    await house.account(ANNA)
    return Desk(house)


async def test_a_code_is_exchanged_with_its_verifier(desk: Desk):
    assert await desk.finish(await desk.start()) == (ANNA, "/console")

    [(url, form, headers)] = desk.scripted.sent
    assert url == f"{URL}/token"
    assert form == {
        "grant_type": "authorization_code",
        "code": "c",
        "redirect_uri": BACK,
        "code_verifier": form["code_verifier"],
        "client_id": AUDIENCE,
    }
    assert len(form["code_verifier"]) == 64
    assert headers == {}


async def test_a_verifier_of_another_login_is_refused_by_the_issuer(desk: Desk):
    mine, _theirs = await desk.start(), await desk.start()

    with pytest.raises(CredentialsRejected):
        await desk.finish(mine)


@pytest.mark.parametrize(
    ("takes_basic", "expected"), [(True, "Basic Y2FzZWtlZXBlci1jb25zb2xlOmElM0ElMjBi"), (False, None)]
)
async def test_a_secret_goes_the_way_that_the_issuer_takes(
    house: House, takes_basic: bool, expected: str | None
):
    await house.account(ANNA)
    desk = Desk(house, client_secret="a: b")
    desk.scripted.found = Endpoints(f"{URL}/authorize?realm=x", f"{URL}/token", False, takes_basic)
    start = await desk.start()
    assert start.location.startswith(f"{URL}/authorize?realm=x&response_type=code&")

    await desk.finish(start)

    [(_, form, headers)] = desk.scripted.sent
    assert headers.get("Authorization") == expected
    assert form.get("client_secret") == (None if takes_basic else "a: b")


@pytest.mark.parametrize("issuer", ["https://another.example", "x"])
async def test_another_issuer_is_none(desk: Desk, issuer: str):
    with pytest.raises(ArgumentsInvalid):
        await desk.start(issuer)


async def test_without_issuers_there_is_no_login(house: House):
    flow = Desk(house, browser=False).flow
    assert flow.issuers == []
    with pytest.raises(ArgumentsInvalid):
        await flow.start(None, "/")


async def test_where_one_can_log_in_is_told(desk: Desk):
    assert desk.flow.issuers == [URL]


async def test_a_login_ends_after_ten_minutes(desk: Desk):
    start = await desk.start()
    desk.house.clock.now += LOGIN_LIFETIME

    with pytest.raises(LoginStateRejected):
        await desk.finish(start)
    assert desk.scripted.sent == []


@pytest.mark.parametrize("state", ["x", "é"])
async def test_a_state_of_another_login_is_refused_before_the_issuer_is_asked(desk: Desk, state: str):
    with pytest.raises(LoginStateRejected):
        await desk.finish(await desk.start(), state=state)
    assert desk.scripted.sent == []


@pytest.mark.parametrize("sealed", ["", "x", "a.b.c.d.e"])
async def test_what_was_not_sealed_here_begins_nothing(desk: Desk, sealed: str):
    with pytest.raises(LoginStateRejected):
        await desk.flow.finish(sealed, Return("x", code="c"))


async def test_an_issuer_that_has_left_the_settings_ends_its_logins(desk: Desk, house: House):
    start = await desk.start()
    with pytest.raises(LoginStateRejected):
        await Desk(house, browser=False).finish(start)


@pytest.mark.parametrize(
    ("names_itself", "iss", "good"),
    [
        (True, URL, True),
        (True, None, False),
        (True, "https://x.example", False),
        (False, None, True),
        (False, "", False),
    ],
)
async def test_an_issuer_that_names_itself_must_do_so(
    desk: Desk, names_itself: bool, iss: str | None, good: bool
):
    desk.scripted.found = Endpoints(f"{URL}/authorize", f"{URL}/token", names_itself, True)
    asked = desk.finish(await desk.start(), iss=iss)
    if good:
        assert (await asked)[0] == ANNA
    else:
        with pytest.raises(LoginStateRejected):
            await asked
        assert desk.scripted.sent == []


@pytest.mark.parametrize(
    "said", [{"nonce": "another"}, {"nonce": None}, {"aud": "another"}, {"iss": "https://x.example"}]
)
async def test_an_id_token_for_another_login_is_refused(desk: Desk, said: dict[str, Any]):
    desk.scripted.claims = said
    with pytest.raises(CredentialsRejected):
        await desk.finish(await desk.start())


async def test_an_issuer_that_declines_is_not_asked(desk: Desk):
    with pytest.raises(LoginDeclined, match="access_denied"):
        await desk.finish(await desk.start(), code=None, error="access_denied")
    with pytest.raises(LoginDeclined, match="nothing"):
        await desk.finish(await desk.start(), code=None)
    assert desk.scripted.sent == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((0, b""), IssuerUnavailable),
        ((500, b"oops"), IssuerUnavailable),
        ((503, b"{}"), IssuerUnavailable),
        ((302, b"{}"), IssuerUnavailable),
        ((401, b'{"error":"invalid_client"}'), IssuerUnavailable),
        ((400, b'{"error":"invalid_client"}'), IssuerUnavailable),
        ((400, b'{"error":"invalid_grant"}'), CredentialsRejected),
        ((200, b"{}"), IssuerUnavailable),
        ((200, b'{"id_token":7}'), IssuerUnavailable),
        ((200, b"[]"), IssuerUnavailable),
        ((200, b'{"id_token":"x"}'), CredentialsRejected),
    ],
)
async def test_an_issuer_may_answer_anything(desk: Desk, answer: tuple[int, bytes], error: type[Exception]):
    desk.scripted.answer = answer
    with pytest.raises(error):
        await desk.finish(await desk.start())


async def test_logins_do_not_pile_up_behind_an_issuer_that_is_slow(desk: Desk):
    start = await desk.start()
    desk.scripted.gate.clear()
    waiting = [asyncio.ensure_future(desk.finish(start)) for _ in range(50)]
    while len(desk.scripted.sent) < 50:
        await asyncio.sleep(0)

    with pytest.raises(Overloaded):
        await desk.finish(start)
    desk.scripted.gate.set()

    assert {user_id for user_id, _ in await asyncio.gather(*waiting)} == {ANNA}
    assert (await desk.finish(start))[0] == ANNA
