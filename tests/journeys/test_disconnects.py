"""Clients that go away in the middle of things, by the hundred, and a server that stays well."""

import asyncio
import gc
import logging
import socket
import sqlite3
import struct
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from casekeeper.execution.runner import Running
from casekeeper.journal.feed import Watch
from casekeeper.server import Server
from tests.journeys.support import (
    Answer,
    bearing,
    envelope,
    open_listening_server,
    request,
    request_bytes,
    tool_call,
)
from tests.support import Api, Json, Workshop

CLIENTS = 200
# Closing without the usual farewell: the server learns of it by a reset.
_RESET = struct.pack("ii", 1, 0)

pytestmark = pytest.mark.timeout(120)


@dataclass
class Site:
    """A server behind sockets, with a casefile and a session to work in."""

    server: Server
    port: int
    workshop: Workshop
    token: str
    casefile_id: str
    session_id: str

    async def call(self, path: str, payload: Json, request_id: str | None = None) -> Answer:
        """A call whose client stays."""
        return await request(self.port, "POST", path, envelope(payload, request_id), bearing(self.token))

    async def run(self, tool: str, request_id: str | None = None) -> Answer:
        """Execute a tool and wait for its end."""
        payload = tool_call(tool, session_id=self.session_id)
        return await self.call("/v1/sessions/execute", payload, request_id)

    async def send(self, data: bytes) -> socket.socket:
        """Send bytes and leave the connection open."""
        connection, loop = socket.socket(), asyncio.get_running_loop()
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", self.port))
        await loop.sock_sendall(connection, data)
        return connection

    async def begin(self, tool: str, request_id: str | None = None, **headers: str) -> socket.socket:
        """Send an execute and leave the connection open."""
        body = envelope(tool_call(tool, session_id=self.session_id), request_id)
        data = request_bytes("POST", "/v1/sessions/execute", body, bearing(self.token, **headers))
        return await self.send(data)

    def rows(self, sql: str) -> list[Any]:
        """What the store holds, read past the server: works only if nobody has locked it."""
        with closing(sqlite3.connect(self.server.settings.data / "casekeeper.db", timeout=1)) as connection:
            return connection.execute(sql).fetchall()

    def kinds(self) -> Counter[str]:
        """How many facts of each kind there are in the session."""
        sql = f"SELECT kind FROM events WHERE session_id = '{self.session_id}'"
        return Counter(row[0] for row in self.rows(sql))

    async def is_well(self) -> bool:
        """Whether calls get their answers, writes are taken, and nothing is left over."""
        answers = [await self.run("noop") for _ in range(20)]
        created = await self.call("/v1/sessions/create", {"casefile_id": self.casefile_id})
        left = self.rows("SELECT event_id FROM open_operations")
        return all(a.json["payload"]["success"] for a in answers) and created.status == 200 and left == []


@pytest.fixture
async def site(tmp_path: Path, workshop: Workshop) -> AsyncGenerator[Site]:
    async with (
        open_listening_server(tmp_path / "data", workshop) as (server, port),
        Api.of(server) as api,
    ):
        _, token = await api.user("worker")
        casefile_id = await api.casefile(token)
        session_id = await api.session(token, casefile_id)
        yield Site(server, port, workshop, token, casefile_id, session_id)


async def eventually(holds: Callable[[], bool], within_s: float = 30) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.02)


def vanish(client: socket.socket, *, politely: bool) -> None:
    """Go away, with or without a farewell."""
    if not politely:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()


def alive(kind: type) -> int:
    """How many objects of a class are left in memory."""
    gc.collect()
    return sum(isinstance(thing, kind) for thing in gc.get_objects())


async def test_runs_that_nobody_can_ask_for_again_end_cancelled(site: Site) -> None:
    clients = [await site.begin("waits") for _ in range(CLIENTS)]
    await site.workshop.until_running("waits", CLIENTS)

    for number, client in enumerate(clients):
        vanish(client, politely=number % 2 == 0)

    await eventually(lambda: site.kinds()["cancelled"] == CLIENTS)
    assert site.workshop.ended["waits"] == CLIENTS
    assert await site.is_well()
    assert alive(Running) == 0


async def test_runs_that_can_be_asked_for_again_go_on_to_their_end(site: Site) -> None:
    clients = [await site.begin("waits", f"again-{number}") for number in range(CLIENTS)]
    await site.workshop.until_running("waits", CLIENTS)
    for number, client in enumerate(clients):
        vanish(client, politely=number % 2 == 0)
    # Longer than the server takes to see that a client has gone.
    await asyncio.sleep(0.5)
    assert site.kinds()["cancelled"] == 0

    site.workshop.release.set()
    await eventually(lambda: site.kinds()["succeeded"] == CLIENTS)

    again = [await site.run("waits", f"again-{number}") for number in range(0, CLIENTS, 10)]
    assert {a.json["payload"]["outputs"] for a in again} == {"released"}
    assert {a.headers["idempotency-replayed"] for a in again} == {"true"}
    assert site.workshop.runs["waits"] == CLIENTS
    assert await site.is_well()


async def test_clients_that_go_away_while_the_start_is_being_written_leave_nothing_open(site: Site) -> None:
    for number in range(CLIENTS):
        client = await site.begin("echo" if number % 2 else "waits")
        vanish(client, politely=number % 3 == 0)

    await eventually(lambda: site.rows("SELECT event_id FROM open_operations") == [])
    assert await site.is_well()
    kinds = site.kinds()
    assert kinds["started"] == kinds["succeeded"] + kinds["cancelled"]


async def test_readers_of_a_streamed_run_that_vanish_end_it(site: Site) -> None:
    clients = [await site.begin("waits", accept="text/event-stream") for _ in range(50)]
    await site.workshop.until_running("waits", 50)

    for number, client in enumerate(clients):
        vanish(client, politely=number % 2 == 0)

    await eventually(lambda: site.kinds()["cancelled"] == 50)
    await eventually(lambda: alive(Watch) == 0)
    assert await site.is_well()


async def test_followers_of_a_record_that_vanish_are_forgotten(site: Site) -> None:
    path = f"/v1/sessions/{site.session_id}/events/stream"
    data = request_bytes("GET", path, headers=bearing(site.token))
    clients = [await site.send(data) for _ in range(100)]
    await eventually(lambda: alive(Watch) == 100)

    for number, client in enumerate(clients):
        vanish(client, politely=number % 2 == 0)
    await site.run("noop")

    await eventually(lambda: alive(Watch) == 0)
    assert await site.is_well()


async def test_uploads_cut_off_in_the_middle_leave_no_bytes(site: Site) -> None:
    await _cut_off_uploads(site)

    assert site.rows("SELECT upload_id FROM uploads") == []
    assert await site.is_well()


async def test_an_upload_that_was_cut_off_is_no_incident(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        await _cut_off_uploads(site)

    assert [r.getMessage() for r in caplog.records if r.name.startswith("casekeeper")] == []


async def _cut_off_uploads(site: Site) -> None:
    path = f"/v1/documents/upload?casefile_id={site.casefile_id}&filename=half.mbox"
    head = request_bytes(
        "POST", path, headers={"authorization": f"Bearer {site.token}", "content-length": "1000000"}
    ).replace(b"content-length: 0\r\n", b"")
    clients = [await site.send(head + b"x" * 100_000) for _ in range(50)]
    folder = site.server.settings.data / "blobs"
    await eventually(lambda: len(_files(folder)) == 50)
    for number, client in enumerate(clients):
        vanish(client, politely=number % 2 == 0)
    await eventually(lambda: _files(folder) == [])


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_half_sent_headers_and_bodies_hold_nobody_up(site: Site) -> None:
    whole = request_bytes(
        "POST",
        "/v1/sessions/execute",
        envelope(tool_call("noop", session_id=site.session_id)),
        bearing(site.token),
    )
    clients = [await site.send(whole[: len(whole) * number // 100]) for number in range(1, 100)]

    assert await site.is_well()
    for client in clients:
        vanish(client, politely=True)
    assert await site.is_well()
    assert site.kinds()["started"] == 40


async def test_nothing_of_all_this_stays_in_memory(site: Site) -> None:
    shop = site.workshop

    async def wave() -> None:
        goal = shop.runs["waits"] + 50
        clients = [await site.begin("waits") for _ in range(50)]
        await shop.until_running("waits", goal)
        for client in clients:
            vanish(client, politely=False)
        await eventually(lambda: shop.ended["waits"] == goal)
        await eventually(lambda: site.rows("SELECT event_id FROM open_operations") == [])
        await asyncio.sleep(0.1)

    await wave()
    before = len(asyncio.all_tasks())
    for _ in range(3):
        await wave()

    assert len(asyncio.all_tasks()) <= before
    assert alive(Running) == 0
