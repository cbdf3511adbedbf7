"""Live streams over a real socket: nothing lost, nothing doubled, nothing shown to whoever may not see it."""

from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
from dirty_equals import IsPartialDict

from tests.doors.following import Frame, follow, frames, take
from tests.doors.problems import assert_problem
from tests.support import Api, House, bearer


def execute(house: House, tool: str, parameters: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The body of an execute."""
    operation = {"operation_type": "tool", "tool_name": tool, "parameters": parameters or {}}
    envelope = {name: more.pop(name) for name in ("request_id",) if name in more}
    return envelope | {"payload": {"casefile_id": house.casefile_id, "operation": operation, **more}}


async def streamed(url: str, token: str, body: dict[str, Any]) -> list[Frame]:
    """All events of a streamed execute."""
    headers = bearer(token) | {"Accept": "text/event-stream"}
    async with (
        httpx2.AsyncClient(base_url=url, timeout=10) as http,
        http.stream("POST", "/v1/sessions/execute", json=body, headers=headers) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        return [frame async for frame in frames(response)]


# Following a session


async def test_a_follower_gets_what_was_and_what_comes(api: Api, house: House, url: str) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    await api.run(house["owner"], "noop", session_id=session_id)
    async with follow(url, session_id, house["owner"]) as stream:
        past = await take(stream, 3)
        await api.run(house["owner"], "raises", session_id=session_id)
        live = await take(stream, 2)
    assert [(frame.id, frame.event) for frame in [*past, *live]] == [
        (1, "opened"),
        (2, "started"),
        (3, "succeeded"),
        (4, "started"),
        (5, "failed"),
    ]


async def test_a_streamed_fact_is_the_fact_of_the_journal(api: Api, house: House, url: str) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    await api.run(house["owner"], "noop", session_id=session_id)
    async with follow(url, session_id, house["owner"]) as stream:
        facts = [frame.data for frame in await take(stream, 3)]
    payload = {"session_id": session_id, "events": {"view": "journal"}}
    got = await api.ask("/v1/sessions/get", payload, token=house["owner"])
    assert facts == got["events"]["items"]


@pytest.mark.parametrize("cut", range(8))
async def test_resuming_anywhere_loses_and_doubles_nothing(
    api: Api, house: House, url: str, cut: int
) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    for _ in range(3):
        await api.run(house["owner"], "noop", session_id=session_id)
    async with follow(url, session_id, house["owner"]) as stream:
        seen = [frame.id for frame in await take(stream, cut)]
    await api.run(house["owner"], "noop", session_id=session_id)
    last = {"Last-Event-ID": str(seen[-1])} if seen else {}
    async with follow(url, session_id, house["owner"], **last) as stream:
        seen += [frame.id for frame in await take(stream, 9 - cut)]
    assert seen == list(range(1, 10))


async def test_a_place_to_resume_may_be_in_the_address(api: Api, house: House, url: str) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    await api.run(house["owner"], "noop", session_id=session_id)
    async with follow(url, session_id, house["owner"], "?after=2") as stream:
        assert (await anext(stream)).id == 3


async def test_the_header_goes_before_the_address(api: Api, house: House, url: str) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    await api.run(house["owner"], "noop", session_id=session_id)
    last = {"Last-Event-ID": "2"}
    async with follow(url, session_id, house["owner"], "?after=0", **last) as stream:
        assert (await anext(stream)).id == 3


async def test_progress_is_streamed_without_an_id_and_never_kept(api: Api, house: House, url: str) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    async with follow(url, session_id, house["owner"], "?after=1") as stream:
        # The stream has caught up when it tells of the first run.
        await api.run(house["owner"], "noop", session_id=session_id)
        await take(stream, 2)
        await api.run(house["owner"], "progress", {"steps": 3}, session_id=session_id)
        told: list[Frame] = []
        while not told or told[-1].event != "succeeded":
            told.append(await anext(stream))
    deltas = [frame for frame in told if frame.event == "delta"]
    assert [(frame.id, frame.data["data"]) for frame in deltas] == [(None, {"step": n}) for n in range(3)]
    assert [kind for *_, kind, _ in await api.facts() if kind == "delta"] == []


async def test_progress_that_is_not_json_breaks_no_stream(api: Api, house: House, url: str) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    async with follow(url, session_id, house["owner"], "?after=1") as stream:
        await api.run(house["owner"], "tells_objects", session_id=session_id)
        told: list[Frame] = []
        while not told or told[-1].event != "succeeded":
            told.append(await anext(stream))
    [delta] = [frame for frame in told if frame.event == "delta"]
    assert delta.data["data"] == {"object": None, "big": 2**70}


async def test_fifty_followers_see_the_same(api: Api, house: House, url: str) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(follow(url, session_id, house["owner"])) for _ in range(50)
        ]
        for _ in range(5):
            await api.run(house["owner"], "noop", session_id=session_id)
        seen = [[frame.id for frame in await take(stream, 11)] for stream in streams]
    assert seen == [list(range(1, 12))] * 50


@pytest.mark.parametrize("how", ["revoke", "deactivate"])
async def test_an_open_stream_tells_nothing_after_the_permission_is_gone(
    api: Api, house: House, url: str, how: str
) -> None:
    session_id = await api.session(house["owner"], house.casefile_id, visibility="casefile")
    viewer = {"user_id": house.users["viewer"]}
    async with follow(url, session_id, house["viewer"]) as stream:
        await anext(stream)
        if how == "revoke":
            gone = viewer | {"casefile_id": house.casefile_id}
            await api.ask("/v1/permissions/revoke", gone, token=house["owner"])
        else:
            await api.ask("/v1/accounts/deactivate", viewer, token=house["operator"])
        await api.run(house["owner"], "noop", session_id=session_id)
        rest = [frame.event async for frame in stream]
    assert rest == ["end"]


# Streaming an operation


async def test_a_streamed_operation_tells_its_facts_and_then_its_answer(
    api: Api, house: House, url: str
) -> None:
    told = await streamed(url, house["owner"], execute(house, "progress", {"steps": 2}, request_id="r1"))
    assert [frame.event for frame in told if frame.event != "delta"] == [
        "started",
        "succeeded",
        "finished",
        "end",
    ]
    assert [frame.data["data"]["step"] for frame in told if frame.event == "delta"] == [0, 1]
    assert told[-2].data == IsPartialDict(
        request_id="r1", status="completed", payload=IsPartialDict(success=True, outputs=2)
    )


async def test_a_streamed_operation_tells_of_its_children_and_of_nobody_elses(
    api: Api, house: House, url: str
) -> None:
    session_id = (
        await api.run(house["owner"], "waits", casefile_id=house.casefile_id, mode="background")
    ).json()["payload"]["session_id"]
    told = await streamed(
        url, house["owner"], execute(house, "nested", {"name": "noop"}, session_id=session_id)
    )
    names = [frame.data["operation_name"] for frame in told if frame.id]
    assert names == ["nested", "noop", "noop", "nested"]


async def test_a_streamed_operation_that_fails_finishes_too(api: Api, house: House, url: str) -> None:
    told = await streamed(url, house["owner"], execute(house, "raises"))
    assert told[-2].data == IsPartialDict(status="failed", error=IsPartialDict(type="operation_raised"))


async def test_a_refusal_before_the_start_is_a_problem_and_no_stream(
    api: Api, house: House, url: str
) -> None:
    headers = bearer(house["viewer"]) | {"Accept": "text/event-stream"}
    async with httpx2.AsyncClient(base_url=url) as http:
        response = await http.post("/v1/sessions/execute", json=execute(house, "touch"), headers=headers)
    assert_problem(response, 403, "role_too_low")


async def test_a_streamed_repeat_is_answered_by_the_first_run(api: Api, house: House, url: str) -> None:
    first, again = [
        await streamed(url, house["owner"], execute(house, "noop", request_id="r1")) for _ in range(2)
    ]
    assert [frame.event for frame in again] == ["finished", "end"]
    assert again[0].data["payload"]["event_id"] == first[-2].data["payload"]["event_id"]


# The former API


@pytest.mark.parametrize(
    ("path", "successor"),
    [
        ("/v1/tool-sessions/", "/v1/sessions/create"),
        ("/v1/tool-sessions/execute", "/v1/sessions/execute"),
        ("/v1/chat", "/v1/sessions/execute"),
        ("/v1/chat/any/thing", "/v1/sessions/execute"),
    ],
)
async def test_a_route_of_the_former_api_names_its_successor(api: Api, path: str, successor: str) -> None:
    response = await api.post(path, {})
    problem = assert_problem(response, 410, "route_gone")
    assert (problem["successor"], problem["documentation"]) == (successor, "docs/migration.md")
    assert response.headers["Link"] == f'<{successor}>; rel="successor-version"'
