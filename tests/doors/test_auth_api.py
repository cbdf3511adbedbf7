"""WHO: logging in, keys, refreshing, and the ends of all three."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsInt, IsPartialDict, IsStr
from inline_snapshot import snapshot

from tests.doors.problems import assert_problem
from tests.support import Api, SteppableClock, Workshop, open_test_server

PASSWORD = "a long password"
TOKEN, REFRESH = "/v1/auth/token", "/v1/auth/refresh"


@pytest.fixture
def clock() -> SteppableClock:
    """Time that goes on when a test says so."""
    return SteppableClock()


@pytest.fixture
async def api(tmp_path: Path, clock: SteppableClock) -> AsyncGenerator[Api]:
    """A door with an account `anna` that has a password, and an operator `root`."""
    async with open_test_server(tmp_path / "data", clock=clock) as server, Api.of(server) as opened:
        await opened.account("anna@example.com", password=PASSWORD)
        await opened.account("root@example.com", password=PASSWORD, operator=True)
        yield opened


async def login(api: Api, name: str = "anna", password: str = PASSWORD, **more: Any) -> Any:
    """The answer to a login."""
    return await api.post(TOKEN, {"user_id": f"{name}@example.com", "password": password, **more})


async def tokens(api: Api, name: str = "anna", **more: Any) -> Any:
    """The tokens of a login."""
    response = await login(api, name, **more)
    assert response.status_code == 200, response.text
    return response.json()["payload"]


async def refreshed(api: Api, refresh_token: str) -> Any:
    """The answer to a refresh."""
    return await api.post(REFRESH, {"refresh_token": refresh_token})


async def knows(api: Api, token: str) -> bool:
    """Whether an access token is accepted."""
    return (await api.get("/v1/catalog", token=token)).status_code == 200


# Logging in


async def test_a_password_gives_tokens_for_ten_minutes(api: Api) -> None:
    assert await tokens(api) == snapshot(
        {
            "access_token": IsStr(regex=r"[\w-]+\.[\w-]+\.[\w-]+"),
            "token_type": "Bearer",
            "expires_in": 600,
            "refresh_token": IsStr(regex=r"cr_[\w-]+"),
            "user_id": "anna@example.com",
            "casefile_scopes": {},
        }
    )


@pytest.mark.parametrize(
    "payload",
    [
        {"user_id": "anna@example.com", "password": "wrong password"},
        {"user_id": "nobody@example.com", "password": PASSWORD},
        {"api_key": "ck_000000000000_x"},
        {"api_key": "nonsense"},
        {"api_key": "ü"},
    ],
)
async def test_wrong_credentials_are_all_told_alike(api: Api, payload: dict[str, str]) -> None:
    problem = assert_problem(await api.post(TOKEN, payload), 401, "credentials_rejected")
    assert problem["detail"] == "These credentials are not accepted"


async def test_user_ids_are_written_in_any_case(api: Api) -> None:
    response = await api.post(TOKEN, {"user_id": "Anna@EXAMPLE.com", "password": PASSWORD})
    assert response.json()["payload"]["user_id"] == "anna@example.com"


async def test_a_login_may_ask_for_scopes_from_the_start(api: Api) -> None:
    casefile_id = await api.casefile((await tokens(api))["access_token"])
    got = await tokens(api, casefile_ids=[casefile_id, "cf_260101_ffffff"])
    assert got["casefile_scopes"] == {casefile_id: "owner"}


async def test_an_access_token_ends_after_ten_minutes(api: Api, clock: SteppableClock) -> None:
    token = (await tokens(api))["access_token"]
    known = [await knows(api, token)]
    clock.step(seconds=600)
    known.append(await knows(api, token))
    clock.step(seconds=6)
    assert [*known, await knows(api, token)] == [True, True, False]


async def test_an_expired_token_is_told_apart_from_a_rejected_one(api: Api, clock: SteppableClock) -> None:
    token = (await tokens(api))["access_token"]
    clock.step(minutes=11)
    response = await api.get("/v1/catalog", token=token)
    assert_problem(response, 401, "token_expired")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="casekeeper", error="invalid_token"'


# Refreshing


async def test_refresh_tokens_rotate(api: Api) -> None:
    first = await tokens(api)
    second = (await refreshed(api, first["refresh_token"])).json()["payload"]
    assert second["refresh_token"] not in (None, first["refresh_token"])
    assert await knows(api, second["access_token"])


async def test_a_lost_reply_may_be_asked_for_again_within_ten_seconds(
    api: Api, clock: SteppableClock
) -> None:
    first = await tokens(api)
    await refreshed(api, first["refresh_token"])
    clock.step(seconds=9)
    assert (await refreshed(api, first["refresh_token"])).status_code == 200


async def test_a_refresh_token_used_twice_ends_its_whole_family(api: Api, clock: SteppableClock) -> None:
    first = await tokens(api)
    second = (await refreshed(api, first["refresh_token"])).json()["payload"]
    clock.step(seconds=11)
    assert_problem(await refreshed(api, first["refresh_token"]), 401, "credentials_rejected")
    assert_problem(await refreshed(api, second["refresh_token"]), 401, "credentials_rejected")


async def test_another_logins_family_goes_on(api: Api, clock: SteppableClock) -> None:
    stolen, other = await tokens(api), await tokens(api)
    await refreshed(api, stolen["refresh_token"])
    clock.step(seconds=11)
    await refreshed(api, stolen["refresh_token"])
    assert (await refreshed(api, other["refresh_token"])).status_code == 200


async def test_a_refresh_token_ends_after_fourteen_days(api: Api, clock: SteppableClock) -> None:
    first = await tokens(api)
    clock.step(days=14, seconds=1)
    assert_problem(await refreshed(api, first["refresh_token"]), 401, "credentials_rejected")


@pytest.mark.parametrize("secret", ["cr_made_up", "x", "\x00", "ü"])
async def test_an_unknown_refresh_token_is_refused(api: Api, secret: str) -> None:
    assert_problem(await refreshed(api, secret), 401, "credentials_rejected")


async def test_concurrent_refreshes_all_get_working_tokens(api: Api) -> None:
    first = await tokens(api)
    answers = await asyncio.gather(*(refreshed(api, first["refresh_token"]) for _ in range(8)))
    known = [await knows(api, answer.json()["payload"]["access_token"]) for answer in answers]
    assert known == [True] * 8


# Keys


async def test_an_api_key_is_shown_once_and_logs_in(api: Api) -> None:
    token = (await tokens(api))["access_token"]
    made = await api.ask("/v1/keys/create", {"name": "ci"}, token=token)
    listed = await api.ask("/v1/keys/list", {}, token=token)
    logged_in = await api.post(TOKEN, {"api_key": made["api_key"]})
    assert [set(key) for key in listed["items"]] == [
        {"key_id", "user_id", "name", "created_at", "expires_at", "revoked_at"}
    ]
    assert logged_in.json()["payload"]["user_id"] == "anna@example.com"


async def test_a_revoked_key_ends_all_tokens_of_its_account(api: Api) -> None:
    got = await tokens(api)
    made = await api.ask("/v1/keys/create", {}, token=got["access_token"])
    await api.ask("/v1/keys/revoke", {"key_id": made["key_id"]}, token=got["access_token"])
    assert_problem(await api.post(TOKEN, {"api_key": made["api_key"]}), 401, "credentials_rejected")
    assert_problem(await api.get("/v1/catalog", token=got["access_token"]), 401, "token_rejected")
    assert_problem(await refreshed(api, got["refresh_token"]), 401, "credentials_rejected")


async def test_a_key_ends_when_it_was_said_to(api: Api, clock: SteppableClock) -> None:
    token = (await tokens(api))["access_token"]
    ends = {"expires_at": clock.now.replace(hour=13).isoformat()}
    made = await api.ask("/v1/keys/create", ends, token=token)
    statuses = [(await api.post(TOKEN, {"api_key": made["api_key"]})).status_code]
    clock.step(hours=1)
    statuses.append((await api.post(TOKEN, {"api_key": made["api_key"]})).status_code)
    assert statuses == [200, 401]


# Accounts


async def test_an_account_is_made_by_an_operator_and_logs_in(api: Api) -> None:
    root = (await tokens(api, "root"))["access_token"]
    payload = {"user_id": "New@example.com", "password": PASSWORD, "display_name": "New"}
    made = await api.ask("/v1/accounts/create", payload, token=root)
    assert made == IsPartialDict(user_id="new@example.com", is_active=True, is_operator=False)
    assert (await login(api, "new")).status_code == 200


async def test_a_user_id_is_taken_once_in_any_case(api: Api) -> None:
    root = (await tokens(api, "root"))["access_token"]
    response = await api.post("/v1/accounts/create", {"user_id": "ANNA@example.com"}, token=root)
    assert_problem(response, 409, "account_exists")


async def test_a_deactivated_account_is_out_at_once_and_everywhere(api: Api) -> None:
    got, root = await tokens(api), (await tokens(api, "root"))["access_token"]
    key = await api.ask("/v1/keys/create", {}, token=got["access_token"])
    await api.ask("/v1/accounts/deactivate", {"user_id": "anna@example.com"}, token=root)
    statuses = {
        "token": (await api.get("/v1/catalog", token=got["access_token"])).status_code,
        "refresh": (await refreshed(api, got["refresh_token"])).status_code,
        "password": (await login(api)).status_code,
        "key": (await api.post(TOKEN, {"api_key": key["api_key"]})).status_code,
    }
    assert statuses == dict.fromkeys(statuses, 401)


async def test_an_account_that_is_made_active_again_needs_a_new_login(api: Api) -> None:
    got, root = await tokens(api), (await tokens(api, "root"))["access_token"]
    anna = {"user_id": "anna@example.com"}
    await api.ask("/v1/accounts/deactivate", anna, token=root)
    await api.ask("/v1/accounts/update", anna | {"is_active": True}, token=root)
    assert await knows(api, (await tokens(api))["access_token"])
    assert not await knows(api, got["access_token"])


async def test_a_new_password_ends_the_old_one_and_all_tokens(api: Api) -> None:
    got = await tokens(api)
    change = {"user_id": "anna@example.com", "password": "another password", "current_password": PASSWORD}
    await api.ask("/v1/accounts/update", change, token=got["access_token"])
    assert [(await login(api)).status_code, (await login(api, password="another password")).status_code] == [
        401,
        200,
    ]
    assert not await knows(api, got["access_token"])


async def test_a_new_password_needs_the_present_one(api: Api) -> None:
    token = (await tokens(api))["access_token"]
    change = {"user_id": "anna@example.com", "password": "another password"}
    assert_problem(await api.post("/v1/accounts/update", change, token=token), 401, "credentials_rejected")
    assert (await login(api)).status_code == 200


async def test_whoever_stops_being_an_operator_stops_at_once(api: Api) -> None:
    await api.account("second@example.com", password=PASSWORD, operator=True)
    second, root = [(await tokens(api, name))["access_token"] for name in ("second", "root")]
    demote = {"user_id": "second@example.com", "is_operator": False}
    await api.ask("/v1/accounts/update", demote, token=root)
    assert not await knows(api, second)


async def test_a_deactivated_users_work_is_stopped(tmp_path: Path) -> None:
    shop = Workshop()
    async with open_test_server(tmp_path / "work", workshop=shop) as server, Api.of(server) as api:
        house = await api.house()
        await api.run(house["editor"], "waits", casefile_id=house.casefile_id, mode="background")
        await shop.until_running("waits")
        ended = {"user_id": house.users["editor"]}
        await api.ask("/v1/accounts/deactivate", ended, token=house["operator"])
        async with asyncio.timeout(5):
            while not shop.ended["waits"]:
                await asyncio.sleep(0.01)


async def test_answers_with_tokens_are_kept_by_no_cache(api: Api) -> None:
    assert (await login(api)).headers["Cache-Control"] == "no-store"


async def test_logging_in_is_not_replayed(api: Api) -> None:
    payload = {"user_id": "anna@example.com", "password": PASSWORD}
    first, second = [await api.post(TOKEN, payload, request_id="r1") for _ in range(2)]
    assert first.json()["payload"]["refresh_token"] != second.json()["payload"]["refresh_token"]
    assert first.json() == IsPartialDict(request_id="r1", payload=IsPartialDict(expires_in=IsInt))
