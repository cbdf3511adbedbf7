"""A browser's session: its cookie, what else a request must prove, and everything that ends it."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from casekeeper.server import Server
from tests.doors.browsers import COOKIE, ORIGIN, Browser
from tests.doors.problems import assert_problem
from tests.support import Api, House, SteppableClock, listening, open_test_server

PASSWORD = "a good password"
ANNA = "anna@example.com"
LIST = "/v1/casefiles/list"


@pytest.fixture
async def browser(api: Api, server: Server) -> AsyncGenerator[Browser]:
    """A browser in which anna is logged in."""
    await api.account(ANNA, password=PASSWORD)
    async with Browser.at(server) as opened:
        assert (await opened.by_password(ANNA, PASSWORD)).status_code == 200
        yield opened


async def test_a_password_gets_a_cookie_that_scripts_cannot_read_and_no_token(
    api: Api, server: Server
) -> None:
    await api.account(ANNA, password=PASSWORD)
    async with Browser.at(server) as browser:
        answer = await browser.by_password(ANNA, PASSWORD)

        secret = browser.cookies[COOKIE]
        assert answer.headers.get_list("set-cookie") == [
            f"{COOKIE}={secret}; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax; Secure"
        ]
        assert answer.json()["payload"] == {
            "user_id": ANNA,
            "is_operator": False,
        }
        assert secret not in answer.text
        assert (await browser.post(LIST, {})).status_code == 200


async def test_the_page_is_told_who_is_in(browser: Browser) -> None:
    answer = await browser.who()

    assert answer.json() == {"user_id": ANNA, "is_operator": False}
    assert answer.headers["cache-control"] == "no-store"


async def test_a_wrong_password_sets_nothing(api: Api, server: Server) -> None:
    await api.account(ANNA, password=PASSWORD)
    async with Browser.at(server) as browser:
        answer = await browser.by_password(ANNA, "another password")

        assert_problem(answer, 401, "credentials_rejected")
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "secret", ["", "x", "cr_AAAA", "A" * 43, "a b", '"quoted"', "é".encode().decode("latin-1")]
)
async def test_an_invented_cookie_is_nobody(server: Server, secret: str) -> None:
    async with Browser.at(server) as browser:
        headers = [(b"cookie", f"{COOKIE}={secret}".encode("latin-1"))]
        assert_problem(await browser.http.get("/v1/catalog", headers=headers), 401)


async def test_a_changed_cookie_is_nobody(browser: Browser) -> None:
    secret = browser.cookies[COOKIE]
    changed = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    browser.http.cookies.clear()
    answer = await browser.http.get("/v1/catalog", headers={"Cookie": f"{COOKIE}={changed}"})

    assert_problem(answer, 401, "browser_session_ended")


async def test_a_cookie_is_no_refresh_token_and_a_refresh_token_no_cookie(api: Api, browser: Browser) -> None:
    answer = await api.post("/v1/auth/refresh", {"refresh_token": browser.cookies[COOKIE]})
    assert_problem(answer, 401, "credentials_rejected")

    tokens = (await api.post("/v1/auth/token", {"user_id": ANNA, "password": PASSWORD})).json()["payload"]
    browser.http.cookies.clear()
    stolen = {"Cookie": f"{COOKIE}={tokens['refresh_token']}"}
    assert_problem(await browser.http.get("/v1/catalog", headers=stolen), 401)


# CSRF


FOREIGN: dict[str, dict[str, str]] = {
    "another site": {"Sec_Fetch_Site": "cross-site"},
    "a sister of the domain": {"Sec_Fetch_Site": "same-site"},
    "nobody's page": {"Sec_Fetch_Site": "none"},
    "an invented word": {"Sec_Fetch_Site": "SAME-ORIGIN"},
    "another origin": {"Origin": "https://evil.example"},
    "no origin that has a name": {"Origin": "null"},
    "our name without TLS": {"Origin": "http://casekeeper.test"},
    "our name as a prefix": {"Origin": f"{ORIGIN}.evil.example"},
    "another port": {"Origin": f"{ORIGIN}:8443"},
    "an old browser on another site": {"Sec_Fetch_Site": "", "Origin": "https://evil.example"},
}


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_page_from_elsewhere_is_refused(browser: Browser, name: str) -> None:
    answer = await browser.post("/v1/casefiles/create", {"title": "x"}, **FOREIGN[name])

    assert_problem(answer, 403, "foreign_page")


async def test_a_browser_that_says_nothing_of_its_page_changes_nothing(browser: Browser) -> None:
    create = "/v1/casefiles/create"
    answer = await browser.post(create, {"title": "x"}, Sec_Fetch_Site="", Origin="")

    assert_problem(answer, 403, "foreign_page")
    assert (await browser.post(LIST, {})).json()["payload"]["items"] == []


@pytest.mark.parametrize("silent", ["Sec_Fetch_Site", "Origin"])
async def test_one_word_of_its_page_is_enough(browser: Browser, silent: str) -> None:
    assert (await browser.post(LIST, {}, **{silent: ""})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({}, 200),
    ],
)
async def test_links_may_lead_here_but_other_pages_may_not_read(
    browser: Browser, headers: dict[str, str], status: int
) -> None:
    assert (await browser.http.get("/v1/catalog", headers=headers)).status_code == status


async def test_another_site_cannot_log_a_browser_in(api: Api, server: Server) -> None:
    await api.account(ANNA, password=PASSWORD)
    async with Browser.at(server) as browser:
        answer = await browser.by_password(ANNA, PASSWORD, **{"Sec-Fetch-Site": "cross-site"})

        assert_problem(answer, 403, "foreign_page")
        assert browser.cookies == {}


async def test_with_a_token_the_cookie_is_not_looked_at(api: Api, browser: Browser) -> None:
    _, token = await api.user("ben")
    headers = {"Authorization": f"Bearer {token}", "Sec-Fetch-Site": "cross-site"}
    as_ben = await browser.http.post("/v1/auth/logout", json={"payload": {}}, headers=headers)
    assert as_ben.json()["payload"]["user_id"] == "ben@example.com"
    assert "set-cookie" not in as_ben.headers

    for bad in ("Bearer x", "Basic eDp4", "Bearer", ""):
        assert_problem(await browser.http.get("/v1/catalog", headers={"Authorization": bad}), 401)
    assert (await browser.who()).json()["user_id"] == ANNA


# What a session may


async def test_a_session_passes_the_same_checks_and_is_handed_no_token(
    api: Api, server: Server, house: House
) -> None:
    user_id = house.users["viewer"]
    await api.account(user_id, password=PASSWORD)
    async with Browser.at(server) as browser:
        await browser.by_password(user_id, PASSWORD)

        def tool(name: str) -> Any:
            operation: Any = {"operation_type": "tool", "tool_name": name, "parameters": {}}
            return {"casefile_id": house.casefile_id, "operation": operation}

        first, again = [await browser.post("/v1/sessions/execute", tool("noop")) for _ in range(2)]
        assert [a.json()["payload"]["updated_scopes"] for a in (first, again)] == [None, None]
        assert [a.json()["payload"]["permission_from_cache"] for a in (first, again)] == [False, True]
        assert_problem(await browser.post("/v1/sessions/execute", tool("touch")), 403, "role_too_low")
        gone = {"casefile_id": house.casefile_id, "user_id": user_id}
        await api.ask("/v1/permissions/revoke", gone, token=house["owner"])
        assert_problem(await browser.post("/v1/sessions/execute", tool("noop")), 404, "casefile_not_found")


async def test_many_tabs_at_once_are_one_session(browser: Browser) -> None:
    answers = await asyncio.gather(*[browser.post(LIST, {}) for _ in range(20)], browser.who())

    assert {answer.status_code for answer in answers} == {200}


async def test_logging_in_again_ends_the_session_before(browser: Browser) -> None:
    former = browser.cookies[COOKIE]
    await browser.by_password(ANNA, PASSWORD)

    assert browser.cookies[COOKIE] != former
    assert (await browser.who()).status_code == 200
    browser.http.cookies.clear()
    stale = await browser.http.get("/v1/catalog", headers={"Cookie": f"{COOKIE}={former}"})
    assert_problem(stale, 401, "browser_session_ended")


# What ends it


async def test_logging_out_in_one_tab_ends_all_tabs_of_that_browser_only(
    server: Server, browser: Browser
) -> None:
    secret = browser.cookies[COOKIE]
    async with Browser.at(server) as elsewhere:
        await elsewhere.by_password(ANNA, PASSWORD)
        answer = await browser.post("/v1/auth/logout", {"browser_session": True})

        assert answer.json()["payload"]["everywhere"] is False
        assert answer.headers["set-cookie"].startswith(f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly")
        assert COOKIE not in browser.cookies
        other_tab = await browser.http.get("/v1/catalog", headers={"Cookie": f"{COOKIE}={secret}"})
        assert_problem(other_tab, 401, "browser_session_ended")
        assert (await elsewhere.who()).status_code == 200


async def test_logging_out_everywhere_ends_browsers_and_tokens(
    api: Api, server: Server, browser: Browser
) -> None:
    token = await api.token(ANNA)
    async with Browser.at(server) as elsewhere:
        await elsewhere.by_password(ANNA, PASSWORD)
        answer = await browser.post("/v1/auth/logout", {})

        assert answer.json()["payload"]["everywhere"] is True
        assert COOKIE not in browser.cookies
        assert_problem(await elsewhere.who(), 401, "browser_session_ended")
        assert_problem(await api.get("/v1/catalog", token=token), 401)


async def test_whoever_uses_a_token_has_no_browsers_session_to_end(api: Api) -> None:
    _, token = await api.user("ben")
    answer = await api.post("/v1/auth/logout", {"browser_session": True}, token=token)

    assert assert_problem(answer, 422)["errors"][0]["field"] == "payload.browser_session"
    both = {"browser_session": True, "keys": True}
    assert_problem(await api.post("/v1/auth/logout", both, token=token), 422)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/accounts/deactivate", {}),
        ("/v1/accounts/update", {"is_operator": True}),
        ("/v1/auth/logout", {}),
    ],
)
async def test_an_operator_ends_an_accounts_browsers(
    api: Api, browser: Browser, path: str, fields: dict[str, Any]
) -> None:
    await api.account("root@example.com", operator=True)
    root = await api.token("root@example.com")
    assert (await browser.who()).status_code == 200

    await api.ask(path, {"user_id": ANNA, **fields}, token=root)

    assert_problem(await browser.who(), 401, "browser_session_ended")


async def test_a_session_has_its_hours(tmp_path: Path) -> None:
    clock = SteppableClock()
    async with (
        open_test_server(tmp_path / "data", clock=clock, browser_session_hours=2) as server,
        Api.of(server) as api,
        Browser.at(server) as browser,
    ):
        await api.account(ANNA, password=PASSWORD)
        assert "Max-Age=7200" in (await browser.by_password(ANNA, PASSWORD)).headers["set-cookie"]
        secret = browser.cookies[COOKIE]
        for minutes, status in ((119, 200), (1, 401)):
            clock.step(minutes=minutes)
            answer = await browser.http.get("/v1/catalog", headers={"Cookie": f"{COOKIE}={secret}"})
            assert answer.status_code == status


async def test_sessions_outlive_a_restart(tmp_path: Path) -> None:
    async with open_test_server(tmp_path / "data") as server, Api.of(server) as api:
        await api.account(ANNA, password=PASSWORD)
        async with Browser.at(server) as browser:
            await browser.by_password(ANNA, PASSWORD)
            secret = browser.cookies[COOKIE]
    async with open_test_server(tmp_path / "data") as server, Browser.at(server) as browser:
        assert (await browser.post(LIST, {}, Cookie=f"{COOKIE}={secret}")).status_code == 200


# Where browsers reach the server


async def test_on_loopback_without_tls_the_cookie_is_named_after_the_port(tmp_path: Path) -> None:
    async with (
        open_test_server(tmp_path / "data", public_url="", port=8377) as server,
        Api.of(server) as api,
        listening(server) as url,
    ):
        await api.account(ANNA, password=PASSWORD)
        async with Browser.at(server) as browser:
            browser.http.base_url = "http://127.0.0.1:8377"
            headers = {"Origin": "http://127.0.0.1:8377"}
            answer = await browser.by_password(ANNA, PASSWORD, **headers)
            assert answer.headers["set-cookie"].startswith("casekeeper-8377=")
            assert "Secure" not in answer.headers["set-cookie"]
            assert (await browser.http.get("/v1/auth/session")).status_code == 200
            # On one machine a server has several names.
            answer = await browser.by_password(ANNA, PASSWORD, Host="localhost", Origin="http://localhost")
            assert answer.status_code == 200
            answer = await browser.by_password(ANNA, PASSWORD, Host="cases.example.com", Origin="")
            assert_problem(answer, 503, "browser_logins_off")
            assert_problem(
                await browser.http.get(f"{url}/v1/auth/login", headers={"Host": "cases.example.com"}), 503
            )


@pytest.mark.parametrize(
    "address",
    [
        "http://cases.example.com",
        "cases.example.com",
        "https://a.example/x",
        "https://a.example?x",
        "ftp://a",
    ],
)
def test_an_address_that_is_no_origin_stops_the_start(address: str) -> None:
    from casekeeper.settings import Settings

    with pytest.raises(ValueError, match="public_url"):
        Settings(public_url=address)
