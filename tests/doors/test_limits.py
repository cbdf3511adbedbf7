"""Rate limits as callers see them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.doors.problems import assert_problem
from tests.support import Api, open_test_server


@asynccontextmanager
async def limited(directory: Path, **limits: Any) -> AsyncGenerator[Api]:
    """A server with these limits and no others."""
    chosen: dict[str, Any] = {"limit_user": 0, "limit_casefile": 0, **limits}
    async with open_test_server(directory, **chosen) as server, Api.of(server) as api:
        yield api


async def test_an_answer_tells_where_the_limits_stand(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"limit_casefile": 20, "limit_tools": {"noop": 5}}
    async with limited(tmp_path / "data", limit_user=10, **chosen) as api:
        house = await api.house()
        await api.run(house["editor"], "echo", casefile_id=house.casefile_id)
        answer = await api.run(house["editor"], "noop", casefile_id=house.casefile_id)

    assert answer.headers["RateLimit-Policy"] == '"user";q=10;w=60, "casefile";q=20;w=60, "tool";q=5;w=60'
    left = [item.split(";t=")[0] for item in answer.headers["RateLimit"].split(", ")]
    assert left == ['"user";r=8', '"casefile";r=18', '"tool";r=4']


async def test_a_stream_tells_so_as_well(tmp_path: Path) -> None:
    async with limited(tmp_path / "data", limit_user=9) as api:
        house = await api.house()
        operation = {"operation_type": "tool", "tool_name": "noop"}
        answer = await api.post(
            "/v1/sessions/execute",
            {"casefile_id": house.casefile_id, "operation": operation},
            token=house["editor"],
            headers={"Accept": "text/event-stream"},
        )

    assert answer.headers["RateLimit"].startswith('"user";r=8;t=')


async def test_a_spent_limit_is_refused_with_when_to_come_back_and_leaves_no_fact(tmp_path: Path) -> None:
    async with limited(tmp_path / "data", limit_casefile=1) as api:
        house = await api.house()
        await api.run(house["owner"], "noop", casefile_id=house.casefile_id)
        before = await api.facts()
        refused = await api.run(house["viewer"], "noop", casefile_id=house.casefile_id)
        after = await api.facts()

    problem = assert_problem(refused, 429, "rate_limited")
    assert (problem["check"], problem["retryable"]) == ("admit", True)
    retry_s = refused.headers["Retry-After"]
    assert refused.headers["RateLimit"] == f'"casefile";r=0;t={retry_s}'
    assert refused.headers["RateLimit-Policy"] == '"casefile";q=1;w=60'
    assert after == before


async def test_a_stranger_learns_nothing_of_a_casefiles_limit(tmp_path: Path) -> None:
    async with limited(tmp_path / "data", limit_casefile=1) as api:
        house = await api.house()
        await api.run(house["owner"], "noop", casefile_id=house.casefile_id)
        refused = await api.run(house["stranger"], "noop", casefile_id=house.casefile_id)

    assert_problem(refused, 404, "casefile_not_found")
    assert "RateLimit" not in refused.headers


async def test_a_call_inside_another_is_limited_too_and_leaves_no_denial_since_it_may_come_again(
    tmp_path: Path,
) -> None:
    async with limited(tmp_path / "data", limit_tools={"noop": 1}) as api:
        house = await api.house()
        await api.run(house["owner"], "noop", casefile_id=house.casefile_id)
        outer = await api.run(house["owner"], "nested", {"name": "noop"}, casefile_id=house.casefile_id)
        kinds = [kind for _, kind, _ in await api.facts()]

    assert outer.json()["payload"]["error"]["type"] == "rate_limited"
    assert kinds[-2:] == ["started", "failed"]


async def test_without_limits_nothing_is_said_of_them(tmp_path: Path) -> None:
    async with limited(tmp_path / "data") as api:
        house = await api.house()
        answer = await api.run(house["owner"], "noop", casefile_id=house.casefile_id)

    assert "RateLimit" not in answer.headers
