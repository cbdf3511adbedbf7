"""Logging a browser in at a real issuer in a process of its own, and whatever else may come back from there."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest

from casekeeper.identity.issuers import user_of_subject
from casekeeper.server import Server
from tests.doors.browsers import COOKIE, ORIGIN, Browser, query_of
from tests.doors.problems import assert_problem
from tests.fakes.oidc import CLIENT, SECRET, Provider, running_provider
from tests.support import Api, SteppableClock, open_test_server

pytestmark = pytest.mark.timeout(90)

ANNA = "anna@example.com"


def people(provider: Provider) -> None:
    """Anna, whose address is verified, and Ben, whose is not."""
    provider.user("anna-1", email=ANNA, email_verified=True, name="Anna")
    provider.user("ben-1", email="ben@example.com", email_verified=False)


@pytest.fixture(scope="module")
def provider() -> Generator[Provider]:
    """The issuer."""
    with running_provider() as opened:
        people(opened)
        yield opened


def believing(provider: Provider, **more: Any) -> dict[str, Any]:
    """The setting that lets browsers log in there."""
    issuer = {"issuer": provider.url, "audience": CLIENT, "link": "email", "browser": True}
    return {**issuer, "client_secret": SECRET, **more}


@pytest.fixture
async def server(tmp_path: Path, provider: Provider) -> AsyncGenerator[Server]:
    """A server that believes the issuer."""
    async with open_test_server(tmp_path / "data", issuers=[believing(provider)]) as opened:
        yield opened


@pytest.fixture
async def browser(server: Server) -> AsyncGenerator[Browser]:
    """A browser, logged in nowhere."""
    async with Browser.at(server) as opened:
        yield opened


@pytest.fixture
async def anna(server: Server) -> str:
    """Anna's account."""
    async with Api.of(server) as api:
        return await api.account(ANNA)


async def test_a_browser_logs_in_at_the_issuer_and_goes_where_it_wanted(
    browser: Browser, provider: Provider, anna: str
) -> None:
    answer = await browser.log_in(provider, "anna-1", issuer=provider.url, next="/console/cf?a=1#top")

    assert (answer.status_code, answer.headers["location"]) == (303, "/console/cf?a=1#top")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert list(browser.cookies) == [COOKIE]
    assert (await browser.who()).json()["user_id"] == anna
    assert (await browser.post("/v1/casefiles/create", {"title": "Rent dispute"})).status_code == 200


async def test_the_browser_is_sent_off_with_all_that_makes_a_login_safe(
    browser: Browser, provider: Provider
) -> None:
    begun = await browser.begin()
    query = query_of(begun.headers["location"])

    assert query == {
        "response_type": "code",
        "client_id": CLIENT,
        "redirect_uri": f"{ORIGIN}/v1/auth/callback",
        "scope": "openid email profile",
        "code_challenge_method": "S256",
        "state": query["state"],
        "nonce": query["nonce"],
        "code_challenge": query["code_challenge"],
    }
    assert [len(query[name]) for name in ("state", "nonce", "code_challenge")] == [43, 43, 43]
    cookie = begun.headers["set-cookie"]
    assert cookie.startswith("__Host-casekeeper-login-")
    assert cookie.endswith("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure")
    for secret in (query["state"], query["nonce"], provider.url):
        assert secret not in cookie
    again = query_of((await browser.begin()).headers["location"])
    assert not {query[n] for n in ("state", "nonce", "code_challenge")} & set(again.values())


@pytest.mark.parametrize("sub", ["anna-1", "ben-1"])
async def test_who_has_no_account_here_is_not_let_in(browser: Browser, provider: Provider, sub: str) -> None:
    answer = await browser.log_in(provider, sub)

    assert_problem(answer, 401, "credentials_rejected")
    assert browser.cookies == {}


async def test_a_subject_gets_an_account_where_the_setting_says_so(
    tmp_path: Path, provider: Provider
) -> None:
    issuer = believing(provider, link="subject", creates_accounts=True)
    async with (
        open_test_server(tmp_path / "data", issuers=[issuer]) as server,
        Browser.at(server) as browser,
    ):
        assert (await browser.log_in(provider, "anna-1")).status_code == 303
        assert (await browser.who()).json()["user_id"] == user_of_subject(provider.url, "anna-1")


# What else may come back


async def test_a_login_is_finished_once(browser: Browser, provider: Provider, anna: str) -> None:
    back = await browser.sent_back(provider, "anna-1")
    kept = browser.cookies
    assert (await browser.http.get(back)).status_code == 303

    assert_problem(await browser.http.get(back), 401, "login_state_rejected")
    # Whoever kept the cookie, too, still has a code that the issuer has seen before.
    cookies = "; ".join(f"{name}={value}" for name, value in kept.items())
    assert_problem(await browser.http.get(back, headers={"Cookie": cookies}), 401, "credentials_rejected")


async def test_the_code_of_another_login_is_not_taken(
    browser: Browser, server: Server, provider: Provider, anna: str
) -> None:
    stolen = query_of(await browser.sent_back(provider, "anna-1"))["code"]
    async with Browser.at(server) as thief:
        own = query_of((await thief.begin()).headers["location"])
        injected = {"state": own["state"], "code": stolen}
        answer = await thief.http.get("/v1/auth/callback", params=injected)

        # This issuer checks no PKCE, so what stops it is the nonce; one that does is in test_issuer_keys.py.
        assert_problem(answer, 401, "credentials_rejected")
        assert thief.cookies == {}


async def test_another_browsers_login_cannot_be_finished(
    browser: Browser, server: Server, provider: Provider, anna: str
) -> None:
    back = await browser.sent_back(provider, "anna-1")
    async with Browser.at(server) as victim:
        assert_problem(await victim.http.get(back), 401, "login_state_rejected")
        await victim.begin()
        assert_problem(await victim.http.get(back), 401, "login_state_rejected")
        assert COOKIE not in victim.cookies


async def test_a_cookie_of_another_login_under_the_right_name_does_not_do(
    browser: Browser, server: Server, provider: Provider, anna: str
) -> None:
    back = await browser.sent_back(provider, "anna-1")
    [name] = browser.cookies
    async with Browser.at(server) as other:
        await other.begin()
        [sealed] = other.cookies.values()
        other.http.cookies.clear()
        answer = await other.http.get(back, headers={"Cookie": f"{name}={sealed}"})

        assert_problem(answer, 401, "login_state_rejected")


@pytest.mark.parametrize("changed", ["", "x", "a.b.c.d.e", "first", "last"])
async def test_a_changed_login_cookie_is_not_opened(
    browser: Browser, provider: Provider, anna: str, changed: str
) -> None:
    back = await browser.sent_back(provider, "anna-1")
    [(name, sealed)] = browser.cookies.items()
    browser.http.cookies.clear()
    at = {"first": 0, "last": len(sealed) - 3}.get(changed)
    bad = changed if at is None else sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :]

    answer = await browser.http.get(back, headers={"Cookie": f"{name}={bad}"})

    assert_problem(answer, 401, "login_state_rejected")


async def test_a_login_that_was_begun_too_long_ago_is_over(tmp_path: Path, provider: Provider) -> None:
    clock = SteppableClock()
    async with (
        open_test_server(tmp_path / "data", clock=clock, issuers=[believing(provider)]) as server,
        Browser.at(server) as browser,
    ):
        back = await browser.sent_back(provider, "anna-1")
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        clock.step(minutes=10)

        answer = await browser.http.get(back, headers={"Cookie": cookies})

        assert_problem(answer, 401, "login_state_rejected")


@pytest.mark.parametrize("iss", ["https://evil.example", "", "/"])
async def test_an_answer_in_the_name_of_another_issuer_is_refused(
    browser: Browser, provider: Provider, anna: str, iss: str
) -> None:
    back = await browser.sent_back(provider, "anna-1")
    answer = await browser.http.get(back, params={**query_of(back), "iss": iss})

    assert_problem(answer, 401, "login_state_rejected")


async def test_an_answer_that_names_its_issuer_is_taken(
    browser: Browser, provider: Provider, anna: str
) -> None:
    back = await browser.sent_back(provider, "anna-1")
    answer = await browser.http.get(back, params={**query_of(back), "iss": provider.url})

    assert answer.status_code == 303


async def test_an_issuer_that_lets_nobody_in_is_quoted(browser: Browser, provider: Provider) -> None:
    state = query_of((await browser.begin()).headers["location"])["state"]
    declined = {"state": state, "error": "access_denied", "error_description": "<script>"}
    answer = await browser.http.get("/v1/auth/callback", params=declined)

    assert assert_problem(answer, 401, "login_declined")["detail"] == "The issuer says: access_denied."
    assert browser.cookies == {}


async def test_two_tabs_may_log_in_at_once(browser: Browser, provider: Provider, anna: str) -> None:
    one, two = [await browser.sent_back(provider, "anna-1", next=f"/{n}") for n in "12"]

    answers = [await browser.http.get(back) for back in (two, one)]

    assert [a.headers["location"] for a in answers] == ["/2", "/1"]
    assert (await browser.who()).status_code == 200


async def test_logins_that_are_never_finished_do_not_fill_the_browser(browser: Browser) -> None:
    for _ in range(12):
        await browser.begin()

    assert len(browser.cookies) == 4


OPEN_REDIRECTS = [
    "https://evil.example",
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/a\r\nSet-Cookie: x=y",
    "/ /evil.example",
    "javascript:alert(1)",
    "evil.example",
    "",
    "/é",
    "/\x00",
    "/a\\..\\b",
    "/" + "a" * 1024,
]


@pytest.mark.parametrize("next_path", OPEN_REDIRECTS)
async def test_a_login_leads_nowhere_else(browser: Browser, next_path: str) -> None:
    answer = await browser.begin(next=next_path)

    assert assert_problem(answer, 422)["errors"][0]["field"].endswith("next")
    assert browser.cookies == {}


@pytest.mark.parametrize("issuer", ["https://evil.example", "x", "http://127.0.0.1:1/"])
async def test_one_logs_in_at_issuers_of_the_settings_only(browser: Browser, issuer: str) -> None:
    answer = await browser.begin(issuer=issuer)

    assert assert_problem(answer, 422)["errors"][0]["field"] == "issuer"


async def test_an_issuer_that_is_not_for_browsers_is_none(tmp_path: Path, provider: Provider) -> None:
    issuer = believing(provider, browser=False, client_secret=None)
    async with (
        open_test_server(tmp_path / "data", issuers=[issuer]) as server,
        Browser.at(server) as browser,
    ):
        assert_problem(await browser.begin(issuer=provider.url), 422)


# Issuers come and go


async def test_an_issuer_that_is_away_is_a_503(tmp_path: Path) -> None:
    issuer = {"issuer": "http://127.0.0.1:9", "audience": CLIENT, "browser": True}
    async with (
        open_test_server(tmp_path / "data", issuers=[issuer]) as server,
        Browser.at(server) as browser,
    ):
        answer = await browser.begin()

        assert_problem(answer, 503, "issuer_unavailable")
        assert answer.headers["retry-after"]


async def test_an_issuer_that_dies_midway_is_a_503_and_the_login_goes_on_when_it_is_back(
    tmp_path: Path,
) -> None:
    with running_provider() as provider:
        people(provider)
        issuers = [believing(provider)]
        async with (
            open_test_server(tmp_path / "data", issuers=issuers) as server,
            Api.of(server) as api,
            Browser.at(server) as browser,
        ):
            await api.account(ANNA)
            back = await browser.sent_back(provider, "anna-1")
            provider.stop()
            answer = await browser.http.get(back)
            assert_problem(answer, 503, "issuer_unavailable")
            assert COOKIE not in browser.cookies

            # It comes back with other keys, and has forgotten the code.
            with running_provider(provider.port) as again:
                people(again)
                assert_problem(await browser.http.get(back), 401, "credentials_rejected")
                assert (await browser.log_in(again, "anna-1")).status_code == 303
