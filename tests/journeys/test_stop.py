"""A server that is told to stop: it says so first, lets what runs end, cuts streams where they can be resumed."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.fakes.postgres import shared_postgres
from tests.journeys.deployed import begun, deployed, gone
from tests.journeys.support import bearing, request, request_bytes, tool_call

pytestmark = pytest.mark.timeout(180)


async def not_ready(port: int) -> None:
    """Returns when the server says that it stops; it still answers."""
    async with asyncio.timeout(30):
        while (await request(port, "GET", "/readyz")).status == 200:
            await asyncio.sleep(0.01)


async def test_what_runs_ends_while_the_server_stops_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    data, marks = tmp_path / "data", tmp_path / "marks"
    async with deployed(data, drain_s="60") as server:
        casefile_id = await server.casefile()
        made = await server.ask("/v1/sessions/create", {"casefile_id": casefile_id})
        session_id = made.json["payload"]["session_id"]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            request_bytes("GET", f"/v1/sessions/{session_id}/events/stream", headers=bearing(server.token))
        )
        held = asyncio.create_task(server.hold(casefile_id, marks, session_id=session_id))
        await begun(marks)

        server.process.terminate()
        await not_ready(server.port)
        streamed = (await asyncio.wait_for(reader.read(), 30)).decode()
        alive = await request(server.port, "GET", "/livez")
        late = await server.ask("/v1/sessions/execute", tool_call("case_note", casefile_id=casefile_id))
        followed = await request(
            server.port, "GET", f"/v1/sessions/{session_id}/events/stream", headers=bearing(server.token)
        )
        (marks / "go").touch()
        answer = await held
        ended = await server.stop()
        writer.close()

    assert alive.status == 200
    for refused in (late, followed):
        assert (refused.status, refused.json["code"], refused.json["retryable"]) == (
            503,
            "shutting_down",
            True,
        )
        assert int(refused.headers["retry-after"]) > 0
    assert answer.json["status"] == "completed"
    assert ended == (0, "")
    # Cut where it can be resumed: an id, and no event that says that this was all.
    assert "event: started" in streamed
    assert "event: end" not in streamed
    last = [line for line in streamed.splitlines() if line.startswith("id: ")][-1]
    async with deployed(data) as server, server.client() as ck:
        stream = ck.sessions.stream(session_id, after=int(last.removeprefix("id: ")))
        rest = await anext(stream)
        await stream.aclose()
        assert await server.stop() == (0, "")
    assert getattr(rest, "kind", None) == "succeeded"


async def test_what_does_not_end_in_time_is_interrupted_and_answered(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    async with deployed(tmp_path / "data", drain_s="0.1") as server:
        held = asyncio.create_task(server.hold(await server.casefile(), marks))
        await begun(marks)

        ended = await server.stop()
        answer = await held

    assert ended == (0, "")
    assert answer.json["status"] == "failed"
    assert answer.json["error"] == {
        "type": "server_stopped",
        "message": "The server was stopped.",
        "retryable": True,
    }


async def test_a_server_that_leaves_goes_on_until_its_balancer_has_noticed(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    (marks / "go").touch()
    async with deployed(tmp_path / "data", stop_delay_s="60") as server:
        casefile_id = await server.casefile()

        server.process.terminate()
        await not_ready(server.port)
        answer = await server.hold(casefile_id, marks)

    assert answer.json["status"] == "completed"


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_whoever_presses_ctrl_c_again_does_not_wait(tmp_path: Path, workers: str) -> None:
    marks, store = tmp_path / "marks", await shared_postgres().make() if workers == "2" else ""
    async with deployed(tmp_path / "data", "--workers", workers, store=store, drain_s="600") as server:
        held = asyncio.create_task(server.hold(await server.casefile(), marks))
        [begun_by] = await begun(marks)
        server.process.send_signal(signal.SIGINT)
        await not_ready(server.port)
        code, err = await server.stop(signal.SIGINT)
        # Its connection is cut: nobody answers any more.
        with pytest.raises((OSError, EOFError)):
            await held
        await gone(int(begun_by.split("-")[1]))

    assert (code, err) == (130, "")
