"""The record as callers read it: filters, views, batches by id."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsDatetime, IsInt, IsPartialDict, IsStr
from inline_snapshot import snapshot

from tests.doors.problems import assert_problem
from tests.support import NOON, Api, House, SteppableClock, open_test_server

QUERY = "/v1/events/query"


class Desk:
    """A casefile in which an hour passed between each of several operations."""

    def __init__(self, api: Api, house: House, session_id: str, runs: dict[str, Any]) -> None:
        self.api = api
        self.house = house
        self.session_id = session_id
        self.runs = runs

    async def names(self, **wanted: Any) -> list[str]:
        """The names of the runs among the events that were found, oldest first."""
        sent = {"order": "asc", "casefile_id": self.house.casefile_id, **wanted}
        page = await self.api.ask(QUERY, sent, token=self.house["owner"])
        by_id = {run["event_id"]: name for name, run in self.runs.items()}
        return [by_id[event["event_id"]] for event in page["items"] if event["event_id"] in by_id]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncGenerator[Desk]:
    """Four operations: two of an editor's, one failed, one that nests."""
    clock = SteppableClock()
    async with open_test_server(tmp_path / "data", clock=clock) as server, Api.of(server) as api:
        house = await api.house()
        session_id = await api.session(house["editor"], house.casefile_id, visibility="casefile")
        plan: dict[str, tuple[str, str, dict[str, Any]]] = {
            "rent": ("editor", "echo", {"value": 'The Rent is "late" 100%'}),
            "touch": ("editor", "touch", {}),
            "failed": ("owner", "raises", {"message": "no rain"}),
            "parent": ("owner", "nested", {"name": "noop"}),
        }
        runs: dict[str, Any] = {}
        for name, (who, tool, parameters) in plan.items():
            clock.step(hours=1)
            token = await api.token(house.users[who])
            ran = await api.run(token, tool, parameters, session_id=session_id, request_id=f"req-{name}")
            runs[name] = ran.json()["payload"]
        house.tokens = {who: await api.token(user_id) for who, user_id in house.users.items()}
        yield Desk(api, house, session_id, runs)


ALL = ["rent", "touch", "failed", "parent"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ALL),
        ({"operation_type": "tool"}, ALL),
        ({"operation_type": "agent"}, []),
        ({"operation_name": "echo"}, ["rent"]),
        ({"operation_name": "ech"}, []),
        ({"kinds": ["failed"]}, ["failed"]),
        ({"kinds": ["failed", "denied"]}, ["failed"]),
        ({"kinds": ["succeeded"]}, ["rent", "touch", "parent"]),
        ({"kinds": ["started"], "view": "journal"}, ALL),
        ({"actor": "editor@example.com"}, ["rent", "touch"]),
        ({"actor": "EDITOR@example.com"}, ["rent", "touch"]),
        ({"actor": "stranger@example.com"}, []),
        ({"request_id": "req-failed"}, ["failed"]),
        ({"after": f"{NOON.replace(hour=14):%Y-%m-%dT%H:%M:%SZ}"}, ["touch", "failed", "parent"]),
        ({"before": f"{NOON.replace(hour=14):%Y-%m-%dT%H:%M:%SZ}"}, ["rent"]),
        ({"after": "2026-03-01T14:00:00+01:00", "before": "2026-03-01T15:00:01+01:00"}, ["rent", "touch"]),
        ({"text": "rent"}, ["rent"]),
        ({"text": "RAIN"}, ["failed"]),
        ({"text": "100%"}, ["rent"]),
        ({"text": "%"}, ["rent"]),
        ({"text": "_"}, ["touch"]),
        ({"actor": "owner@example.com", "kinds": ["succeeded"]}, ["parent"]),
    ],
    ids=str,
)
async def test_a_filter_finds_what_it_says(desk: Desk, wanted: dict[str, Any], found: list[str]) -> None:
    assert await desk.names(**wanted) == found


async def test_a_session_is_filtered_like_the_casefile(desk: Desk) -> None:
    payload = {"session_id": desk.session_id, "events": {"kinds": ["failed"]}}
    got = await desk.api.ask("/v1/sessions/get", payload, token=desk.house["owner"])
    assert [event["event_id"] for event in got["events"]["items"]] == [desk.runs["failed"]["event_id"]]


async def test_children_are_found_by_their_parent(desk: Desk) -> None:
    sent = {"parent_event_id": desk.runs["parent"]["event_id"]}
    page = await desk.api.ask(QUERY, sent, token=desk.house["owner"])
    assert [event["operation_name"] for event in page["items"]] == ["noop"]


async def test_events_are_fetched_in_a_batch_by_their_ids(desk: Desk) -> None:
    ids = [desk.runs[name]["event_id"] for name in ("touch", "failed")]
    assert await desk.names(event_ids=ids) == ["touch", "failed"]


async def test_ids_that_the_caller_may_not_read_are_not_there(desk: Desk) -> None:
    ids = [run["event_id"] for run in desk.runs.values()]
    page = await desk.api.ask(QUERY, {"event_ids": ids}, token=desk.house["stranger"])
    assert page == {"items": [], "next_cursor": None, "has_more": False}


async def test_events_are_limited_to_the_sessions_that_are_named(desk: Desk) -> None:
    other = await desk.api.session(desk.house["owner"], desk.house.casefile_id)
    await desk.api.run(desk.house["owner"], "noop", session_id=other)
    page = await desk.api.ask(QUERY, {"session_ids": [other]}, token=desk.house["owner"])
    assert {event["session_id"] for event in page["items"]} == {other}


async def test_the_operations_view_tells_the_whole_story_in_one_fact(desk: Desk) -> None:
    sent = {"event_ids": [desk.runs["failed"]["event_id"]]}
    page = await desk.api.ask(QUERY, sent, token=desk.house["owner"])
    assert page["items"] == snapshot(
        [
            {
                "actor": IsStr(regex="usr_[0-9a-f]{16}"),
                "actor_user_id": "owner@example.com",
                "casefile_id": desk.house.casefile_id,
                "duration_ms": 0,
                "ended_at": IsDatetime(iso_string=True),
                "error": {"message": "ValueError: no rain", "retryable": False},
                "error_type": "operation_raised",
                "event_id": desk.runs["failed"]["event_id"],
                "hash": IsStr(regex="[0-9a-f]{64}"),
                "inputs": {"message": "no rain"},
                "inputs_commit": IsStr(regex="[0-9a-f]{64}"),
                "kind": "failed",
                "operation_name": "raises",
                "operation_type": "tool",
                "permission": IsPartialDict(role="owner", source=IsStr),
                "request_id": "req-failed",
                "seq": IsInt(gt=0),
                "session_id": desk.session_id,
                "started_at": IsDatetime(iso_string=True),
                "started_seq": IsInt(gt=0),
                "v": 1,
            }
        ]
    )


async def test_the_journal_numbers_every_fact_from_one_without_a_gap(desk: Desk) -> None:
    payload = {"session_id": desk.session_id, "events": {"view": "journal", "limit": 200}}
    got = await desk.api.ask("/v1/sessions/get", payload, token=desk.house["owner"])
    kinds = [(event["seq"], event["kind"]) for event in got["events"]["items"]]
    assert kinds == list(
        enumerate(
            [
                "opened",
                *("started", "succeeded") * 2,
                *("started", "failed"),
                *("started", "started", "succeeded", "succeeded"),
            ],
            1,
        )
    )


async def test_the_head_of_a_session_is_its_newest_fact(desk: Desk) -> None:
    payload = {"session_id": desk.session_id, "events": {"view": "journal", "order": "desc", "limit": 1}}
    got = await desk.api.ask("/v1/sessions/get", payload, token=desk.house["owner"])
    [newest] = got["events"]["items"]
    assert got["head"] == {"seq": newest["seq"], "hash": newest["hash"]}


async def test_a_session_is_read_without_its_events_when_these_are_not_wanted(desk: Desk) -> None:
    payload = {"session_id": desk.session_id, "include_events": False}
    assert (await desk.api.ask("/v1/sessions/get", payload, token=desk.house["owner"]))["events"] is None


async def test_grants_are_facts_of_the_casefiles_own_record(desk: Desk) -> None:
    sent = {"kinds": ["casefile_created", "granted"], "view": "journal", "order": "asc"}
    page = await desk.api.ask(QUERY, sent, token=desk.house["owner"])
    told = [(event["kind"], event["inputs"].get("role")) for event in page["items"]]
    assert told == [
        ("casefile_created", None),
        ("granted", "viewer"),
        ("granted", "editor"),
        ("granted", "admin"),
    ]


async def test_the_casefiles_own_record_is_for_admins(desk: Desk) -> None:
    seen: dict[str, int] = {}
    for who in ("admin", "editor", "viewer"):
        sent = {"kinds": ["granted"], "view": "journal"}
        page = await desk.api.ask(QUERY, sent, token=desk.house[who])
        seen[who] = len(page["items"])
    assert seen == {"admin": 3, "editor": 0, "viewer": 0}


async def test_events_of_a_casefile_without_access_are_not_found(desk: Desk) -> None:
    sent = {"casefile_id": desk.house.casefile_id}
    assert_problem(await desk.api.post(QUERY, sent, token=desk.house["stranger"]), 404, "casefile_not_found")
