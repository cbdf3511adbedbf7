"""Agents over HTTP: a casefile with mail, models that are stood in for, and what the record says afterwards."""

import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic_ai import models

from tests.fakes.aimock import aimock as aimock
from tests.support import Api, House, open_test_server

# aimock leaves out Gemini's token counts, and ends its tool calls in a way that Google's library remarks upon.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic_ai.exceptions.UsageLimitUnavailableWarning"),
    pytest.mark.filterwarnings("ignore:.*FUNCTION_CALL.*"),
]

SAMPLE = Path(__file__).parents[2] / "src/casekeeper/reading/sample.mbox"
GEMINI, CHAT, RESPONSES, OFFLINE = "gemini-2.0-flash-exp", "gpt-4o-mini", "gpt-5.6-luna", "offline-researcher"


@dataclass
class Room:
    """A casefile with the sample mailbox, and people in all roles."""

    api: Api
    house: House

    async def ask(self, agent: str, prompt: str, *, who: str = "editor", **headers: str) -> httpx2.Response:
        """Let an agent answer in the auto session of this person."""
        operation = {"operation_type": "agent", "agent_name": agent, "prompt": prompt}
        payload = {"casefile_id": self.house.casefile_id, "operation": operation}
        return await self.api.post("/v1/sessions/execute", payload, token=self.house[who], headers=headers)

    async def answer(self, agent: str, prompt: str, *, who: str = "editor") -> Any:
        """The payload of an answer that must be there, whether the agent succeeded or not."""
        response = await self.ask(agent, prompt, who=who)
        assert response.status_code == 200, response.text
        return response.json()["payload"]

    async def children(self, event_id: str) -> list[Any]:
        """How the operations inside an operation ended."""
        query = {"casefile_id": self.house.casefile_id, "parent_event_id": event_id}
        found = await self.api.ask("/v1/events/query", query, token=self.house["editor"])
        return found["items"]


async def fill(api: Api, house: House) -> None:
    """File the sample mailbox."""
    url = f"/v1/documents/upload?casefile_id={house.casefile_id}&filename=sample.mbox"
    headers = {"Authorization": f"Bearer {house['editor']}"}
    uploaded = await api.http.post(url, content=SAMPLE.read_bytes(), headers=headers)
    upload_id = uploaded.json()["payload"]["upload_id"]
    done = await api.run(
        house["editor"], "document_import", {"upload_id": upload_id}, casefile_id=house.casefile_id
    )
    assert done.json()["status"] == "completed", done.text


@pytest.fixture
def requests_to_models() -> Iterator[None]:
    """Let models be asked: they are all on this machine."""
    with models.override_allow_model_requests(True):
        yield


@pytest.fixture
async def room(tmp_path: Path, aimock: str, requests_to_models: None) -> AsyncGenerator[Room]:
    """A room whose models are all aimock."""
    settings: dict[str, Any] = {
        "google_api_key": "google-secret",
        "google_base_url": aimock,
        "google_api_version": "v1beta",
        "openai_api_key": "openai-secret",
        "openai_base_url": f"{aimock}/v1",
    }
    async with open_test_server(tmp_path / "data", **settings) as server, Api.of(server) as api:
        house = await api.house()
        await fill(api, house)
        yield Room(api, house)


@pytest.mark.parametrize("agent", [GEMINI, CHAT, RESPONSES])
async def test_an_agent_searches_in_the_casefile_and_answers(room: Room, agent: str) -> None:
    answer = await room.answer(agent, "find invoices")
    assert answer["success"] is True
    assert answer["outputs"]["response"] == "There is one invoice."
    assert answer["outputs"]["model"] == agent
    (called,) = answer["outputs"]["tool_events"]
    assert (called["tool_name"], called["outcome"]) == ("mail_search", "succeeded")
    facts = await room.children(answer["event_id"])
    assert [(f["kind"], f["request_id"]) for f in facts] == [("succeeded", called["call_id"])]


async def test_an_invented_tool_is_on_the_record(room: Room) -> None:
    answer = await room.answer(GEMINI, "use a tool that does not exist")
    assert answer["success"] is True
    (fact,) = await room.children(answer["event_id"])
    assert (fact["kind"], fact["operation_name"], fact["error_type"]) == (
        "denied",
        "shred_everything",
        "tool_unknown",
    )
    assert fact["inputs"] == {"really": True}


@pytest.mark.parametrize("agent", [GEMINI, CHAT, RESPONSES])
@pytest.mark.parametrize(
    ("prompt", "status", "retryable"), [("be broken", 500, True), ("be unknown", 404, False)]
)
async def test_a_provider_that_fails_is_a_failed_operation(
    room: Room, agent: str, prompt: str, status: int, retryable: bool
) -> None:
    response = await room.ask(agent, prompt)
    assert (response.status_code, response.json()["status"]) == (200, "failed")
    error = response.json()["payload"]["error"]
    assert error == {
        "type": "model_failed",
        "message": f"The provider of {agent} answered with status {status}.",
        "retryable": retryable,
    }


@pytest.mark.parametrize("agent", [GEMINI, CHAT, RESPONSES])
async def test_an_answer_streams(room: Room, agent: str) -> None:
    response = await room.ask(agent, "say hello", accept="text/event-stream")
    frames = events_of(response.text)
    pieces = [data["data"]["delta"] for name, data in frames if name == "delta"]
    assert len(pieces) > 1
    assert "".join(pieces) == "Hello from the fake model, in more than one piece."
    assert [name for name, _ in frames if name != "delta"] == ["started", "succeeded", "finished", "end"]


async def test_a_conversation_goes_on_across_agents_and_its_snapshot_is_on_the_record(room: Room) -> None:
    first = await room.answer(OFFLINE, "Find my tax documents from 2024")
    second = await room.answer(CHAT, "find invoices")
    third = await room.answer(GEMINI, "say hello")
    assert first["session_id"] == second["session_id"] == third["session_id"]
    assert third["outputs"]["response"].startswith("Hello")
    view = {"session_id": first["session_id"], "events": {"view": "operations", "operation_type": "agent"}}
    session = await room.api.ask("/v1/sessions/get", view, token=room.house["editor"])
    names = [event["conversation"] for event in session["events"]["items"]]
    assert len(set(names)) == 3
    stored = [await room.api.server.storage.blobs.get(room.house.casefile_id, name) for name in names]
    assert all(stored)


async def test_a_viewer_may_run_any_agent_but_its_tools_only_read(room: Room) -> None:
    answer = await room.answer(OFFLINE, "Find my tax documents from 2024", who="viewer")
    assert answer["success"] is True
    assert answer["outputs"]["response"].startswith("Found ")
    assert {event["outcome"] for event in answer["outputs"]["tool_events"]} == {"succeeded"}


async def test_without_a_key_a_model_is_unavailable_and_the_setting_is_named(tmp_path: Path) -> None:
    async with open_test_server(tmp_path / "data") as server, Api.of(server) as api:
        room = Room(api, await api.house())
        response = await room.ask(GEMINI, "hello")
        problem = response.json()
        assert (response.status_code, problem["code"], problem["retryable"]) == (
            503,
            "model_unavailable",
            False,
        )
        assert "CASEKEEPER_GOOGLE_API_KEY" in problem["detail"]
        nothing = await room.answer(OFFLINE, "hello")
        assert nothing["outputs"]["response"].startswith("Nothing was found")


def events_of(text: str) -> list[tuple[str, Any]]:
    """Name and data of the frames of a stream that ended."""
    frames = (
        dict(line.split(": ", 1) for line in frame.splitlines() if ": " in line)
        for frame in text.split("\n\n")
    )
    return [(frame["event"], json.loads(frame["data"])) for frame in frames if "event" in frame]
