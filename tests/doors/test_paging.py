"""Pages: whatever limits are asked for in turn, they lose nothing and repeat nothing."""

import asyncio
import base64
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.doors.problems import assert_problem
from tests.support import Api, House, SteppableClock, open_test_server

# One server serves all examples of a test: they only read.
READS = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LIMITS = st.lists(st.integers(1, 30), min_size=1, max_size=4)


class Shelf:
    """A casefile with enough of everything to be paged, made while time stood still now and then."""

    def __init__(self, api: Api, house: House, session_id: str) -> None:
        self.api = api
        self.house = house
        self.session_id = session_id

    async def pages(self, path: str, payload: dict[str, Any], limits: list[int]) -> list[Any]:
        """All items, page by page, with these limits in turn."""
        items: list[Any] = []
        inner = payload.get("events", payload)
        while True:
            for limit in limits:
                inner["limit"] = limit
                answer = await self.api.ask(path, payload, token=self.house["owner"])
                page = answer.get("events", answer)
                items += page["items"]
                assert (len(page["items"]) <= limit, page["has_more"]) == (
                    True,
                    page["next_cursor"] is not None,
                )
                if not page["has_more"]:
                    return items
                inner["cursor"] = page["next_cursor"]


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncGenerator[Shelf]:
    """Twenty-three of each kind of thing."""
    clock = SteppableClock()
    async with open_test_server(tmp_path / "data", clock=clock) as server, Api.of(server) as api:
        house = await api.house()
        session_id = await api.session(house["owner"], house.casefile_id, visibility="casefile")
        for number in range(22):
            clock.step(microseconds=number % 3 == 0)
            await api.casefile(house["owner"], f"{number}")
            await api.session(house["owner"], house.casefile_id, title=f"{number}")
            await api.run(house["owner"], "note_add", {"text": f"{number}"}, session_id=session_id)
            user_id = await api.account(f"u{number}@example.com")
            await api.grant(house["owner"], house.casefile_id, user_id, "viewer")
        yield Shelf(api, house, session_id)


ID_OF = {
    "/v1/casefiles/list": "casefile_id",
    "/v1/permissions/list": "user_id",
    "/v1/sessions/list": "session_id",
    "/v1/documents/list": "document_id",
    "/v1/accounts/list": "user_id",
}


@pytest.mark.parametrize("path", ID_OF)
async def test_pages_of_a_list_lose_and_repeat_nothing(shelf: Shelf, path: str) -> None:
    is_inside = "documents" in path or "permissions" in path
    payload = {"casefile_id": shelf.house.casefile_id} if is_inside else {}
    if "accounts" in path:
        shelf.house.tokens["owner"] = shelf.house["operator"]
    whole = await shelf.pages(path, dict(payload), [200])
    loop = asyncio.get_running_loop()

    @READS
    @given(LIMITS)
    def law(limits: list[int]) -> None:
        paged = asyncio.run_coroutine_threadsafe(shelf.pages(path, dict(payload), limits), loop).result(60)
        assert [item[ID_OF[path]] for item in paged] == [item[ID_OF[path]] for item in whole]

    await asyncio.to_thread(law)
    assert len(whole) >= 22


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("view", ["operations", "journal"])
@pytest.mark.parametrize("where", ["one session", "all sessions"])
async def test_pages_of_events_lose_and_repeat_nothing(
    shelf: Shelf, order: str, view: str, where: str
) -> None:
    wanted = {"order": order, "view": view}
    path, payload = "/v1/events/query", dict[str, Any](wanted)
    if where == "one session":
        path, payload = "/v1/sessions/get", {"session_id": shelf.session_id, "events": wanted}
    loop = asyncio.get_running_loop()
    whole = await shelf.pages(path, _copy(payload), [200])

    @READS
    @given(LIMITS)
    def law(limits: list[int]) -> None:
        paged = asyncio.run_coroutine_threadsafe(shelf.pages(path, _copy(payload), limits), loop).result(60)
        assert [_place(event) for event in paged] == [_place(event) for event in whole]

    await asyncio.to_thread(law)
    assert len(whole) >= 22


async def test_both_orders_hold_the_same_events(shelf: Shelf) -> None:
    orders = [
        await shelf.pages("/v1/events/query", {"order": order, "view": "journal"}, [7])
        for order in ("asc", "desc")
    ]
    assert [_place(event) for event in orders[0]] == [_place(event) for event in reversed(orders[1])]


async def test_what_is_added_behind_a_cursor_is_not_lost_from_the_pages_to_come(shelf: Shelf) -> None:
    events = {"order": "asc", "view": "journal", "limit": 10}
    payload: dict[str, Any] = {"session_id": shelf.session_id, "events": events}
    first = (await shelf.api.ask("/v1/sessions/get", payload, token=shelf.house["owner"]))["events"]
    await shelf.api.run(shelf.house["owner"], "noop", session_id=shelf.session_id)
    events["cursor"] = first["next_cursor"]
    rest = await shelf.pages("/v1/sessions/get", payload, [10])
    seqs = [event["seq"] for event in [*first["items"], *rest]]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_a_cursor_with_any_bit_flipped_is_refused(shelf: Shelf) -> None:
    page = await shelf.api.ask("/v1/casefiles/list", {"limit": 5}, token=shelf.house["owner"])
    sealed = base64.urlsafe_b64decode(page["next_cursor"] + "==")
    for bit in range(0, len(sealed) * 8, 5):
        forged = bytearray(sealed)
        forged[bit // 8] ^= 1 << bit % 8
        cursor = base64.urlsafe_b64encode(forged).rstrip(b"=").decode()
        response = await shelf.api.post("/v1/casefiles/list", {"cursor": cursor}, token=shelf.house["owner"])
        assert_problem(response, 422, "cursor_invalid", field="cursor")


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("/v1/sessions/list", {}),
        ("/v1/casefiles/list", {"status": "active"}),
        ("/v1/events/query", {}),
    ],
)
async def test_the_cursor_of_another_query_is_refused(
    shelf: Shelf, path: str, payload: dict[str, Any]
) -> None:
    page = await shelf.api.ask("/v1/casefiles/list", {"limit": 5}, token=shelf.house["owner"])
    sent = payload | {"cursor": page["next_cursor"]}
    response = await shelf.api.post(path, sent, token=shelf.house["owner"])
    assert_problem(response, 422, "cursor_invalid", field="cursor")


async def test_the_cursor_of_another_user_is_refused(shelf: Shelf) -> None:
    page = await shelf.api.ask("/v1/casefiles/list", {"limit": 5}, token=shelf.house["owner"])
    sent = {"cursor": page["next_cursor"]}
    response = await shelf.api.post("/v1/casefiles/list", sent, token=shelf.house["admin"])
    assert_problem(response, 422, "cursor_invalid", field="cursor")


async def test_the_cursor_of_the_other_order_is_refused(shelf: Shelf) -> None:
    page = await shelf.api.ask("/v1/events/query", {"limit": 5, "order": "asc"}, token=shelf.house["owner"])
    sent = {"cursor": page["next_cursor"], "order": "desc"}
    response = await shelf.api.post("/v1/events/query", sent, token=shelf.house["owner"])
    assert_problem(response, 422, "cursor_invalid", field="cursor")


async def test_a_cursor_survives_a_restart(tmp_path: Path) -> None:
    async with open_test_server(tmp_path / "data") as server, Api.of(server) as api:
        user_id, token = await api.user("anna")
        made = [await api.casefile(token, f"{number}") for number in range(5)]
        page = await api.ask("/v1/casefiles/list", {"limit": 2}, token=token)
    async with open_test_server(tmp_path / "data") as server, Api.of(server) as api:
        sent = {"cursor": page["next_cursor"]}
        rest = await api.ask("/v1/casefiles/list", sent, token=await api.token(user_id))
    seen = [casefile["casefile_id"] for casefile in [*page["items"], *rest["items"]]]
    assert sorted(seen) == sorted(made)


def _copy(payload: dict[str, Any]) -> dict[str, Any]:
    return {key: dict(value) if isinstance(value, dict) else value for key, value in payload.items()}  # pyright: ignore[reportUnknownArgumentType] - JSON


def _place(event: dict[str, Any]) -> tuple[str, int]:
    return event["session_id"], event["seq"]
