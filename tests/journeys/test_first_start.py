"""Several processes that start at once on an empty store are one deployment."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.firestore import running_emulator
from tests.fakes.postgres import shared_postgres
from tests.journeys.support import bearing, envelope, request

pytestmark = pytest.mark.timeout(120)

SERVERS = 3


@pytest.fixture(params=["postgresql", "firestore"])
def empty(request: pytest.FixtureRequest) -> Generator[str]:
    """A store without tables or layout."""
    if request.param == "postgresql":
        yield asyncio.run(shared_postgres().make())
    else:
        with running_emulator() as emulator:
            yield emulator.address()


def start(data: Path, store: str, number: int) -> "subprocess.Popen[str]":
    """Start a server without waiting for it. All share the keys; an index of search belongs to one process."""
    environment = {
        **os.environ,  # noqa: TID251 - what the process under test is given
        "CASEKEEPER_STORE": store,
        "CASEKEEPER_SEARCH": str(data.with_name(f"search-{number}.db")),
    }
    command = [sys.executable, "-m", "casekeeper.cli", "serve", "--port", "0", "--json", "--data", str(data)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def said(process: "subprocess.Popen[str]") -> list[Any]:
    """What a server prints until it is ready."""
    assert process.stdout is not None
    lines: list[Any] = []
    for line in process.stdout:
        lines.append(json.loads(line))
        if lines[-1]["event"] == "ready":
            return lines
    raise AssertionError(process.communicate()[1])


async def test_first_starts_at_once_make_one_operator_who_may_log_in_at_each(
    tmp_path: Path, empty: str
) -> None:
    processes = [start(tmp_path / "data", empty, number) for number in range(SERVERS)]
    try:
        lines = [line for process in processes for line in said(process)]
        shown = [line for line in lines if line["event"] == "first_login"]
        ports = [int(line["url"].rpartition(":")[2]) for line in lines if line["event"] == "ready"]
        login = {"user_id": shown[0]["user_id"], "password": shown[0]["password"]}
        json_ = {"content-type": "application/json"}
        given = [await request(port, "POST", "/v1/auth/token", envelope(login), json_) for port in ports]
        # What one has signed, each believes.
        seen = [
            await request(
                port,
                "POST",
                "/v1/accounts/list",
                envelope({}),
                bearing(answer.json["payload"]["access_token"]),
            )
            for answer in given
            for port in ports
        ]
    finally:
        for process in processes:
            process.terminate()
        ended = [(process.communicate(timeout=30)[1], process.returncode) for process in processes]

    assert len(shown) == 1
    assert [len(answer.json["payload"]["items"]) for answer in seen] == [1] * SERVERS**2
    assert ended == [("", 0)] * SERVERS
