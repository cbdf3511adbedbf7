"""Operations after their start: in the background, looked at, cancelled, their parts in full."""

import asyncio
from typing import Any

import pytest
from dirty_equals import IsInt, IsPartialDict

from tests.doors.problems import assert_problem
from tests.support import Api, House, Workshop


async def started(api: Api, house: House, who: str = "owner", **more: Any) -> Any:
    """An operation that waits, in the background; the answer's payload."""
    ran = await api.run(house[who], "waits", casefile_id=house.casefile_id, mode="background", **more)
    assert ran.status_code == 202, ran.text
    return ran.json()["payload"]


async def until_ended(api: Api, token: str, event_id: str) -> Any:
    """The operation when it has ended."""
    async with asyncio.timeout(5):
        while True:
            response = await api.post("/v1/operations/get", {"event_id": event_id}, token=token)
            if response.status_code != 202:
                return response.json()
            await asyncio.sleep(0.01)


async def test_a_background_operation_is_answered_at_once(api: Api, house: House) -> None:
    ran = await api.run(house["owner"], "waits", casefile_id=house.casefile_id, mode="background")
    assert (ran.status_code, ran.json()) == (
        202,
        IsPartialDict(status="running", payload=IsPartialDict(success=None, outputs=None, error=None)),
    )


async def test_a_running_operation_is_listed_as_open(api: Api, house: House) -> None:
    ran = await started(api, house)
    got = await api.ask("/v1/sessions/get", {"session_id": ran["session_id"]}, token=house["owner"])
    assert got["open"] == [
        IsPartialDict(
            event_id=ran["event_id"],
            operation_name="waits",
            state="running",
            user_id=house.users["owner"],
        )
    ]


async def test_a_background_operation_is_looked_at_until_it_ends(
    api: Api, house: House, workshop: Workshop
) -> None:
    ran = await started(api, house)
    workshop.release.set()
    ended = await until_ended(api, house["owner"], ran["event_id"])
    assert ended["payload"] == IsPartialDict(
        event_id=ran["event_id"], success=True, outputs="released", duration_ms=IsInt(ge=0)
    )


async def test_cancelling_ends_an_operation_and_says_why(api: Api, house: House, workshop: Workshop) -> None:
    ran = await started(api, house)
    await workshop.until_running("waits")
    cancel = {"event_id": ran["event_id"], "reason": "not needed"}
    ended = await api.ask("/v1/operations/cancel", cancel, token=house["owner"])
    assert ended == IsPartialDict(
        success=False, error={"type": "cancelled", "message": "not needed", "retryable": False}
    )
    assert workshop.ended["waits"] == 1


async def test_cancelling_again_changes_nothing(api: Api, house: House) -> None:
    ran = await started(api, house)
    cancel = {"event_id": ran["event_id"]}
    first, second = [await api.ask("/v1/operations/cancel", cancel, token=house["owner"]) for _ in range(2)]
    assert {**first, "updated_scopes": None} == {**second, "updated_scopes": None}
    assert [kind for *_, kind, event_id in await api.facts() if event_id == ran["event_id"]] == [
        "started",
        "cancelled",
    ]


async def test_an_operation_that_has_ended_is_left_as_it_is(api: Api, house: House) -> None:
    ran = (await api.run(house["owner"], "noop", casefile_id=house.casefile_id)).json()["payload"]
    cancelled = await api.ask("/v1/operations/cancel", {"event_id": ran["event_id"]}, token=house["owner"])
    assert cancelled["success"] is True


async def test_an_admin_cancels_what_an_editor_runs(api: Api, house: House) -> None:
    ran = await started(api, house, "editor")
    ended = await api.ask("/v1/operations/cancel", {"event_id": ran["event_id"]}, token=house["admin"])
    assert ended["error"]["type"] == "cancelled"


async def test_cancelling_an_operation_cancels_those_inside_it(
    api: Api, house: House, workshop: Workshop
) -> None:
    parameters = {"name": "waits"}
    ran = await api.run(
        house["owner"], "nested", parameters, casefile_id=house.casefile_id, mode="background"
    )
    await workshop.until_running("waits")
    await api.ask(
        "/v1/operations/cancel", {"event_id": ran.json()["payload"]["event_id"]}, token=house["owner"]
    )
    kinds = [kind for _, kind, _ in await api.facts() if kind in ("started", "cancelled")]
    assert kinds == ["started", "started", "cancelled", "cancelled"]


@pytest.mark.parametrize("route", ["get", "cancel"])
async def test_what_is_no_operation_is_not_found_as_one(api: Api, house: House, route: str) -> None:
    await api.session(house["owner"], house.casefile_id)
    opened = next(event_id for _, kind, event_id in await api.facts() if kind == "opened")
    response = await api.post(f"/v1/operations/{route}", {"event_id": opened}, token=house["owner"])
    assert_problem(response, 404, "operation_not_found")


async def test_a_running_operation_has_inputs_and_no_outputs_yet(api: Api, house: House) -> None:
    ran = await started(api, house)
    parts = [
        await api.get(f"/v1/operations/{ran['event_id']}/{part}", token=house["owner"])
        for part in ("inputs", "outputs")
    ]
    assert (parts[0].json(), parts[1].status_code) == ({}, 404)


async def test_large_inputs_and_outputs_are_blobs_in_pages_and_whole_elsewhere(
    api: Api, house: House
) -> None:
    value = "x" * 300_000
    ran = (await api.run(house["owner"], "echo", {"value": value}, casefile_id=house.casefile_id)).json()[
        "payload"
    ]
    page = await api.ask("/v1/sessions/get", {"session_id": ran["session_id"]}, token=house["owner"])
    [event] = page["events"]["items"]
    parts = [
        (await api.get(f"/v1/operations/{ran['event_id']}/{part}", token=house["owner"])).json()
        for part in ("inputs", "outputs")
    ]
    assert (ran["outputs"], parts) == (value, [{"value": value}, value])
    assert (event["inputs"], event["outputs"]) == (
        IsPartialDict(size=IsInt(ge=300_000)),
        IsPartialDict(size=IsInt(ge=300_000)),
    )


async def test_operations_inside_operations_are_children_of_their_parent(api: Api, house: House) -> None:
    parameters = {"name": "nested", "parameters": {"name": "echo", "parameters": {"value": 1}}}
    ran = (await api.run(house["owner"], "nested", parameters, casefile_id=house.casefile_id)).json()
    events = (
        await api.ask(
            "/v1/events/query", {"order": "asc", "casefile_id": house.casefile_id}, token=house["owner"]
        )
    )["items"]
    innermost, middle, outermost = [e for e in events if e.get("operation_name")]
    assert [e.get("parent_event_id") for e in (innermost, middle, outermost)] == [
        middle["event_id"],
        outermost["event_id"],
        None,
    ]
    assert (ran["payload"]["outputs"], outermost["event_id"]) == (1, ran["payload"]["event_id"])


async def test_endless_nesting_is_stopped(api: Api, house: House) -> None:
    parameters: dict[str, Any] = {"name": "noop"}
    for _ in range(20):
        parameters = {"name": "nested", "parameters": parameters}
    ran = await api.run(house["owner"], "nested", parameters, casefile_id=house.casefile_id)
    assert ran.json()["payload"] == IsPartialDict(success=False, error=IsPartialDict(type="too_deep"))


async def test_a_revoke_stops_what_the_user_runs(api: Api, house: House, workshop: Workshop) -> None:
    ran = await api.run(house["editor"], "writes_on_and_on", casefile_id=house.casefile_id, mode="background")
    await workshop.until_running("writes_on_and_on", 3)
    gone = {"casefile_id": house.casefile_id, "user_id": house.users["editor"]}
    await api.ask("/v1/permissions/revoke", gone, token=house["owner"])
    written = workshop.runs["writes_on_and_on"]
    ended = await until_ended(api, house["owner"], ran.json()["payload"]["event_id"])
    assert ended["payload"]["error"]["type"] == "rights_lost"
    assert workshop.runs["writes_on_and_on"] <= written + 1


async def test_a_lowered_role_stops_a_running_operation_from_writing(
    api: Api, house: House, workshop: Workshop
) -> None:
    ran = await api.run(house["editor"], "writes_on_and_on", casefile_id=house.casefile_id, mode="background")
    await workshop.until_running("writes_on_and_on", 3)
    await api.grant(house["owner"], house.casefile_id, house.users["editor"], "viewer")
    written = workshop.runs["writes_on_and_on"]
    ended = await until_ended(api, house["owner"], ran.json()["payload"]["event_id"])
    assert ended["payload"]["success"] is False
    assert workshop.runs["writes_on_and_on"] <= written + 1


async def test_deleting_a_casefile_stops_what_runs_in_it(api: Api, house: House, workshop: Workshop) -> None:
    await started(api, house, "editor")
    await workshop.until_running("waits")
    await api.ask("/v1/casefiles/delete", {"casefile_id": house.casefile_id}, token=house["owner"])
    async with asyncio.timeout(5):
        while not workshop.ended["waits"]:
            await asyncio.sleep(0.01)


async def test_what_an_agent_asks_for_after_it_has_read_something_is_told_as_tainted(
    api: Api, house: House
) -> None:
    casefile_id, token = house.casefile_id, house["owner"]
    await api.run(token, "note_add", {"text": "The rent of flat 4 is due."}, casefile_id=casefile_id)
    operation = {"operation_type": "agent", "agent_name": "offline-researcher", "prompt": "rent flat"}
    payload = {"casefile_id": casefile_id, "operation": operation}
    ran = await api.ask("/v1/sessions/execute", payload, token=token)

    wanted = {"casefile_id": casefile_id, "parent_event_id": ran["event_id"], "order": "asc"}
    children = (await api.ask("/v1/events/query", wanted, token=token))["items"]
    told = [(event["operation_name"], event.get("tainted")) for event in children]
    asked = [{"event_id": event_id} for event_id in (ran["event_id"], *(e["event_id"] for e in children))]
    got = [(await api.ask("/v1/operations/get", one, token=token))["tainted"] for one in asked]

    assert told == [("mail_search", None), ("mail_search", 1)]
    assert got == [True, False, True]
