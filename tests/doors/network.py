"""A network that fails on demand, between the SDK and a real server in the same process."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2

from casekeeper.asgi import create_app
from casekeeper.cli.inprocess import AppTransport
from casekeeper.server import Server

Forward = Callable[[httpx2.Request], Awaitable[httpx2.Response]]
Trouble = Callable[[httpx2.Request, Forward], Awaitable[httpx2.Response]]


class Network(httpx2.AsyncBaseTransport):
    """Carries requests to the server; each planned trouble meets one request to its path."""

    def __init__(self, server: Server) -> None:
        app = create_app()
        app.state.server = server
        self._app = AppTransport(app)
        self._troubles: list[tuple[str, Trouble]] = []
        self.paths: list[str] = []

    def plan(self, path: str, *troubles: Trouble) -> None:
        """The next requests to this path meet these troubles, in order."""
        self._troubles += [(path, trouble) for trouble in troubles]

    def count(self, path: str) -> int:
        """How many requests went to the path."""
        return self.paths.count(path)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The server's response, unless trouble comes first."""
        path = request.url.path
        self.paths.append(path)
        for planned in self._troubles:
            if planned[0] == path:
                self._troubles.remove(planned)
                return await planned[1](request, self._app.handle_async_request)
        return await self._app.handle_async_request(request)


async def unreached(request: httpx2.Request, forward: Forward) -> httpx2.Response:
    """The request does not arrive."""
    raise httpx2.ConnectError("refused by the test", request=request)


async def reply_lost(request: httpx2.Request, forward: Forward) -> httpx2.Response:
    """The request arrives and is answered; the answer does not come back."""
    response = await forward(request)
    await response.aread()
    await response.aclose()
    raise httpx2.ReadError("cut off by the test", request=request)


def answers(status: int, problem: dict[str, Any] | None = None, **headers: str) -> Trouble:
    """Something in between answers instead of the server."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}

    async def trouble(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        return httpx2.Response(status, json=problem or {}, headers=sent)

    return trouble


def cut_after(marker: bytes) -> Trouble:
    """The response breaks off behind the chunk that contains the marker."""

    async def trouble(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        response = await forward(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        body = _Cut(response.stream, marker)
        return httpx2.Response(response.status_code, headers=response.headers, stream=body)

    return trouble


class _Cut(httpx2.AsyncByteStream):
    def __init__(self, behind: httpx2.AsyncByteStream, marker: bytes) -> None:
        self._behind = behind
        self._marker = marker

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        async for chunk in self._behind:
            yield chunk
            if self._marker in chunk:
                raise httpx2.ReadError("cut off by the test")

    async def aclose(self) -> None:
        await self._behind.aclose()
