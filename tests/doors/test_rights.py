"""What runs, and who follows, when a permission is lost meanwhile."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx2
import orjson
import pytest

from casekeeper.clock import utc_now
from tests.support import Api, House, Workshop, bearer

pytestmark = pytest.mark.timeout(60)


async def ended(api: Api, house: House, who: str, tool: str, workshop: Workshop, lose: Any) -> str:
    """How an operation of this user ends whose right to it is lost while it runs."""
    running = asyncio.ensure_future(api.run(house[who], tool, casefile_id=house.casefile_id))
    await workshop.until_running(tool)
    await lose
    async with asyncio.timeout(20):
        payload = (await running).json()["payload"]
    return payload["error"]["type"]


async def test_a_lower_role_stops_what_needs_the_higher_one(
    api: Api, house: House, workshop: Workshop
) -> None:
    lose = api.grant(house["owner"], house.casefile_id, house.users["editor"], "viewer")
    assert await ended(api, house, "editor", "waits_writing", workshop, lose) == "rights_lost"


async def test_a_lower_role_leaves_what_it_still_covers(api: Api, house: House, workshop: Workshop) -> None:
    running = asyncio.ensure_future(api.run(house["editor"], "waits", casefile_id=house.casefile_id))
    await workshop.until_running("waits")
    await api.grant(house["owner"], house.casefile_id, house.users["editor"], "viewer")
    await asyncio.sleep(0.8)
    workshop.release.set()
    assert (await running).json()["payload"]["success"] is True


async def test_the_end_of_a_grant_stops_what_runs(api: Api, house: House, workshop: Workshop) -> None:
    soon = (utc_now() + timedelta(seconds=1.5)).isoformat()
    await api.grant(house["owner"], house.casefile_id, house.users["viewer"], "viewer", expires_at=soon)
    assert await ended(api, house, "viewer", "waits", workshop, asyncio.sleep(0)) == "rights_lost"


async def test_a_grant_that_is_prolonged_meanwhile_goes_on(
    api: Api, house: House, workshop: Workshop
) -> None:
    soon = (utc_now() + timedelta(seconds=1.5)).isoformat()
    await api.grant(house["owner"], house.casefile_id, house.users["viewer"], "viewer", expires_at=soon)
    running = asyncio.ensure_future(api.run(house["viewer"], "waits", casefile_id=house.casefile_id))
    await workshop.until_running("waits")
    await api.grant(house["owner"], house.casefile_id, house.users["viewer"], "viewer")
    await asyncio.sleep(2.5)
    workshop.release.set()
    assert (await running).json()["payload"]["success"] is True


async def test_a_quiet_stream_ends_when_its_reader_is_out(url: str, api: Api, house: House) -> None:
    session_id = await api.session(house["owner"], house.casefile_id, visibility="casefile")
    path = f"{url}/v1/sessions/{session_id}/events/stream"
    async with (
        httpx2.AsyncClient() as http,
        http.stream("GET", path, headers=bearer(house["viewer"])) as followed,
    ):
        lines = followed.aiter_lines()
        while "opened" not in await anext(lines):
            pass
        payload = {"casefile_id": house.casefile_id, "user_id": house.users["viewer"]}
        await api.ask("/v1/permissions/revoke", payload, token=house["owner"])
        # Long before the next heartbeat, which comes after 15 s.
        async with asyncio.timeout(10):
            rest = [line async for line in lines]
    said = orjson.loads(rest[rest.index("event: end") + 1].removeprefix("data: "))
    assert (said["code"], said["status"], said["instance"]) == (
        "session_not_found",
        404,
        path.removeprefix(url),
    )


async def revoked(api: Api, house: House, who: str, **more: Any) -> Any:
    """What a revoke answers."""
    fields = {"casefile_id": house.casefile_id, "user_id": house.users[who], **more}
    return await api.ask("/v1/permissions/revoke", fields, token=house["owner"])


async def test_a_revoke_says_what_it_has_stopped(api: Api, house: House, workshop: Workshop) -> None:
    work = api.run(house["viewer"], "waits", casefile_id=house.casefile_id)
    running = asyncio.ensure_future(work)
    await workshop.until_running("waits")

    receipt = await revoked(api, house, "viewer")

    ended = (await running).json()["payload"]
    assert (receipt["stopped"], receipt["unconfirmed"]) == ([ended["event_id"]], {})
    assert ended["error"]["type"] == "rights_lost"
    again = await revoked(api, house, "viewer")
    assert (again["stopped"], again["unconfirmed"]) == ([], {})


async def test_a_lower_role_says_what_it_has_stopped(api: Api, house: House, workshop: Workshop) -> None:
    works = [
        asyncio.ensure_future(api.run(house["editor"], tool, casefile_id=house.casefile_id))
        for tool in ("waits", "waits_writing")
    ]
    await workshop.until_running("waits")
    await workshop.until_running("waits_writing")

    lower = {"casefile_id": house.casefile_id, "user_id": house.users["editor"], "role": "viewer"}
    receipt = await api.ask("/v1/permissions/grant", lower, token=house["owner"])

    writing = (await works[1]).json()["payload"]
    assert (receipt["role"], receipt["stopped"], receipt["unconfirmed"]) == (
        "viewer",
        [writing["event_id"]],
        {},
    )
    workshop.release.set()
    assert (await works[0]).json()["payload"]["success"] is True


async def test_a_revoke_names_what_does_not_end(api: Api, house: House, workshop: Workshop) -> None:
    work = api.run(house["editor"], "ignores_cancellation", casefile_id=house.casefile_id)
    running = asyncio.ensure_future(work)
    await workshop.until_running("ignores_cancellation")

    receipt = await revoked(api, house, "editor")

    [[event_id]] = receipt["unconfirmed"].values()
    assert receipt["stopped"] == []
    workshop.release.set()
    assert (await running).json()["payload"]["event_id"] == event_id


async def test_a_revoke_that_does_not_wait_answers_before_all_has_ended(
    api: Api, house: House, workshop: Workshop
) -> None:
    work = api.run(house["viewer"], "waits", casefile_id=house.casefile_id)
    running = asyncio.ensure_future(work)
    await workshop.until_running("waits")

    receipt = await revoked(api, house, "viewer", wait="none")

    ended = (await running).json()["payload"]
    told = [*receipt["stopped"], *(one for ids in receipt["unconfirmed"].values() for one in ids)]
    assert told == [ended["event_id"]]
    assert (await api.run(house["viewer"], "noop", casefile_id=house.casefile_id)).status_code == 404
