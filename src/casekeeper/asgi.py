"""Puts the doors together into one ASGI application."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from casekeeper.doors.http.app import build_app
from casekeeper.server import Server, open_server
from casekeeper.settings import Settings, read_settings

Opening = Callable[[], AbstractAsyncContextManager[Server]]


def create_app(settings: Settings | None = None, *, opening: Opening | None = None) -> FastAPI:
    """The application of a server with these settings, or of one that is opened otherwise."""
    opened = opening or (lambda: open_server(settings or read_settings()))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with opened() as server:
            app.state.server = server
            yield

    return build_app(lifespan)
