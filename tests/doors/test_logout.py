"""Logging out: one login, or an account everywhere at once."""

import asyncio
from typing import Any

import pytest

from tests.doors.problems import assert_problem
from tests.support import Api, House, Workshop

pytestmark = pytest.mark.timeout(60)
PASSWORD = "a good password"


async def logged_in(api: Api, user_id: str = "sam@example.com") -> dict[str, Any]:
    """The tokens of a login."""
    response = await api.post("/v1/auth/token", {"user_id": user_id, "password": PASSWORD})
    return response.json()["payload"]


async def test_everything_of_an_account_ends_at_once(api: Api) -> None:
    await api.account("sam@example.com", password=PASSWORD)
    one, two = await logged_in(api), await logged_in(api)
    key = await api.ask("/v1/keys/create", {}, token=one["access_token"])

    ended = await api.ask("/v1/auth/logout", {}, token=one["access_token"])

    assert ended == {
        "user_id": "sam@example.com",
        "everywhere": True,
        "stopped": [],
        "waiting": [],
        "unconfirmed": {},
    }
    for tokens in (one, two):
        assert_problem(await api.post("/v1/casefiles/list", {}, token=tokens["access_token"]), 401)
        renewed = await api.post("/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})
        assert_problem(renewed, 401)
    # The key is another credential, and was not meant.
    again = await api.post("/v1/auth/token", {"api_key": key["api_key"]})
    assert again.status_code == 200
    await api.ask("/v1/auth/logout", {"keys": True}, token=again.json()["payload"]["access_token"])
    assert_problem(await api.post("/v1/auth/token", {"api_key": key["api_key"]}), 401)
    # Once more changes nothing for a key that has ended.
    third = await logged_in(api)
    await api.ask("/v1/auth/logout", {"keys": True}, token=third["access_token"])
    assert_problem(await api.post("/v1/auth/token", {"api_key": key["api_key"]}), 401)


async def test_one_login_ends_alone(api: Api) -> None:
    await api.account("sam@example.com", password=PASSWORD)
    one, two = await logged_in(api), await logged_in(api)

    for _ in range(2):
        fields = {"refresh_token": one["refresh_token"]}
        ended = await api.ask("/v1/auth/logout", fields, token=two["access_token"])
        assert ended["everywhere"] is False

    assert_problem(await api.post("/v1/auth/refresh", {"refresh_token": one["refresh_token"]}), 401)
    renewed = await api.post("/v1/auth/refresh", {"refresh_token": two["refresh_token"]})
    assert renewed.status_code == 200


async def test_anothers_login_is_not_ended_by_its_refresh_token(api: Api) -> None:
    await api.account("sam@example.com", password=PASSWORD)
    sams, (_, eve) = await logged_in(api), await api.user("eve")

    await api.ask("/v1/auth/logout", {"refresh_token": sams["refresh_token"]}, token=eve)

    renewed = await api.post("/v1/auth/refresh", {"refresh_token": sams["refresh_token"]})
    assert renewed.status_code == 200


async def test_an_operator_ends_what_anybody_has_running(api: Api, house: House, workshop: Workshop) -> None:
    running = asyncio.ensure_future(api.run(house["viewer"], "waits", casefile_id=house.casefile_id))
    await workshop.until_running("waits")

    fields = {"user_id": house.users["viewer"]}
    ended = await api.ask("/v1/auth/logout", fields, token=house["operator"], request_id="once")

    # Who waited for it is logged out, too.
    assert (await running).status_code in (200, 401)
    [event_id] = ended["stopped"]
    operation = await api.ask("/v1/operations/get", {"event_id": event_id}, token=house["owner"])
    assert operation["error"]["type"] == "rights_lost"
    again = await api.ask("/v1/auth/logout", fields, token=house["operator"], request_id="once")
    assert again["stopped"] == []
