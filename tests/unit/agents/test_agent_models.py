"""Models of real providers, as far as a stand-in can tell: routes, streams, tools, and what goes wrong."""

import asyncio
import socket
from collections.abc import AsyncIterator
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

import pytest

from casekeeper.agents.agent import Budgets, RegisteredAgent
from casekeeper.agents.routes import Providers
from casekeeper.operations.context import NestedFailed
from tests.unit.agents.desk import Desk

# aimock leaves out Gemini's token counts, and ends its tool calls in a way that Google's library remarks upon.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic_ai.exceptions.UsageLimitUnavailableWarning"),
    pytest.mark.filterwarnings("ignore:.*FUNCTION_CALL.*"),
]

MODELS = ["google:gemini-2.0-flash-exp", "openai-chat:gpt-4o-mini", "openai:gpt-5.6-luna"]
if find_spec("anthropic"):  # not among the extras that the tests need
    MODELS.append("anthropic:claude-haiku-4-5")


def at(url: str) -> Providers:
    """All providers at one address."""
    return Providers(
        google_api_key="google-secret",
        google_base_url=url,
        google_api_version="v1beta",
        openai_api_key="openai-secret",
        openai_base_url=f"{url}/v1",
        anthropic_api_key="anthropic-secret",
        anthropic_base_url=url,
    )


@pytest.fixture(params=MODELS)
async def modelled(request: pytest.FixtureRequest, tmp_path: Path, aimock: str) -> AsyncIterator[Desk]:
    """A desk whose agent `it` is each of the providers' models in turn."""
    desk = Desk(tmp_path, providers=at(aimock), agents=(RegisteredAgent("it", "", "", request.param),))
    yield desk
    await desk.registry.close()


async def test_an_answer_arrives_whole_and_in_pieces(modelled: Desk) -> None:
    finished = await modelled.ask("say hello", agent="it")
    assert finished.outputs["response"] == "Hello from the fake model, in more than one piece."
    assert modelled.streamed == finished.outputs["response"]
    assert len(modelled.progress) > 1


async def test_a_tool_is_called_and_its_result_answered(modelled: Desk) -> None:
    finished = await modelled.ask("find invoices", agent="it")
    assert modelled.invoked == [("mail_search", {"query": "invoice", "limit": 3})]
    assert finished.outputs["response"] == "There is one invoice."
    assert finished.outputs["usage"]["requests"] == 2
    assert [event["outcome"] for event in finished.outputs["tool_events"]] == ["succeeded"]


async def test_a_conversation_with_tools_continues(modelled: Desk) -> None:
    await modelled.ask("find invoices", agent="it")
    await modelled.ask("find invoices", agent="it")
    finished = await modelled.ask("say hello", agent="it")
    assert finished.outputs["response"].startswith("Hello")
    assert len(modelled.invoked) == 2


async def test_an_invented_tool_leaves_a_denial(modelled: Desk) -> None:
    finished = await modelled.ask("use a tool that does not exist", agent="it")
    assert finished.outputs["response"] == "I could not."
    assert modelled.refused == [("shred_everything", "tool_unknown")]


@pytest.mark.parametrize(
    ("prompt", "status", "retryable"),
    [("be busy", 429, True), ("be broken", 500, True), ("be unknown", 404, False)],
)
async def test_a_provider_that_refuses_fails_the_run(
    modelled: Desk, prompt: str, status: int, retryable: bool
) -> None:
    with pytest.raises(NestedFailed) as failed:
        await modelled.ask(prompt, agent="it")
    assert failed.value.type == "model_failed"
    assert failed.value.retryable is retryable
    assert failed.value.message.endswith(f"answered with status {status}.")
    assert "secret" not in failed.value.message


async def test_what_a_run_costs_is_told_and_limited(tmp_path: Path, aimock: str) -> None:
    desk = Desk(tmp_path, providers=at(aimock))
    finished = await desk.ask("say hello", agent="gpt-4o-mini")
    await desk.registry.close()
    assert Decimal(finished.outputs["usage"]["cost"]) > 0
    poor = Desk(tmp_path, providers=at(aimock), budgets=Budgets(cost=Decimal("0.000001")))
    with pytest.raises(NestedFailed) as failed:
        await poor.ask("say hello", agent="gpt-4o-mini")
    await poor.registry.close()
    assert failed.value.type == "budget_spent"


@pytest.mark.parametrize("model", MODELS)
async def test_a_provider_that_is_not_there_fails_the_run(tmp_path: Path, model: str, aimock: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{probe.getsockname()[1]}"  # bound, but nobody listens
        desk = Desk(tmp_path, providers=at(nowhere), agents=(RegisteredAgent("it", "", "", model),))
        with pytest.raises(NestedFailed) as failed:
            await desk.ask("say hello", agent="it")
    await desk.registry.close()
    assert failed.value.type == "model_failed"
    assert failed.value.retryable
    assert "could not be reached" in failed.value.message


@pytest.mark.parametrize("model", MODELS)
async def test_a_provider_that_breaks_off_in_the_middle_fails_the_run(
    tmp_path: Path, model: str, aimock: str
) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 1000\r\n\r\n"
        writer.write(head + b'data: {"id": "x", "choices": []}\n\n')
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(break_off, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        desk = Desk(
            tmp_path, providers=at(f"http://127.0.0.1:{port}"), agents=(RegisteredAgent("it", "", "", model),)
        )
        with pytest.raises(NestedFailed) as failed:
            await desk.ask("say hello", agent="it")
        await desk.registry.close()
    assert failed.value.type == "model_failed"
    assert failed.value.retryable
