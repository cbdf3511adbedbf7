"""What asks issuers, against servers that answer in every wrong way."""

import asyncio
import gzip
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from casekeeper.identity.fetching import BYTES_MAX, Fetcher
from casekeeper.identity.published import FetchFailed

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncGenerator[str]:
    """A server on loopback that answers so; its address."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            await answer(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/"


def saying(head: str, body: bytes = b"") -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {head}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()

    return answer


async def test_a_document_is_fetched():
    async with serving(saying("200 OK", b'{"keys": []}')) as url:
        assert await Fetcher()(url) == b'{"keys": []}'


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x" * 65536)
        await writer.drain()


async def _slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "answer",
    [
        saying("404 Not Found"),
        saying("204 No Content"),
        saying("200 OK\r\nContent-Encoding: gzip", gzip.compress(b"x" * 10**7)),
        saying("200 OK", b"x" * (BYTES_MAX + 1)),
        saying("200 OK\r\nContent-Length: 99", b"cut short"),
        saying("nonsense"),
        _endless,
        _slow,
    ],
    ids=["missing", "empty", "compressed", "huge", "short", "no HTTP", "endless", "slow"],
)
async def test_what_is_no_good_answer_is_none(answer: Answer):
    async with serving(answer) as url:
        with pytest.raises(FetchFailed):
            await Fetcher(deadline_s=1)(url)


async def test_a_form_is_sent_and_any_status_is_told():
    heard: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readexactly(len(b"code=a%26b")))
        await saying("400 Bad Request", b'{"error":"invalid_grant"}')(reader, writer)

    async with serving(refuse) as url:
        fetch = Fetcher()
        for _ in range(2):
            told = await fetch.post(url, {"code": "a&b"}, {"Authorization": "Basic eDp4"})
            assert told == (400, b'{"error":"invalid_grant"}')
    assert heard == [b"code=a%26b"] * 2


async def test_a_redirect_is_not_followed():
    asked: list[str] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append("elsewhere")
        await saying("200 OK", b"{}")(reader, writer)

    async with (
        serving(elsewhere) as other,
        serving(saying(f"302 Found\r\nLocation: {other}")) as url,
    ):
        with pytest.raises(FetchFailed):
            await Fetcher()(url)

    assert asked == []


async def test_nobody_there_is_told_as_such():
    with pytest.raises(FetchFailed):
        await Fetcher()("http://127.0.0.1:9/")
    with pytest.raises(FetchFailed):
        await Fetcher()("https://[broken")


async def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with serving(saying("200 OK", b"{}")) as url:
        assert await Fetcher()(url) == b"{}"


async def test_the_loop_goes_on_while_an_issuer_is_slow():
    async with serving(_slow) as url:
        asking = asyncio.create_task(Fetcher(deadline_s=1)(url))
        turns = 0
        while not asking.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert turns > 20
        with pytest.raises(FetchFailed):
            await asking
