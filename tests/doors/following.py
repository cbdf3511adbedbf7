"""Server-sent events as a client reads them."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.support import bearer


@dataclass(frozen=True)
class Frame:
    """One event of a stream."""

    event: str
    data: Any
    id: int | None = None


async def frames(response: httpx2.Response) -> AsyncIterator[Frame]:
    """The events of a response, as they come (WHATWG HTML §9.2.6)."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "event" in fields:
            seq = int(fields["id"]) if "id" in fields else None
            yield Frame(fields["event"], json.loads(fields["data"]), seq)
            fields = {}
        else:
            fields = {}


@asynccontextmanager
async def follow(
    url: str, session_id: str, token: str, query: str = "", **headers: str
) -> AsyncGenerator[AsyncIterator[Frame]]:
    """The events of a session's live stream."""
    async with (
        httpx2.AsyncClient(base_url=url, timeout=10) as http,
        http.stream(
            "GET", f"/v1/sessions/{session_id}/events/stream{query}", headers=bearer(token) | headers
        ) as response,
    ):
        assert response.status_code == 200
        yield frames(response)


async def take(stream: AsyncIterator[Frame], count: int) -> list[Frame]:
    """The next so many events."""
    return [await anext(stream) for _ in range(count)]
