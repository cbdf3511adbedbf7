"""What casekeeper is measured against: the least that a server with these promises can cost.

`echo` is FastAPI with a pydantic envelope in and out. `insert` is that, plus one durable row per request, written
by hand-made group commit: a writer thread, bare sqlite3, WAL, synchronous=FULL, one transaction for all who wait.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import AwareDatetime, BaseModel, ConfigDict


class Operation(BaseModel):
    """Like the call of a tool."""

    model_config = ConfigDict(extra="forbid")

    operation_type: str
    tool_name: str
    parameters: dict[str, Any] = {}


class Payload(BaseModel):
    """Holds what the measured calls send."""

    model_config = ConfigDict(extra="forbid")

    casefile_id: str | None = None
    session_id: str | None = None
    operation: Operation | None = None
    events: dict[str, Any] | None = None
    limit: int | None = None


class Asked(BaseModel):
    """An envelope in."""

    model_config = ConfigDict(extra="forbid")

    request_id: str | None = None
    user_id: str | None = None
    payload: Payload
    metadata: dict[str, Any] | None = None


class Answered(BaseModel):
    """An envelope out."""

    request_id: str
    status: str
    payload: Payload
    timestamp: AwareDatetime
    metadata: dict[str, Any] | None = None


class Rows:
    """One table, one writer thread, one transaction for everybody who waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[str, bytes, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    async def add(self, name: str, body: bytes) -> None:
        """Returns when the row is on disk."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((name, body, future))
        await future

    def close(self) -> None:
        """Write what waits."""
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, name TEXT, body BLOB)")
        while (item := self._queue.get()) is not None:
            batch = [item]
            while not self._queue.empty() and len(batch) < 256:
                waiting = self._queue.get()
                if waiting is None:
                    self._queue.put(None)
                    break
                batch.append(waiting)
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO rows (name, body) VALUES (?, ?)", [row[:2] for row in batch])
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_resolve, [row[2] for row in batch])
        connection.close()


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def build(data: Path) -> FastAPI:
    """The application with both baselines: `/echo` and `/insert`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.rows = Rows(data / "rows.db")
        yield
        app.state.rows.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    async def echo(body: Asked) -> Answered:
        return _answer(body)

    async def insert(body: Asked) -> Answered:
        await app.state.rows.add("row", body.model_dump_json().encode())
        return _answer(body)

    app.add_api_route("/livez", livez)
    app.add_api_route("/echo", echo, methods=["POST"])
    app.add_api_route("/insert", insert, methods=["POST"])
    return app


def _answer(body: Asked) -> Answered:
    now = datetime.now(UTC)  # noqa: TID251 - the baseline has no clock of its own
    return Answered(
        request_id=body.request_id or "made-here",
        status="completed",
        payload=body.payload,
        timestamp=now,
        metadata=body.metadata,
    )
