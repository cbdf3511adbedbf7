"""Rules of the operators, as a client meets them."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsPartialDict, IsStr

from tests.support import Api, House, Json, open_test_server

RULES: list[dict[str, Any]] = [
    {"name": "secret", "then": "deny", "tools": ["touch"], "tags": ["secret"], "roles": ["editor"]},
    {"name": "four-eyes", "then": "approval", "tools": ["shr*"]},
]


@pytest.fixture
async def ruled(tmp_path: Path) -> AsyncGenerator[tuple[Api, House]]:
    """A server with rules, and a casefile under them."""
    async with open_test_server(tmp_path / "data", policies=RULES) as server, Api.of(server) as api:
        yield api, await api.house(tags=["Secret"])


@pytest.mark.parametrize(
    ("who", "tool", "wanted"),
    [
        ("editor", "touch", (403, "policy_denies", "secret", "admin")),
        ("admin", "touch", (200, None, None, None)),
        ("viewer", "touch", (403, "role_too_low", None, "admin")),
        ("owner", "shred", (403, "approval_needed", "four-eyes", None)),
        ("stranger", "touch", (404, "casefile_not_found", None, None)),
    ],
)
async def test_a_rule_answers_with_its_name_and_what_would_do(
    ruled: tuple[Api, House], who: str, tool: str, wanted: Any
) -> None:
    api, house = ruled

    answer = await api.run(house[who], tool, casefile_id=house.casefile_id)

    body = answer.json()
    assert (answer.status_code, body.get("code"), body.get("rule"), body.get("needed_role")) == wanted
    if "rule" in body:
        assert (body["check"], body["retryable"]) == ("what", False)


async def test_a_stranger_learns_nothing_of_rules(ruled: tuple[Api, House]) -> None:
    api, house = ruled
    operation: Json = {"operation_type": "tool", "tool_name": "shred", "parameters": {}}

    for casefile_id in (house.casefile_id, "cf_250101_abcdef"):
        payload: Json = {"casefile_id": casefile_id, "operation": operation}
        answer = await api.post("/v1/permissions/check", payload, token=house["stranger"])
        assert (answer.status_code, "four-eyes" in answer.text) == (404, False)


async def test_the_dry_run_tells_a_member_the_rule(ruled: tuple[Api, House]) -> None:
    api, house = ruled
    operation: Json = {"operation_type": "tool", "tool_name": "shred", "parameters": {}}

    verdict = await api.ask(
        "/v1/permissions/check",
        {"casefile_id": house.casefile_id, "operation": operation},
        token=house["admin"],
    )

    assert verdict == IsPartialDict(
        allowed=False,
        check="what",
        needs_approval=True,
        needed_role="admin",
        rule="four-eyes",
        reason=IsStr(regex=".*four-eyes.*"),
    )
