"""Helpers of the journeys: servers in processes of their own, and bare connections to them."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from casekeeper.asgi import create_app
from casekeeper.server import Server
from tests.support import Json, Workshop, open_test_server

ROOT = Path(__file__).parents[2]
# Under a loaded machine a start takes its time; a server that is not there by then never comes.
_START_S = 30.0


def soaking() -> bool:
    """Whether `make soak` asks for the long form of a journey."""
    return bool(os.environ.get("SOAK"))  # noqa: TID251 - not a setting of casekeeper


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nursery:
    """Starts servers on one data directory and kills them."""

    def __init__(self, data: Path, marks: Path, store: str = "") -> None:
        """`store` is the address of the store, if it is not in the data directory."""
        self.port = free_port()
        self.pid = 0
        """The server that lives, 0 for none."""
        command = [sys.executable, "-m", "tests.journeys.nursery", str(data), str(self.port), str(marks)]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "CASEKEEPER_STORE": store},  # noqa: TID251 - the child's, not ours
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def start(self) -> None:
        """Start a server and return when it answers."""
        self.pid = await asyncio.to_thread(self._fork)
        async with asyncio.timeout(_START_S):
            while not await self._is_there():
                await asyncio.sleep(0.01)

    def kill(self) -> None:
        """End the server as a power cut would, as far as a process can tell."""
        os.kill(self.pid, signal.SIGKILL)
        self.pid = 0

    def close(self) -> None:
        """End the server and the process behind it."""
        if self.pid:
            self.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _fork(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("start\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    async def _is_there(self) -> bool:
        try:
            return (await request(self.port, "GET", "/livez")).status == 200
        except (OSError, EOFError):
            return False


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        """The body, read."""
        return json.loads(self.body)


def request_bytes(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """A request as it goes over the wire; the connection ends with the answer."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "connection: close"]
    lines += [f"content-length: {len(body)}"] if body or method == "POST" else []
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def request(
    port: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Answer:
    """One request over a connection of its own.

    Raises:
        OSError: Nobody listens, or the connection broke.
        EOFError: It ended before the answer did.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request_bytes(method, path, body, headers))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        content = await reader.readexactly(int(fields["content-length"]))
        return Answer(int(head[0].split()[1]), fields, content)
    finally:
        writer.close()


def envelope(payload: Any, request_id: str | None = None) -> bytes:
    """A call's body."""
    return json.dumps({**({"request_id": request_id} if request_id else {}), "payload": payload}).encode()


def tool_call(name: str, parameters: Json | None = None, **place: str) -> Json:
    """The payload of an execute."""
    return {
        **place,
        "operation": {"operation_type": "tool", "tool_name": name, "parameters": parameters or {}},
    }


def bearing(token: str, **more: str) -> dict[str, str]:
    """Headers of a JSON call with a token."""
    return {"authorization": f"Bearer {token}", "content-type": "application/json", **more}


class _Web(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        # Ctrl-C belongs to the test run.
        yield


@asynccontextmanager
async def listening(server: Server) -> AsyncGenerator[int]:
    """The server behind real sockets on loopback, in this process; yields its port."""
    app = create_app()
    app.state.server = server
    bound = socket.create_server(("127.0.0.1", 0), backlog=512)
    web = _Web(
        uvicorn.Config(
            app,
            http="httptools",
            lifespan="off",
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=1,
        )
    )
    task = asyncio.create_task(web.serve([bound]))
    try:
        async with asyncio.timeout(_START_S):
            while not web.started:
                await asyncio.sleep(0.005)
        yield bound.getsockname()[1]
    finally:
        web.should_exit = True
        await task
        bound.close()


@asynccontextmanager
async def open_listening_server(data: Path, workshop: Workshop) -> AsyncGenerator[tuple[Server, int]]:
    """A test server behind real sockets."""
    async with (
        open_test_server(data, workshop=workshop, limit_user=0, limit_casefile=0) as server,
        listening(server) as port,
    ):
        yield server, port
