"""Serves one data directory over HTTP until it is told to stop."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from casekeeper.asgi import create_app
from casekeeper.cli.exits import INTERRUPTED, UNAVAILABLE, Stop
from casekeeper.cli.opening import HOLDER, opened_server
from casekeeper.server import Server
from casekeeper.settings import Settings

T = TypeVar("T")

# Operations have ended by then, and been told: this is for answers on their way and downloads.
_GRACE_S = 2
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


class Web(uvicorn.Server):
    """uvicorn, told to stop by us: its own handling of signals would end the process before the store is closed."""

    def __init__(self, server: Server, host: str) -> None:
        app = create_app(server.settings)
        app.state.server = server
        config = uvicorn.Config(
            app,
            host=host,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def serving(
    settings: Settings, bound: socket.socket | None = None
) -> AsyncGenerator[tuple[Server, str]]:
    """The server of a directory and its address; while the context lasts, it answers.

    `bound` is a port that is bound already, and told of, by whoever shares it out.

    Raises:
        CannotStart: The directory is in use or too new, the store or the settings cannot be used.
        Stop: The port is taken.
    """
    async with opened_server(settings) as server:
        if bound is not None:
            async with _answering(server, bound):
                yield server, url_of(settings.host, bound.getsockname()[1])
            return
        with bind(settings.host, settings.port) as own:
            async with _answering(server, own):
                with holding(settings, own) as url:
                    yield server, url


@asynccontextmanager
async def _answering(server: Server, bound: socket.socket) -> AsyncGenerator[None]:
    web = Web(server, server.settings.host)
    task = asyncio.create_task(web.serve([bound]))
    ready = asyncio.create_task(web.ready.wait())
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if task.done():
        task.result()
        raise Stop("The server ended before it began.", UNAVAILABLE)
    # What has been built stays as long as the server: a full collection, which stops everybody, need not look at it.
    # From here on Python's own threshold: what is young then fits into the processor's cache.
    gc.freeze()
    gc.set_threshold(700, 10, 10)
    try:
        yield
    finally:
        await server.drain()
        web.should_exit = True
        await task


@contextlib.contextmanager
def holding(settings: Settings, bound: socket.socket) -> Generator[str]:
    """The address of a bound port, which is written down for other commands while the context lasts."""
    path, port = settings.data / HOLDER, bound.getsockname()[1]
    reachable = url_of(_EVERYWHERE.get(settings.host, settings.host), port)
    _write(path, {"url": reachable, "pid": os.getpid()})
    try:
        yield url_of(settings.host, port)
    finally:
        path.unlink(missing_ok=True)


def _leave() -> None:
    """End at once, as a crash would: what is acknowledged is on disk, what runs is closed by the next start."""
    os._exit(INTERRUPTED)


@contextlib.contextmanager
def stopping(leave: Callable[[], None] = _leave) -> Generator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set. Whoever presses Ctrl-C once more does not want to wait, and `leave` is called."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def interrupted() -> None:
        if stop.is_set():
            leave()
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def run_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run on the fastest event loop that there is; SIGTERM ends the work as Ctrl-C does, in order."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # That a follower of a stream was cut off at the end is no news.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    # It logs each attempt to connect with a traceback; that the store is unavailable is logged once, by us.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main())


class _Lines(logging.Formatter):
    """One line a record, with the user id where it is known: refused logins are told by it."""

    def format(self, record: logging.LogRecord) -> str:
        user_id = getattr(record, "user_id", None)
        return super().format(record) + (f" user_id={user_id}" if user_id else "")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        Stop: The port is taken, or the address is not ours.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise Stop(
            f"Cannot listen on {url_of(host, port)}: {error.strerror or error}.", UNAVAILABLE
        ) from error


def url_of(host: str, port: int) -> str:
    """How a host and a port are written."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _write(path: Path, value: dict[str, Any]) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(value), "utf-8")
    aside.replace(path)
