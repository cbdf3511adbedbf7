"""One run per request id, whatever is repeated, raced or changed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsPartialDict

from tests.doors.problems import assert_problem
from tests.support import Api, House, Workshop, bearer, open_test_server

REPLAYED = "Idempotency-Replayed"


async def test_a_repeat_is_answered_by_the_first_run(api: Api, house: House, workshop: Workshop) -> None:
    first, second = [
        await api.run(house["owner"], "noop", casefile_id=house.casefile_id, request_id="r1")
        for _ in range(2)
    ]
    assert (first.headers.get(REPLAYED), second.headers.get(REPLAYED)) == (None, "true")
    assert first.json()["payload"]["event_id"] == second.json()["payload"]["event_id"]
    assert workshop.runs["noop"] == 1


async def test_twenty_concurrent_duplicates_run_once(api: Api, house: House, workshop: Workshop) -> None:
    calls = [
        asyncio.ensure_future(
            api.run(house["owner"], "waits", casefile_id=house.casefile_id, request_id="r1")
        )
        for _ in range(20)
    ]
    await workshop.until_running("waits")
    workshop.release.set()
    answers = [answer.json() for answer in await asyncio.gather(*calls)]
    assert workshop.runs["waits"] == 1
    assert len({answer["payload"]["event_id"] for answer in answers}) == 1
    assert {answer["payload"]["outputs"] for answer in answers} == {"released"}


async def test_the_same_id_with_another_body_is_refused(api: Api, house: House, workshop: Workshop) -> None:
    await api.run(house["owner"], "echo", {"value": 1}, casefile_id=house.casefile_id, request_id="r1")
    other = await api.run(
        house["owner"], "echo", {"value": 2}, casefile_id=house.casefile_id, request_id="r1"
    )
    assert_problem(other, 422, "request_id_reused")
    assert workshop.runs["echo"] == 1


async def test_the_same_id_of_another_user_is_another_request(
    api: Api, house: House, workshop: Workshop
) -> None:
    for who in ("owner", "editor"):
        await api.run(house[who], "noop", casefile_id=house.casefile_id, request_id="r1")
    assert workshop.runs["noop"] == 2


async def test_the_same_id_on_another_route_is_another_request(api: Api, house: House) -> None:
    await api.run(house["owner"], "noop", casefile_id=house.casefile_id, request_id="r1")
    payload = {"casefile_id": house.casefile_id}
    made = await api.post("/v1/sessions/create", payload, token=house["owner"], request_id="r1")
    assert (made.status_code, made.headers.get(REPLAYED)) == (200, None)


async def test_the_header_serves_as_well_as_the_field(api: Api, house: House, workshop: Workshop) -> None:
    operation: dict[str, Any] = {"operation_type": "tool", "tool_name": "noop", "parameters": {}}
    payload = {"casefile_id": house.casefile_id, "operation": operation}
    headers = {"Idempotency-Key": "r1"}
    await api.post("/v1/sessions/execute", payload, token=house["owner"], headers=headers)
    again = await api.post("/v1/sessions/execute", payload, token=house["owner"], request_id="r1")
    assert (again.headers.get(REPLAYED), again.json()["request_id"], workshop.runs["noop"]) == (
        "true",
        "r1",
        1,
    )


async def test_header_and_field_must_agree(api: Api, house: House) -> None:
    headers = {"Idempotency-Key": "r2"}
    response = await api.post(
        "/v1/casefiles/list", {}, token=house["owner"], request_id="r1", headers=headers
    )
    assert_problem(response, 422, "arguments_invalid", field="request_id")


@pytest.mark.parametrize("key", ["", "with space", "x" * 129, "ü"])
async def test_an_ill_formed_header_is_refused(api: Api, house: House, key: str) -> None:
    headers = [(b"authorization", f"Bearer {house['owner']}".encode()), (b"idempotency-key", key.encode())]
    response = await api.http.post("/v1/casefiles/list", json={"payload": {}}, headers=headers)
    assert_problem(response, 422, "arguments_invalid", field="Idempotency-Key")


async def test_a_failed_run_is_not_run_again(api: Api, house: House) -> None:
    first, second = [
        await api.run(house["owner"], "raises", casefile_id=house.casefile_id, request_id="r1")
        for _ in range(2)
    ]
    assert first.json()["payload"] | {"session_created": False} == second.json()["payload"] | {
        "permission_from_cache": first.json()["payload"]["permission_from_cache"],
        "updated_scopes": first.json()["payload"]["updated_scopes"],
    }


async def test_a_refusal_is_not_kept(api: Api, house: House, workshop: Workshop) -> None:
    refused = await api.run(house["viewer"], "touch", casefile_id=house.casefile_id, request_id="r1")
    await api.grant(house["owner"], house.casefile_id, house.users["viewer"], "editor")
    again = await api.run(house["viewer"], "touch", casefile_id=house.casefile_id, request_id="r1")
    assert (refused.status_code, again.status_code, workshop.runs["touch"]) == (403, 200, 1)


async def test_a_repeat_after_a_revoke_is_refused(api: Api, house: House) -> None:
    await api.run(house["editor"], "touch", casefile_id=house.casefile_id, request_id="r1")
    gone = {"casefile_id": house.casefile_id, "user_id": house.users["editor"]}
    await api.ask("/v1/permissions/revoke", gone, token=house["owner"])
    again = await api.run(house["editor"], "touch", casefile_id=house.casefile_id, request_id="r1")
    assert_problem(again, 404, "casefile_not_found")


async def test_a_repeat_carries_no_old_token_and_tells_the_truth_about_the_cache(
    api: Api, house: House
) -> None:
    first = await api.run(house["editor"], "noop", casefile_id=house.casefile_id, request_id="r1")
    scoped = first.json()["payload"]["updated_scopes"]["token"]
    again = await api.run(scoped, "noop", casefile_id=house.casefile_id, request_id="r1")
    assert again.json()["payload"] == IsPartialDict(permission_from_cache=True, updated_scopes=None)


async def test_a_repeat_in_a_session_that_was_closed_meanwhile_is_answered(api: Api, house: House) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    first = await api.run(house["owner"], "noop", session_id=session_id, request_id="r1")
    await api.ask("/v1/sessions/close", {"session_id": session_id}, token=house["owner"])
    again = await api.run(house["owner"], "noop", session_id=session_id, request_id="r1")
    assert again.json()["payload"]["event_id"] == first.json()["payload"]["event_id"]


async def test_a_repeat_of_a_background_run_tells_how_it_stands(
    api: Api, house: House, workshop: Workshop
) -> None:
    async def run() -> Any:
        return await api.run(
            house["owner"], "waits", casefile_id=house.casefile_id, mode="background", request_id="r1"
        )

    statuses = [(await run()).status_code for _ in range(2)]
    workshop.release.set()
    async with asyncio.timeout(5):
        while (ended := await run()).status_code == 202:
            await asyncio.sleep(0.01)
    assert (statuses, ended.json()["payload"]["outputs"], workshop.runs["waits"]) == (
        [202, 202],
        "released",
        1,
    )


@pytest.mark.timeout(30)
async def test_a_repeat_waits_ten_seconds_and_then_says_come_back(
    api: Api, house: House, workshop: Workshop
) -> None:
    first = asyncio.ensure_future(
        api.run(house["owner"], "waits", casefile_id=house.casefile_id, request_id="r1")
    )
    await workshop.until_running("waits")
    again = await api.run(house["owner"], "waits", casefile_id=house.casefile_id, request_id="r1")
    problem = assert_problem(again, 409, "still_running")
    assert (problem["retryable"], "Retry-After" in again.headers) == (True, True)
    workshop.release.set()
    assert (await first).status_code == 200


async def test_repeats_cost_no_limit(tmp_path: Path) -> None:
    async with open_test_server(tmp_path / "data", limit_user=2) as server, Api.of(server) as api:
        house = await api.house()
        ids = ["r1", "r1", "r1", "r1", "r2", "r1", "r3"]
        answers = [
            await api.run(house["owner"], "noop", casefile_id=house.casefile_id, request_id=id_)
            for id_ in ids
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 200, 200, 429]
        assert_problem(answers[-1], 429, "rate_limited")
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60


def _changes(house: House) -> dict[str, tuple[str, dict[str, Any]]]:
    casefile = {"casefile_id": house.casefile_id}
    viewer = casefile | {"user_id": house.users["viewer"]}
    return {
        "create casefile": ("/v1/casefiles/create", {"title": "Once"}),
        "update": ("/v1/casefiles/update", casefile | {"title": "Once"}),
        "delete": ("/v1/casefiles/delete", casefile),
        "grant": ("/v1/permissions/grant", viewer | {"role": "editor"}),
        "revoke": ("/v1/permissions/revoke", viewer),
        "transfer": ("/v1/permissions/transfer", viewer),
        "create session": ("/v1/sessions/create", casefile),
        "create key": ("/v1/keys/create", {"name": "once"}),
    }


CHANGES = tuple(_changes(House("", {"viewer": ""}, {})))


@pytest.mark.parametrize("name", CHANGES)
async def test_a_repeated_change_is_made_once(api: Api, house: House, name: str) -> None:
    path, payload = _changes(house)[name]
    first = await api.post(path, payload, token=house["owner"], request_id="r1")
    facts = await api.facts()
    again = await api.post(path, payload, token=house["owner"], request_id="r1")
    assert (first.status_code, again.status_code, again.headers.get(REPLAYED)) == (200, 200, "true")
    assert await api.facts() == facts


@pytest.mark.parametrize("name", CHANGES)
async def test_a_repeated_change_is_answered_alike_but_for_secrets_and_standing(
    api: Api, house: House, name: str
) -> None:
    path, payload = _changes(house)[name]
    first = await api.ask(path, payload, token=house["owner"], request_id="r1")
    again = await api.ask(path, payload, token=house["owner"], request_id="r1")
    own = {"api_key", "updated_scopes", "permission_from_cache"}
    # The former owner reads the casefile as admin.
    own |= {"user_permission"} if name == "transfer" else set()
    assert {k: v for k, v in again.items() if k not in own} == {
        k: v for k, v in first.items() if k not in own
    }


@pytest.mark.parametrize("name", CHANGES)
async def test_concurrent_duplicates_of_a_change_make_it_once(api: Api, house: House, name: str) -> None:
    path, payload = _changes(house)[name]
    answers = await asyncio.gather(
        *(api.post(path, payload, token=house["owner"], request_id="r1") for _ in range(10))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.headers.get(REPLAYED) for answer in answers].count(None) == 1


async def test_a_repeated_key_shows_no_secret_again(api: Api, house: House) -> None:
    first, again = [
        await api.ask("/v1/keys/create", {}, token=house["owner"], request_id="r1") for _ in range(2)
    ]
    assert (first["key_id"], again["api_key"]) == (again["key_id"], None)


async def test_a_repeated_close_answers_alike(api: Api, house: House) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    first, again = [
        await api.ask("/v1/sessions/close", {"session_id": session_id}, token=house["owner"], request_id="r1")
        for _ in range(2)
    ]
    assert first == again


async def test_a_repeated_upload_keeps_the_bytes_once(api: Api, house: House) -> None:
    path = f"/v1/documents/upload?casefile_id={house.casefile_id}&filename=a.eml"
    headers = bearer(house["editor"]) | {"Idempotency-Key": "r1"}
    first, again = [await api.http.post(path, content=b"Subject: x\n\ny", headers=headers) for _ in range(2)]
    assert (first.json()["payload"], again.headers.get(REPLAYED)) == (again.json()["payload"], "true")


async def test_a_grant_is_repeated_after_its_user_was_deactivated(api: Api, house: House) -> None:
    grant = {"casefile_id": house.casefile_id, "user_id": house.users["viewer"], "role": "editor"}
    await api.ask("/v1/permissions/grant", grant, token=house["owner"], request_id="r1")
    ended = {"user_id": house.users["viewer"]}
    await api.ask("/v1/accounts/deactivate", ended, token=house["operator"])
    again = await api.post("/v1/permissions/grant", grant, token=house["owner"], request_id="r1")
    assert (again.status_code, again.headers.get(REPLAYED)) == (200, "true")


async def test_leaving_a_casefile_can_be_repeated(api: Api, house: House) -> None:
    leave = {"casefile_id": house.casefile_id, "user_id": house.users["viewer"]}
    answers = [
        await api.post("/v1/permissions/revoke", leave, token=house["viewer"], request_id="r1")
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
