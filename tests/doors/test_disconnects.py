"""Clients that go away: what they asked for twice goes on, anything else ends cleanly, and nothing stays open."""

import asyncio
import json
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from casekeeper.server import Server
from tests.doors.test_streams import execute
from tests.support import Api, House, Json, Workshop


class Line:
    """A connection over which one call was sent; `cut` breaks it off."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def call(cls, url: str, token: str, body: dict[str, Any], accept: str = "*/*") -> "Line":
        """Connect and send an execute."""
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        sent = json.dumps(body).encode()
        head = (
            "POST /v1/sessions/execute HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\nAccept: {accept}\r\nContent-Length: {len(sent)}\r\n\r\n"
        )
        writer.write(head.encode() + sent)
        await writer.drain()
        return cls(reader, writer)

    async def cut(self) -> None:
        """Go away without a word."""
        self.writer.transport.abort()
        await asyncio.sleep(0)


async def ends(api: Api, count: int = 1) -> list[str]:
    """The kinds of the terminal facts, when there are that many."""
    async with asyncio.timeout(10):
        while True:
            kinds = [kind for _, kind, _ in await api.facts()]
            found = [kind for kind in kinds if kind in ("succeeded", "failed", "cancelled", "interrupted")]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


ACCEPTS = pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])


@ACCEPTS
async def test_a_run_nobody_can_ask_for_again_is_cancelled(
    api: Api, house: House, url: str, workshop: Workshop, accept: str
) -> None:
    line = await Line.call(url, house["owner"], execute(house, "waits"), accept)
    await workshop.until_running("waits")
    await asyncio.sleep(0.1)
    await line.cut()
    assert (await ends(api), workshop.ended["waits"]) == (["cancelled"], 1)


@ACCEPTS
async def test_a_run_with_a_request_id_goes_on(
    api: Api, house: House, url: str, workshop: Workshop, accept: str
) -> None:
    line = await Line.call(url, house["owner"], execute(house, "waits", request_id="r1"), accept)
    await workshop.until_running("waits")
    await asyncio.sleep(0.1)
    await line.cut()
    await asyncio.sleep(0.2)
    workshop.release.set()
    assert await ends(api) == ["succeeded"]


@ACCEPTS
async def test_a_background_run_goes_on(
    api: Api, house: House, url: str, workshop: Workshop, accept: str
) -> None:
    line = await Line.call(url, house["owner"], execute(house, "waits", mode="background"), accept)
    await workshop.until_running("waits")
    await asyncio.sleep(0.1)
    await line.cut()
    await asyncio.sleep(0.2)
    workshop.release.set()
    assert await ends(api) == ["succeeded"]


@contextmanager
def busy(server: Server) -> Generator[None]:
    """Another process holds the database's write lock, so that every commit takes its time."""
    with closing(sqlite3.connect(server.settings.data / "casekeeper.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("request_id", [None, "r1"])
async def test_going_away_while_the_start_is_being_written_leaves_nothing_open(
    api: Api, house: House, url: str, server: Server, request_id: str | None
) -> None:
    more: Json = {"request_id": request_id} if request_id else {}
    session_id = await api.session(house["owner"], house.casefile_id)
    with busy(server):
        line = await Line.call(url, house["owner"], execute(house, "noop", session_id=session_id, **more))
        await asyncio.sleep(0.3)
        await line.cut()
        await asyncio.sleep(0.1)
    assert len(await ends(api)) == 1
    got = await api.ask("/v1/sessions/get", {"session_id": session_id}, token=house["owner"])
    assert got["open"] == []


async def test_two_hundred_clients_that_go_away_leave_the_server_healthy(
    api: Api, house: House, url: str, workshop: Workshop
) -> None:
    lines = await asyncio.gather(
        *(Line.call(url, house["owner"], execute(house, "waits")) for _ in range(200))
    )
    await workshop.until_running("waits", 200)
    for line in lines:
        await line.cut()
    assert await ends(api, 200) == ["cancelled"] * 200
    ready = await api.get("/readyz")
    ran = await api.run(house["owner"], "noop", casefile_id=house.casefile_id)
    assert (ready.status_code, ran.json()["payload"]["success"]) == (200, True)


async def test_an_upload_that_breaks_off_keeps_nothing(
    api: Api, house: House, url: str, server: Server
) -> None:
    address = urlsplit(url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    head = (
        f"POST /v1/documents/upload?casefile_id={house.casefile_id}&filename=a.mbox HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {house['owner']}\r\nContent-Length: 1000000\r\n\r\n"
    )
    writer.write(head.encode() + b"x" * 100_000)
    await writer.drain()
    await asyncio.sleep(0.2)
    writer.transport.abort()
    await asyncio.sleep(0.3)
    blobs = server.settings.data / "blobs"
    assert [path for path in blobs.rglob("*") if path.is_file()] == []
