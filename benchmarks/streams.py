"""What progress costs on its way to clients: 200 streamed operations at once in one process."""

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Row
from benchmarks.machinery import Api, Running, serving

_STREAMS, _DELTAS, _PAUSE_MS = 200, 40, 250
_TELLS: dict[str, Any] = {
    "operation_type": "tool",
    "tool_name": "tells",
    "parameters": {"pieces": _DELTAS, "pause_ms": _PAUSE_MS},
}


def streams(folder: Path) -> list[Row]:
    """Processor time per delta, and the time to the first one."""
    with serving("casekeeper", folder) as running:
        api = Api(running.port)
        api.log_in(running.said["user"], running.said["password"], [])
        casefile_id = api.call("/v1/casefiles/create", {"title": "Benchmark"})["casefile_id"]
        api.log_in(running.said["user"], running.said["password"], [casefile_id])
        where = {"casefile_id": casefile_id}
        sessions = [api.call("/v1/sessions/create", where)["session_id"] for _ in range(_STREAMS)]
        asyncio.run(_streamed(running.port, api.token, sessions[0]))
        return [asyncio.run(_measured(running, api.token, sessions))]


async def _measured(running: Running, token: str, sessions: list[str]) -> Row:
    before = running.cpu_seconds()
    firsts = await asyncio.gather(*(_streamed(running.port, token, one) for one in sessions))
    cpu_s = running.cpu_seconds() - before
    each_us = cpu_s / (_STREAMS * _DELTAS) * 1e6
    soon_ms = statistics.median(firsts) * 1000
    told = f"{cpu_s:.2f} s of processor time, {each_us:.0f} us a delta; first delta p50 {soon_ms:.0f} ms"
    return Row(f"{_STREAMS} streams, {_DELTAS} deltas each", told)


async def _streamed(port: int, token: str, session_id: str) -> float:
    """Stream an operation to its end; returns the seconds until its first delta."""
    body = json.dumps({"payload": {"session_id": session_id, "operation": _TELLS}})
    lines = [
        "POST /v1/sessions/execute HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "accept: text/event-stream",
        "content-type: application/json",
        f"content-length: {len(body)}",
        f"authorization: Bearer {token}",
        "",
        body,
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began, first, deltas = time.perf_counter(), 0.0, 0
    writer.write("\r\n".join(lines).encode())
    async for line in reader:
        if line.startswith(b"event: delta"):
            deltas += 1
            first = first or time.perf_counter() - began
        elif line.startswith(b"event: end"):
            break
    writer.close()
    if deltas != _DELTAS:
        raise RuntimeError(f"{deltas} deltas came instead of {_DELTAS}")
    return first
