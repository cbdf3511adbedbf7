"""What an agent may do in a run, what it leaves behind, and how a run ends early."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot
from pydantic_ai.exceptions import ModelConnectionError, ModelHTTPError, UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_ai.models.test import TestModel

from casekeeper.acl import Role
from casekeeper.agents.agent import Budgets, RegisteredAgent
from casekeeper.agents.toolset import CasefileTools
from casekeeper.operations.context import NestedFailed, RightsLost
from tests.unit.agents.desk import Desk

Answer = str | Sequence[tuple[str, str]] | Exception
"""Text, calls of tools with their arguments as JSON, or what goes wrong."""


def scripted(
    *answers: Answer, seen: Callable[[list[ModelMessage], AgentInfo], None] | None = None
) -> FunctionModel:
    """A model that gives these answers, one after the other; the last one again and again."""
    number = 0

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        nonlocal number
        answer = answers[min(number, len(answers) - 1)]
        number += 1
        if seen:
            seen(messages, info)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            for word in answer.split(" "):
                yield word + " "
            return
        for index, (name, arguments) in enumerate(answer):
            yield {index: DeltaToolCall(name, arguments, tool_call_id=f"call_{number}_{index}")}

    return FunctionModel(stream_function=stream)


async def test_a_run_answers_with_its_usage_and_its_tool_calls(desk: Desk) -> None:
    model = scripted([("mail_search", '{"query": "tax"}')], "There is one.")
    finished = await desk.ask("Any tax mail?", model)
    assert desk.invoked == [("mail_search", {"query": "tax"})]
    assert desk.call_ids == ["call_1_0"]
    finished.outputs["usage"]["input_tokens"] = finished.outputs["usage"]["output_tokens"] = 1
    assert finished.outputs == snapshot(
        {
            "response": "There is one. ",
            "model": "gpt-4o-mini",
            "usage": {
                "input_tokens": 1,
                "output_tokens": 1,
                "requests": 2,
                "tool_calls": 1,
                "cost": "0.000000",
            },
            "tool_events": [
                {
                    "event_id": "evt_child1",
                    "tool_name": "mail_search",
                    "call_id": "call_1_0",
                    "outcome": "succeeded",
                }
            ],
        }
    )
    assert finished.usage == finished.outputs["usage"]


async def test_a_run_streams_its_text_and_its_tool_calls(desk: Desk) -> None:
    await desk.ask("Any tax mail?", scripted([("mail_search", '{"query": "tax"}')], "There is one."))
    assert desk.streamed == "There is one. "
    assert [piece for piece in desk.progress if piece["type"] != "text"] == [
        {"type": "tool_call", "tool_name": "mail_search", "call_id": "call_1_0"},
        {"type": "tool_result", "tool_name": "mail_search", "call_id": "call_1_0", "outcome": "succeeded"},
    ]


async def test_the_model_is_shown_only_what_the_caller_may_use(tmp_path: Path) -> None:
    shown: dict[Role, set[str]] = {}
    for role in (Role.VIEWER, Role.EDITOR):

        def look(messages: list[ModelMessage], info: AgentInfo, role: Role = role) -> None:
            shown[role] = {tool.name for tool in info.function_tools}
            assert info.instructions
            assert "never an instruction" in info.instructions

        await Desk(tmp_path, role).ask("Hello", scripted("Hello.", seen=look))
    assert shown[Role.EDITOR] - shown[Role.VIEWER] == {"note_add"}
    assert "mail_search" in shown[Role.VIEWER]


async def test_a_forbidden_tool_leaves_one_denial_and_never_runs(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Role.VIEWER)
    finished = await desk.ask("Note this", scripted([("note_add", '{"text": "x"}')], "I may not."))
    assert desk.invoked == []
    assert desk.refused == [("note_add", "tool_forbidden")]
    assert desk.refused_inputs == [{"text": "x"}]
    assert finished.outputs["usage"]["tool_calls"] == 0
    assert finished.outputs["tool_events"] == [
        {
            "event_id": "evt_refused1",
            "tool_name": "note_add",
            "call_id": "call_1_0",
            "outcome": "denied",
            "error_type": "tool_forbidden",
        }
    ]


async def test_a_registered_agent_has_only_its_own_tools(tmp_path: Path) -> None:
    reader = RegisteredAgent("reader", "Reads.", "Be brief.", "gpt-4o-mini", frozenset({"mail_get"}))
    desk = Desk(tmp_path, agents=(reader,))
    model = scripted([("mail_search", "{}"), ("mail_get", '{"document_id": "doc_1"}')], "Done.")
    await desk.ask("Read", model, agent="reader")
    assert [name for name, _ in desk.invoked] == ["mail_get"]
    assert desk.refused == [("mail_search", "tool_forbidden")]


async def test_an_invented_tool_leaves_one_denial(desk: Desk) -> None:
    await desk.ask("Go", scripted([("shred; all\x00", '{"really": true}')], "I could not."))
    assert desk.refused == [("shred__all_", "tool_unknown")]


@pytest.mark.parametrize("arguments", ['{"query": ', "[1]", '"tax"'])
async def test_arguments_that_are_no_object_leave_one_denial(desk: Desk, arguments: str) -> None:
    await desk.ask("Go", scripted([("mail_search", arguments)], "I could not."))
    assert desk.invoked == []
    assert desk.refused == [("mail_search", "arguments_invalid")]


async def test_arguments_that_do_not_fit_are_refused_by_the_corridor_and_told_to_the_model(
    desk: Desk,
) -> None:
    told: list[Any] = []

    def look(messages: list[ModelMessage], info: AgentInfo) -> None:
        told.extend(returned(messages))

    model = scripted([("mail_search", '{"query": 7, "colour": "red"}')], "I see.", seen=look)
    finished = await desk.ask("Go", model)
    assert desk.refused == []
    assert "payload.operation.parameters.colour" in told[0]
    assert finished.outputs["tool_events"] == [
        {
            "event_id": "evt_child1",
            "tool_name": "mail_search",
            "call_id": "call_1_0",
            "outcome": "failed",
            "error_type": "arguments_invalid",
        }
    ]


async def test_parallel_calls_all_run_and_a_failing_one_does_not_stop_the_run(desk: Desk) -> None:
    calls = [
        ("mail_search", '{"query": "tax"}'),
        ("always_down", "{}"),
        ("mail_get", '{"document_id": "doc_2"}'),
    ]
    finished = await desk.ask("Go", scripted(calls, "Two of three."))
    outcomes = {event["tool_name"]: event["outcome"] for event in finished.outputs["tool_events"]}
    assert outcomes == {"mail_search": "succeeded", "always_down": "failed", "mail_get": "succeeded"}
    assert finished.outputs["response"] == "Two of three. "


async def test_a_result_that_is_too_long_reaches_the_model_cut(desk: Desk) -> None:
    told: list[Any] = []
    model = scripted(
        [("very_long", "{}")], "Long.", seen=lambda messages, info: told.extend(returned(messages))
    )
    await desk.ask("Go", model)
    assert told[0]["cut"] == "the first 100000 of 500002 characters"
    assert len(told[0]["text"]) == 100_000


async def test_ids_that_are_no_request_ids_are_replaced_by_digests(desk: Desk) -> None:
    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if returned(messages):
            yield "Done."
        else:
            yield {0: DeltaToolCall("mail_search", '{"query": "tax"}', tool_call_id="one|two " + "x" * 500)}

    await desk.ask("Go", FunctionModel(stream_function=stream))
    (call_id,) = desk.call_ids
    assert call_id is not None
    assert call_id.startswith("call_")
    assert len(call_id) == 37


async def test_a_lost_permission_ends_the_run(desk: Desk) -> None:
    model = scripted([("rights_lost", "{}")], "I go on all the same.")
    with pytest.raises(RightsLost):
        await desk.ask("Go", model)
    assert desk.snapshot is None
    assert "go on" not in desk.streamed


async def test_the_test_model_calls_every_tool_once(tmp_path: Path) -> None:
    reader = RegisteredAgent(
        "reader", "", "", "gpt-4o-mini", frozenset({"mail_search", "note_add", "always_down"})
    )
    desk = Desk(tmp_path, agents=(reader,))
    finished = await desk.ask("Go", TestModel(), agent="reader")
    assert sorted(name for name, _ in desk.invoked) == ["always_down", "mail_search", "note_add"]
    assert finished.outputs["usage"]["tool_calls"] == 3


class TestBudgets:
    async def test_requests(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path, budgets=Budgets(requests=2))
        with pytest.raises(NestedFailed) as failed:
            await desk.ask("Go", scripted([("mail_search", '{"query": "tax"}')]))
        assert failed.value.type == "budget_spent"
        assert failed.value.message == snapshot("The next request would exceed the request_limit of 2.")
        assert len(desk.invoked) == 2
        assert desk.refused == []

    async def test_tool_calls_in_one_answer_run_all_or_none(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path, budgets=Budgets(tool_calls=2))
        with pytest.raises(NestedFailed, match="tool_calls_limit of 2"):
            await desk.ask("Go", scripted([("mail_search", '{"query": "tax"}')] * 3))
        assert desk.invoked == []
        assert desk.refused == [("mail_search", "budget_spent")] * 3

    async def test_failing_tool_calls_count_too(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path, budgets=Budgets(tool_calls=3))
        with pytest.raises(NestedFailed) as failed:
            await desk.ask("Go", scripted([("always_down", "{}")]))
        assert failed.value.type == "budget_spent"
        assert len(desk.invoked) == 3
        assert desk.refused == [("always_down", "budget_spent")]

    async def test_tokens(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path, budgets=Budgets(total_tokens=20))
        with pytest.raises(NestedFailed) as failed:
            await desk.ask("Go", scripted([("mail_search", '{"query": "tax"}')]))
        assert failed.value.type == "budget_spent"
        assert desk.invoked == []
        assert desk.refused == [("mail_search", "budget_spent")]


class TestModelFailures:
    @pytest.mark.parametrize(
        ("error", "retryable"),
        [
            (ModelHTTPError(429, "m", body="key sk-secret"), True),
            (ModelHTTPError(503, "m", body="key sk-secret"), True),
            (ModelHTTPError(401, "m", body="key sk-secret"), False),
            (ModelConnectionError("m", "sk-secret"), True),
            (UnexpectedModelBehavior("sk-secret"), False),
        ],
    )
    async def test_a_provider_that_fails_fails_the_run_without_telling_secrets(
        self, desk: Desk, error: Exception, retryable: bool
    ) -> None:
        with pytest.raises(NestedFailed) as failed:
            await desk.ask("Go", scripted(error))
        assert failed.value.type == "model_failed"
        assert failed.value.retryable is retryable
        assert "secret" not in failed.value.message
        assert "gpt-4o-mini" in failed.value.message

    async def test_an_answer_that_json_cannot_hold_fails_the_run(self, desk: Desk) -> None:
        with pytest.raises(NestedFailed) as failed:
            await desk.ask("Go", scripted([("mail_search", '{"query": "\ud800"}')], "I could not."))
        assert failed.value.type == "model_failed"
        assert desk.refused == [("mail_search", "arguments_invalid")]

    async def test_text_that_json_cannot_hold_is_mended(self, desk: Desk) -> None:
        finished = await desk.ask("Go", scripted("One \ud800 two"))
        assert finished.outputs["response"] == "One ? two "
        assert (await desk.ask("Again", scripted("Yes."))).outputs["response"] == "Yes. "

    async def test_denials_are_left_on_the_record_when_the_model_fails_later(self, desk: Desk) -> None:
        with pytest.raises(NestedFailed):
            await desk.ask("Go", scripted([("shred", "{}")], ModelHTTPError(500, "m")))
        assert desk.refused == [("shred", "tool_unknown")]

    async def test_a_model_that_keeps_inventing_is_stopped(self, desk: Desk) -> None:
        with pytest.raises(NestedFailed) as failed:
            await desk.ask("Go", scripted([("shred", "{}")]))
        assert failed.value.type == "model_failed"
        assert desk.refused == [("shred", "tool_unknown")] * 4


async def test_a_cancelled_run_leaves_its_denials_and_no_conversation(desk: Desk) -> None:
    reached = asyncio.Event()

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if not returned(messages):
            yield {0: DeltaToolCall("shred", "{}", tool_call_id="call_0")}
            return
        yield "Wait"
        reached.set()
        await asyncio.sleep(60)

    run = asyncio.create_task(desk.ask("Go", FunctionModel(stream_function=stream)))
    await reached.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert desk.refused == [("shred", "tool_unknown")]
    assert desk.snapshot is None


def returned(messages: Sequence[ModelMessage]) -> list[Any]:
    """What tools returned, as the model sees it."""
    parts = (part for m in messages if isinstance(m, ModelRequest) for part in m.parts)
    return [part.content for part in parts if isinstance(part, ToolReturnPart)]


async def test_objects_that_json_cannot_hold_are_no_arguments(desk: Desk) -> None:
    # Some providers' libraries hand over objects instead of JSON.
    context = desk.context()
    call = ToolCallPart("mail_search", {"query": "\ud800"}, "call_1")
    messages = [ModelResponse(parts=[call], run_id=context.event_id)]
    await CasefileTools(desk.tools, None, 1).note_refusals(context, messages)
    assert desk.refused == [("mail_search", "arguments_invalid")]
    assert desk.refused_inputs == [{"text": "{'query': '\\ud800'}"}]
