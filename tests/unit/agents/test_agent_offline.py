"""The rules of `offline-researcher`: what it searches for, and what it answers."""

from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot

from casekeeper.acl import Effect, Role
from casekeeper.agents.offline import QUERY_MAX_CHARS, search_for, searches_for
from casekeeper.operations.context import MDSContext, NestedFailed
from casekeeper.operations.registry import ToolRegistry
from casekeeper.operations.tools import tool
from tests.unit.agents.desk import Desk

OFFLINE = "offline-researcher"


@pytest.mark.parametrize(
    ("prompt", "query"),
    [
        ("Find my tax documents from 2024", "tax after:2024/01/01 before:2025/01/01"),
        ("What did Anna write about the rent?", "Anna write rent"),
        ("mails from Anna about taxes since 2023", "from:Anna taxes after:2023/01/01"),
        ("anything from anna@example.com, please", "from:anna@example.com"),
        ("invoices sent to ben@example.com before 2022", "to:ben@example.com invoices before:2022/01/01"),
        ("between 2021 and 2023", "after:2021/01/01 before:2024/01/01"),
        ("after 2020", "after:2021/01/01"),
        ('the "annual report" of ACME', '"annual report" ACME'),
        ('from:ben@example.com subject:"rent increase"', 'from:ben@example.com subject:"rent increase"'),
        ("has:attachment -label:inbox filename:pdf rent", "has:attachment -label:inbox filename:pdf rent"),
        ("letters from March about the flood", "flood"),
        ("rent rent RENT", "rent RENT"),
        ("Show me everything", ""),
        ("", ""),
    ],
)
def test_a_prompt_becomes_a_query(prompt: str, query: str) -> None:
    assert search_for(prompt).query == query


def test_a_search_is_relaxed_three_times_at_most() -> None:
    queries = [search.query for search in searches_for("tax refund letter office in 2024 from Anna")]
    assert queries == snapshot(
        [
            "from:Anna tax refund office after:2024/01/01 before:2025/01/01",
            "from:Anna tax refund office",
            "from:Anna tax refund",
            "from:Anna tax",
        ]
    )


@pytest.mark.parametrize(
    "prompt", ["word " * 50_000, '"' * 10_000, "from:" * 10_000, "a@b." * 10_000, "\ud800 x\x00"]
)
def test_odd_prompts_make_queries_too(prompt: str) -> None:
    assert all(len(search.query) <= QUERY_MAX_CHARS for search in searches_for(prompt))


async def test_it_answers_with_what_it_found(desk: Desk) -> None:
    finished = await desk.ask("Find my tax documents from 2024", agent=OFFLINE)
    assert [name for name, _ in desk.invoked] == ["mail_search", "mail_get"]
    assert finished.outputs == snapshot(
        {
            "response": """\
Found 1 document for `tax after:2024/01/01 before:2025/01/01`:
- [doc_1] Tax return 2024 — The tax return is attached.\
""",
            "model": "rules",
            "usage": {
                "input_tokens": 0,
                "output_tokens": 0,
                "requests": 0,
                "tool_calls": 2,
                "cost": "0.000000",
            },
            "tool_events": [
                {
                    "event_id": "evt_child1",
                    "tool_name": "mail_search",
                    "call_id": "call_1_0",
                    "outcome": "succeeded",
                },
                {
                    "event_id": "evt_child2",
                    "tool_name": "mail_get",
                    "call_id": "call_3_0",
                    "outcome": "succeeded",
                },
            ],
        }
    )
    assert desk.streamed == finished.outputs["response"]


async def test_a_viewer_may_run_it(tmp_path: Path) -> None:
    finished = await Desk(tmp_path, Role.VIEWER).ask("lunch", agent=OFFLINE)
    assert "[doc_2] Lunch" in finished.outputs["response"]


async def test_a_search_without_result_is_relaxed(desk: Desk) -> None:
    finished = await desk.ask("tax in 2019", agent=OFFLINE)
    assert finished.outputs["response"].startswith("Found 1 document for `tax`:")


async def test_it_says_plainly_that_nothing_was_found(desk: Desk) -> None:
    finished = await desk.ask("dragons in 2024", agent=OFFLINE)
    assert finished.outputs["response"] == snapshot(
        "Nothing was found in this casefile. I searched for `dragons after:2024/01/01 before:2025/01/01`, `dragons`."
    )


async def test_each_prompt_stands_for_itself(desk: Desk) -> None:
    await desk.ask("dragons", agent=OFFLINE)
    finished = await desk.ask("lunch", agent=OFFLINE)
    assert finished.outputs["response"].startswith("Found 1 document for `lunch`:")
    assert len(set(desk.call_ids)) == len(desk.call_ids)


async def test_the_best_three_of_many_are_read(tmp_path: Path) -> None:
    many = [{"document_id": f"doc_{n}", "title": "", "snippet": "It rained."} for n in range(20)]
    finished = await with_tools(tmp_path, many).ask("rain", agent=OFFLINE)
    lines = finished.outputs["response"].splitlines()
    assert lines[0] == "Found 20 documents or more for `rain`:"
    assert lines[1] == "- [doc_0] (no subject) — It rained."
    assert lines[4].startswith("Also: [doc_3], [doc_4]")


@pytest.mark.parametrize(
    "messages", [None, "nothing", 7, [None, 7, {"document_id": 7}, {}], {"document_id": "doc_1"}]
)
async def test_odd_results_are_no_results(tmp_path: Path, messages: Any) -> None:
    finished = await with_tools(tmp_path, messages).ask("rain", agent=OFFLINE)
    assert finished.outputs["response"].startswith("Nothing was found")


async def test_a_failing_search_is_told(tmp_path: Path) -> None:
    finished = await with_tools(tmp_path, NestedFailed("operation_raised", "it is down")).ask(
        "rain", agent=OFFLINE
    )
    assert finished.outputs["response"] == "The search failed: operation_raised: it is down"


async def test_without_the_search_tool_it_says_so(tmp_path: Path) -> None:
    finished = await Desk(tmp_path, tools=ToolRegistry()).ask("rain", agent=OFFLINE)
    assert finished.outputs["response"] == "I search with the tool mail_search, which is not open here."


def with_tools(directory: Path, messages: Any) -> Desk:
    """A desk whose search returns this, and whose `mail_get` always fails."""

    @tool(effects={Effect.READ})
    async def mail_search(call: MDSContext, query: str, limit: int) -> Any:
        """Search."""
        if isinstance(messages, Exception):
            raise messages
        return {"messages": messages}

    @tool(effects={Effect.READ})
    async def mail_get(call: MDSContext, document_id: str) -> None:
        """Get."""
        raise NestedFailed("document_not_found", "it is gone")

    return Desk(directory, tools=ToolRegistry((mail_search, mail_get)))
