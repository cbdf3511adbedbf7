"""What a session's agents remember from run to run."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from casekeeper.agents.conversation import trim
from casekeeper.operations.context import NestedFailed
from casekeeper.operations.operation import Message
from tests.unit.agents.desk import CASEFILE, Desk


async def _echo(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
    """Answers with everything that was said so far."""
    yield " / ".join(said(messages))


ECHO = FunctionModel(stream_function=_echo)


def said(messages: list[ModelMessage]) -> list[str]:
    """The texts of user and assistant, in order."""
    return [str(p.content) for m in messages for p in m.parts if isinstance(p, UserPromptPart | TextPart)]


async def test_the_conversation_of_the_session_continues(desk: Desk) -> None:
    await desk.ask("one", ECHO)
    finished = await desk.ask("two", ECHO)
    assert finished.outputs["response"] == "one / one / two"


async def test_what_the_session_remembers_and_what_a_caller_gives_taint_from_the_start(desk: Desk) -> None:
    await desk.ask("one", ECHO, history=[])
    assert not desk.is_tainted

    await desk.ask("two", ECHO, history=[Message(role="user", content="red")])
    assert desk.is_tainted

    desk.is_tainted = False
    await desk.ask("three", ECHO)
    assert desk.is_tainted


async def test_it_continues_with_another_agent(desk: Desk) -> None:
    await desk.ask("any tax mail?", agent="offline-researcher")
    finished = await desk.ask("two", ECHO, agent="gemini-2.0-flash-exp")
    assert finished.outputs["response"].startswith("any tax mail? / Found 1 document")


async def test_given_messages_replace_it_and_go_on_from_there(desk: Desk) -> None:
    await desk.ask("one", ECHO)
    history = [Message(role="user", content="red"), Message(role="assistant", content="blue")]
    assert (await desk.ask("two", ECHO, history=history)).outputs["response"] == "red / blue / two"
    assert (await desk.ask("three", ECHO)).outputs["response"].startswith("red / blue / two / ")


async def test_no_messages_start_afresh(desk: Desk) -> None:
    await desk.ask("one", ECHO)
    assert (await desk.ask("two", ECHO, history=[])).outputs["response"] == "two"


async def test_a_failed_run_changes_nothing(desk: Desk) -> None:
    async def broken(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        raise UnicodeError
        yield ""

    await desk.ask("one", ECHO)
    with pytest.raises(NestedFailed):
        await desk.ask("lost", FunctionModel(stream_function=broken))
    assert (await desk.ask("two", ECHO)).outputs["response"] == "one / one / two"


@pytest.mark.parametrize("data", [None, b"", b"{}", b"\xff not json", b'[{"kind": "dream"}]'])
async def test_a_lost_or_unreadable_snapshot_starts_afresh_and_says_so(
    desk: Desk, data: bytes | None
) -> None:
    desk.snapshot = "ab" * 32
    if data is not None:
        await desk.blobs.put(CASEFILE, desk.snapshot, data)
    finished = await desk.ask("one", ECHO)
    assert finished.outputs["response"] == "one"
    assert [piece["text"] for piece in desk.progress if piece["type"] == "notice"] == [
        "The earlier conversation could not be read; this run starts afresh."
    ]


async def test_equal_conversations_have_different_names(tmp_path: Path) -> None:
    names = {(await Desk(tmp_path).ask("one", ECHO)).conversation for _ in range(2)}
    assert len(names) == 2


async def test_the_named_snapshot_is_in_the_casefile(desk: Desk) -> None:
    finished = await desk.ask("one", ECHO)
    assert finished.conversation is not None
    data = await desk.blobs.get(CASEFILE, finished.conversation)
    assert said(ModelMessagesTypeAdapter.validate_json(data or b"")) == ["one", "one"]


def turn(number: int, result: str = "") -> list[ModelMessage]:
    """A turn of four messages, with one call of a tool."""
    return [
        ModelRequest(parts=[UserPromptPart(f"ask {number}")], instructions="house rules"),
        ModelResponse(parts=[ToolCallPart("mail_search", {}, f"call_{number}")]),
        ModelRequest(parts=[ToolReturnPart("mail_search", result, f"call_{number}")]),
        ModelResponse(parts=[TextPart(f"answer {number}")]),
    ]


class TestTrim:
    def test_whole_turns_are_kept_from_the_end(self) -> None:
        messages = [m for number in range(10) for m in turn(number)]
        assert said(trim(messages, most_messages=11)) == ["ask 8", "answer 8", "ask 9", "answer 9"]

    def test_it_never_starts_with_what_a_tool_returned(self) -> None:
        messages = [m for number in range(3) for m in turn(number)][2:]
        first = trim(messages)[0]
        assert isinstance(first.parts[0], UserPromptPart)

    def test_results_of_tools_are_cut(self) -> None:
        (_, _, request, _) = trim(turn(1, result="x" * 10_000))
        part = request.parts[0]
        assert isinstance(part, ToolReturnPart)
        assert part.content == "x" * 4000 + " … (cut)"

    def test_instructions_are_left_out(self) -> None:
        assert b"house rules" not in ModelMessagesTypeAdapter.dump_json(trim(turn(1)))

    def test_large_turns_drop_out(self) -> None:
        messages = [*turn(1), ModelResponse(parts=[TextPart("x" * 5_000)]), *turn(2)]
        assert said(trim(messages, most_bytes=3_000)) == ["ask 2", "answer 2"]

    def test_a_last_turn_that_is_too_large_is_kept_in_brief(self) -> None:
        messages = [*turn(1), ModelResponse(parts=[TextPart("x" * 50_000)])]
        assert said(trim(messages, most_bytes=3_000)) == ["ask 1", "x" * 32_000]

    def test_nothing_stays_nothing(self) -> None:
        assert trim([]) == []
