"""Tokens and logins of a real issuer that checks PKCE and whose keys change, in a process of its own."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from casekeeper.clock import utc_now
from casekeeper.errors import CredentialsRejected, IssuerUnavailable
from casekeeper.identity.fetching import Fetcher
from casekeeper.identity.issuer import Issuer
from casekeeper.identity.issuer_keys import IssuerKeys
from casekeeper.identity.issuers import Issuers, user_of_subject
from casekeeper.identity.published import COOLDOWN_S, OLD_S, STALE_S
from tests.doors.browsers import COOKIE, Browser, query_of
from tests.doors.problems import assert_problem
from tests.fakes.oauth2 import CLIENT, KeyedIssuer, running_keyed_issuer
from tests.support import Api, open_test_server

TOKEN = "/v1/auth/token"

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def issuer() -> Generator[KeyedIssuer]:
    """An issuer with an RSA key, an elliptic one and one of Edwards' curve: `k1`, `k2`, `k3`."""
    with running_keyed_issuer("RS256", "ES256", "EdDSA") as opened:
        yield opened


@asynccontextmanager
async def believing(directory: Path, issuer: KeyedIssuer, **more: Any) -> AsyncGenerator[Api]:
    """A server that believes the issuer and makes accounts for whom it names."""
    described = {"issuer": issuer.url, "audience": CLIENT, "creates_accounts": True, **more}
    async with open_test_server(directory / "data", issuers=[described]) as server, Api.of(server) as api:
        yield api


# Its tokens at the door

FAMILIES = {"k1": "RSA", "k2": "EC", "k3": "Ed25519"}


@pytest.mark.parametrize(("kid", "family"), FAMILIES.items())
async def test_a_token_of_the_issuers_family_is_exchanged_and_those_of_other_families_are_not(
    tmp_path: Path, issuer: KeyedIssuer, kid: str, family: str
) -> None:
    async with believing(tmp_path, issuer, algorithm=family) as api:
        for other in FAMILIES.keys() - {kid}:
            answer = await api.post(TOKEN, {"id_token": issuer.token(other)})
            assert_problem(answer, 401, "credentials_rejected")

        answer = await api.post(TOKEN, {"id_token": issuer.token(kid)})
        got = answer.json()["payload"]

        assert got["user_id"] == user_of_subject(issuer.url, "anna-1")
        assert (await api.get("/v1/catalog", token=got["access_token"])).status_code == 200


@pytest.mark.parametrize(
    "said",
    [
        {"aud": "another"},
        {"aud": None},
        {"aud": [CLIENT, "another"]},
        {"azp": "another"},
        {"iss": "http://127.0.0.1:1"},
        {"sub": ""},
        {"sub": None},
        {"expires_in": -6},
        {"exp": "tomorrow"},
        {"iat": 4_000_000_000, "exp": 4_000_000_300},
        {"nbf": 4_000_000_000},
    ],
)
async def test_a_token_for_another_or_for_another_time_is_refused(
    tmp_path: Path, issuer: KeyedIssuer, said: dict[str, Any]
) -> None:
    async with believing(tmp_path, issuer) as api:
        assert_problem(await api.post(TOKEN, {"id_token": issuer.token(**said)}), 401, "credentials_rejected")


# Its keys, as time goes by


@dataclass
class Desk:
    """Whoever reads the issuer's tokens, with a clock of its own; `asked` counts what was fetched."""

    issuer: KeyedIssuer
    now_s: float = 0.0
    asked: int = 0
    fetcher: Fetcher = field(default_factory=Fetcher)

    def __post_init__(self) -> None:
        described = Issuer(issuer=self.issuer.url, audience=CLIENT)
        keys = IssuerKeys(described, self._fetch, lambda: self.now_s)
        self.issuers = Issuers([(described, keys)], utc_now)

    async def _fetch(self, url: str) -> bytes:
        self.asked += 1
        return await self.fetcher(url)

    async def reads(self, token: str) -> bool:
        """Whether it believes the token; `IssuerUnavailable` is raised."""
        try:
            user = await self.issuers.user_of(token)
        except CredentialsRejected:
            return False
        return user.user_id == user_of_subject(self.issuer.url, "anna-1")


async def test_a_new_key_is_found_by_its_name_with_one_look_in_half_a_minute() -> None:
    with running_keyed_issuer("RS256") as issuer:
        desk = Desk(issuer)
        assert await desk.reads(issuer.token("k1"))
        first = desk.asked
        issuer.key("k2")
        new = issuer.token("k2")

        desk.now_s = COOLDOWN_S - 0.1
        assert not any([await desk.reads(new) for _ in range(5)])
        assert desk.asked == first
        desk.now_s = COOLDOWN_S
        assert await desk.reads(new)
        assert desk.asked == 2 * first
        # The one before goes on as long as the issuer publishes it.
        assert await desk.reads(issuer.token("k1"))


async def test_a_key_in_the_place_of_another_is_found_and_the_former_one_ends() -> None:
    with running_keyed_issuer("RS256") as issuer:
        desk = Desk(issuer)
        former = issuer.token("k1")
        assert await desk.reads(former)
        issuer.key("k1")

        desk.now_s = COOLDOWN_S
        assert await desk.reads(issuer.token("k1"))
        assert not await desk.reads(former)


async def test_known_keys_are_believed_for_a_day_while_the_issuer_is_dead() -> None:
    with running_keyed_issuer("RS256") as issuer:
        desk = Desk(issuer)
        token = issuer.token("k1", expires_in=3600)
        assert await desk.reads(token)
        issuer.key("k2")
        unknown = issuer.token("k2", expires_in=3600)
        issuer.stop()

        for age_s in (OLD_S, OLD_S + 1, STALE_S):
            desk.now_s = age_s
            assert await desk.reads(token)
            assert not await desk.reads(unknown)
        desk.now_s = STALE_S + 1
        with pytest.raises(IssuerUnavailable):
            await desk.reads(token)

        with running_keyed_issuer("RS256", port=issuer.port, first=3) as again:
            desk.now_s += COOLDOWN_S
            assert await desk.reads(again.token("k3"))
            # It has come back without its former key.
            assert not await desk.reads(token)


# A browser's login with PKCE


@asynccontextmanager
async def a_browser(directory: Path, issuer: KeyedIssuer, **more: Any) -> AsyncGenerator[Browser]:
    """A browser before a server that has no secret at the issuer."""
    async with (
        believing(directory, issuer, browser=True, **more) as api,
        Browser.at(api.server) as opened,
    ):
        yield opened


async def test_a_browser_logs_in_where_pkce_is_checked_whatever_the_issuer_signs_with(
    tmp_path: Path,
) -> None:
    with running_keyed_issuer("ES256") as issuer:
        async with a_browser(tmp_path, issuer, algorithm="EC") as browser:
            answer = await browser.log_in(issuer, "anna-1", next="/console")

            assert (answer.status_code, answer.headers["location"]) == (303, "/console")
            assert (await browser.who()).json()["user_id"] == user_of_subject(issuer.url, "anna-1")
            assert (await browser.post("/v1/casefiles/create", {"title": "A"})).status_code == 200


async def test_a_stolen_code_is_worth_nothing_without_its_verifier(tmp_path: Path) -> None:
    with running_keyed_issuer("RS256") as issuer:
        async with a_browser(tmp_path, issuer) as thief:
            code = query_of(await thief.sent_back(issuer, "anna-1"))["code"]
            thief.http.cookies.clear()
            state = query_of((await thief.begin()).headers["location"])["state"]

            answer = await thief.http.get("/v1/auth/callback", params={"state": state, "code": code})

            # This issuer says `invalid_request`, which is no word about the code (RFC 7636 §4.6 wants `invalid_grant`).
            assert_problem(answer, 503, "issuer_unavailable")
            assert COOKIE not in thief.cookies
