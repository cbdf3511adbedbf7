"""Sessions as callers see them: auto-managed, closed for good, isolated, paged."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from dirty_equals import IsDatetime, IsFloat, IsInt, IsPartialDict, IsStr
from inline_snapshot import snapshot

from tests.doors.problems import assert_problem
from tests.support import Api, House, SteppableClock, Workshop, open_test_server

# Auto-managed


async def test_the_first_execute_makes_a_session_and_the_next_uses_it(api: Api, house: House) -> None:
    runs = [
        (await api.run(house["owner"], "noop", casefile_id=house.casefile_id)).json()["payload"]
        for _ in range(3)
    ]
    assert [run["session_created"] for run in runs] == [True, False, False]
    assert len({run["session_id"] for run in runs}) == 1


async def test_twenty_concurrent_first_calls_make_one_session(api: Api, house: House) -> None:
    answers = await asyncio.gather(
        *(api.run(house["owner"], "noop", casefile_id=house.casefile_id) for _ in range(20))
    )
    payloads = [answer.json()["payload"] for answer in answers]
    assert len({payload["session_id"] for payload in payloads}) == 1
    assert sum(payload["session_created"] for payload in payloads) == 1


async def test_an_auto_session_is_private_interactive_and_marked(api: Api, house: House) -> None:
    await api.run(house["owner"], "noop", casefile_id=house.casefile_id)
    [session] = (await api.ask("/v1/sessions/list", {}, token=house["owner"]))["items"]
    assert session == IsPartialDict(auto=True, visibility="private", session_type="interactive")


async def test_a_session_that_was_made_on_purpose_is_never_picked_silently(api: Api, house: House) -> None:
    made = await api.session(house["owner"], house.casefile_id)
    ran = await api.run(house["owner"], "noop", casefile_id=house.casefile_id)
    assert (ran.json()["payload"]["session_created"], ran.json()["payload"]["session_id"] != made) == (
        True,
        True,
    )


async def test_each_user_has_an_auto_session_of_their_own(api: Api, house: House) -> None:
    sessions = [
        (await api.run(house[who], "noop", casefile_id=house.casefile_id)).json()["payload"]["session_id"]
        for who in ("owner", "editor", "viewer")
    ]
    assert len(set(sessions)) == 3


async def test_a_closed_auto_session_is_followed_by_a_new_one(api: Api, house: House) -> None:
    first = (await api.run(house["owner"], "noop", casefile_id=house.casefile_id)).json()["payload"]
    await api.ask("/v1/sessions/close", {"session_id": first["session_id"]}, token=house["owner"])
    second = (await api.run(house["owner"], "noop", casefile_id=house.casefile_id)).json()["payload"]
    assert (second["session_created"], second["session_id"] == first["session_id"]) == (True, False)


@pytest.mark.parametrize(("idle", "created"), [(timedelta(hours=11.9), False), (timedelta(hours=12.1), True)])
async def test_an_auto_session_idle_for_twelve_hours_is_left_alone(
    tmp_path: Path, idle: timedelta, created: bool
) -> None:
    clock = SteppableClock()
    async with open_test_server(tmp_path / "data", clock=clock) as server, Api.of(server) as api:
        house = await api.house()
        await api.run(house["owner"], "casefile_summary", casefile_id=house.casefile_id)
        clock.now += idle
        token = await api.token(house.users["owner"])
        ran = await api.run(token, "casefile_summary", casefile_id=house.casefile_id)
        assert ran.json()["payload"]["session_created"] is created


async def test_a_session_of_another_casefile_is_not_found_there(api: Api, house: House) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    other = await api.casefile(house["owner"])
    ran = await api.run(house["owner"], "noop", casefile_id=other, session_id=session_id)
    assert_problem(ran, 404, "session_not_found")


# Closing


async def test_closing_answers_with_statistics(api: Api, house: House) -> None:
    session_id = await api.session(house["viewer"], house.casefile_id)
    for name in ("noop", "noop", "raises", "touch"):
        await api.run(house["viewer"], name, session_id=session_id)
    closed = await api.ask("/v1/sessions/close", {"session_id": session_id}, token=house["viewer"])
    assert closed == snapshot(
        {
            "session_id": IsStr(regex=r"ts_.*"),
            "closed_at": IsDatetime(iso_string=True),
            "statistics": {
                "event_count": 9,
                "operations": {"total": 4, "succeeded": 2, "failed": 1, "denied": 1},
                "by_type": {"tool": 4},
                "by_name": {"noop": 2, "raises": 1, "touch": 1},
                "duration_s": IsFloat(ge=0),
                "busy_ms": IsInt(ge=0),
                "tokens": 0,
                "cost": "0.000000",
            },
        }
    )


async def test_a_closed_session_executes_nothing(api: Api, house: House, workshop: Workshop) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    await api.ask("/v1/sessions/close", {"session_id": session_id}, token=house["owner"])
    facts = await api.facts()
    assert_problem(await api.run(house["owner"], "noop", session_id=session_id), 409, "session_closed")
    assert (workshop.runs["noop"], await api.facts()) == (0, facts)


async def test_closing_again_gives_the_same_answer(api: Api, house: House) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    await api.run(house["owner"], "noop", session_id=session_id)
    answers = [
        await api.ask("/v1/sessions/close", {"session_id": session_id}, token=house[who])
        for who in ("owner", "owner", "admin")
    ]
    assert answers == [answers[0]] * 3


async def test_ten_concurrent_closings_leave_one_fact_and_give_one_answer(api: Api, house: House) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    close = {"session_id": session_id}
    answers = await asyncio.gather(
        *(api.ask("/v1/sessions/close", close, token=house["owner"]) for _ in range(10))
    )
    assert answers == [answers[0]] * 10
    assert [kind for id_, kind, _ in await api.facts() if id_ == session_id] == ["opened", "closed"]


async def test_a_busy_session_is_not_closed_and_says_what_runs(
    api: Api, house: House, workshop: Workshop
) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    ran = await api.run(house["owner"], "waits", session_id=session_id, mode="background")
    close = {"session_id": session_id}
    problem = assert_problem(
        await api.post("/v1/sessions/close", close, token=house["owner"]), 409, "session_busy"
    )
    workshop.release.set()
    assert problem["open_operations"] == [ran.json()["payload"]["event_id"]]


async def test_closing_with_cancel_ends_what_runs_first(api: Api, house: House, workshop: Workshop) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    for _ in range(3):
        await api.run(house["owner"], "waits", session_id=session_id, mode="background")
    close = {"session_id": session_id, "cancel": True, "reason": "enough"}
    closed = await api.ask("/v1/sessions/close", close, token=house["owner"])
    kinds = [kind for id_, kind, _ in await api.facts() if id_ == session_id]
    assert kinds == ["opened", *["started"] * 3, *["cancelled"] * 3, "closed"]
    assert closed["statistics"]["operations"] == {"total": 3, "succeeded": 0, "failed": 3, "denied": 0}


async def test_the_record_session_is_neither_closed_nor_worked_in(api: Api, house: House) -> None:
    casefile = await api.ask("/v1/casefiles/get", {"casefile_id": house.casefile_id}, token=house["owner"])
    record = {"session_id": casefile["record_session_id"]}
    close = await api.post("/v1/sessions/close", record, token=house["owner"])
    assert_problem(close, 409, "session_reserved")
    assert_problem(await api.run(house["owner"], "noop", **record), 409, "session_reserved")


# Isolation


async def test_lists_show_what_the_caller_may_see(api: Api, house: House) -> None:
    made = {
        f"{who} {visibility}": await api.session(
            house[who], house.casefile_id, visibility=visibility, title=f"{who} {visibility}"
        )
        for who in ("owner", "editor", "viewer")
        for visibility in ("private", "casefile")
    }
    shared = {name for name in made if name.endswith("casefile")}
    seen: dict[str, set[str]] = {}
    for who in ("owner", "admin", "editor", "viewer", "stranger", "operator"):
        page = await api.ask("/v1/sessions/list", {}, token=house[who])
        seen[who] = {session["title"] for session in page["items"]}
    assert seen == {
        "owner": set(made),
        "admin": set(made),
        "editor": shared | {"editor private"},
        "viewer": shared | {"viewer private"},
        "stranger": set(),
        "operator": set(),
    }


async def test_events_are_found_by_whom_the_session_is_seen(api: Api, house: House) -> None:
    private = await api.session(house["editor"], house.casefile_id)
    shared = await api.session(house["editor"], house.casefile_id, visibility="casefile")
    for session_id in (private, shared):
        await api.run(house["editor"], "echo", {"value": "needle"}, session_id=session_id)
    seen: dict[str, set[str]] = {}
    for who in ("owner", "admin", "editor", "viewer", "stranger"):
        page = await api.ask("/v1/events/query", {"text": "needle"}, token=house[who])
        seen[who] = {event["session_id"] for event in page["items"]}
    both = {private, shared}
    assert seen == {"owner": both, "admin": both, "editor": both, "viewer": {shared}, "stranger": set()}


async def test_an_editor_works_in_a_shared_session_under_their_own_name(api: Api, house: House) -> None:
    shared = await api.session(house["owner"], house.casefile_id, visibility="casefile")
    await api.run(house["editor"], "touch", session_id=shared)
    got = await api.ask("/v1/sessions/get", {"session_id": shared}, token=house["viewer"])
    assert [event["actor_user_id"] for event in got["events"]["items"]] == [house.users["editor"]]


async def test_a_former_member_cannot_read_their_own_session(api: Api, house: House) -> None:
    session_id = await api.session(house["editor"], house.casefile_id)
    gone = {"casefile_id": house.casefile_id, "user_id": house.users["editor"]}
    await api.ask("/v1/permissions/revoke", gone, token=house["owner"])
    got = await api.post("/v1/sessions/get", {"session_id": session_id}, token=house["editor"])
    assert_problem(got, 404, "session_not_found")


async def test_a_viewers_denial_in_their_own_session_is_told_there(api: Api, house: House) -> None:
    session_id = await api.session(house["viewer"], house.casefile_id)
    assert_problem(await api.run(house["viewer"], "touch", session_id=session_id), 403, "role_too_low")
    got = await api.ask("/v1/sessions/get", {"session_id": session_id}, token=house["viewer"])
    assert got["events"]["items"] == [
        IsPartialDict(
            kind="denied",
            operation_name="touch",
            error_type="role_too_low",
            actor_user_id=house.users["viewer"],
            error=IsPartialDict(message=IsStr(regex=".*editor.*")),
        )
    ]


async def test_a_denied_nested_call_is_told_as_a_child_of_its_parent(api: Api, house: House) -> None:
    ran = await api.run(house["viewer"], "nested", {"name": "touch"}, casefile_id=house.casefile_id)
    parent = ran.json()["payload"]
    children = await api.ask(
        "/v1/events/query", {"parent_event_id": parent["event_id"]}, token=house["viewer"]
    )
    assert [(child["kind"], child["error_type"]) for child in children["items"]] == [
        ("denied", "role_too_low")
    ]
    assert parent["error"] == IsPartialDict(type="role_too_low")
