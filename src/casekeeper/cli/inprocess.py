"""HTTP without a network: a transport to an application in the same process, streams included."""

import asyncio
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import httpx2
from starlette.types import ASGIApp


class AppTransport(httpx2.AsyncBaseTransport):
    """Carries requests to an ASGI application. Unlike httpx2's own, it hands on the response while it is made."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response, as soon as its head is there."""
        exchange = _Exchange(request)
        task = asyncio.create_task(self._run(exchange))
        head = await exchange.messages.get()
        if isinstance(head, BaseException):
            raise head
        return httpx2.Response(head["status"], headers=head["headers"], stream=_Body(exchange, task))

    async def _run(self, exchange: "_Exchange") -> None:
        try:
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except Exception as error:
            # The outermost door of the process: who asked is told, nobody else is there.
            exchange.messages.put_nowait(error)


class _Exchange:
    """One request and its response as ASGI sees them."""

    def __init__(self, request: httpx2.Request) -> None:
        url = request.url
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.split(b"?")[0],
            "query_string": url.query,
            "server": (url.host, url.port),
            "client": None,
            "root_path": "",
        }
        stream = request.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        self._chunks = aiter(stream)
        self._sent = False
        self._gone = asyncio.Event()
        self.messages: asyncio.Queue[Any] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        """The request's body, then nothing until the client goes away."""
        if self._sent:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        try:
            return {"type": "http.request", "body": await anext(self._chunks), "more_body": True}
        except StopAsyncIteration:
            self._sent = True
            return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """The response, piece by piece."""
        self.messages.put_nowait(message)

    def leave(self) -> None:
        """The client goes away."""
        self._gone.set()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, exchange: _Exchange, task: "asyncio.Task[None]") -> None:
        self._exchange = exchange
        self._task = task
        self._complete = False

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        while not self._complete:
            message = await self._exchange.messages.get()
            if isinstance(message, BaseException):
                raise httpx2.ReadError(f"The application failed: {message!r}") from message
            self._complete = not message.get("more_body", False)
            if message.get("body"):
                yield message["body"]

    async def aclose(self) -> None:
        self._exchange.leave()
        if not self._complete:
            self._task.cancel()
        await asyncio.wait((self._task,))
