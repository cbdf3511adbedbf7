"""Several server processes behind one port: `casekeeper serve --workers N`.

The first process binds the port and prepares the store, once. From then on it only watches: it starts workers that share
the port, starts another in place of one that died, and passes on that all shall stop. Nothing of it is shared but the
port, so a worker is like any other process on the store.
"""

import asyncio
import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from casekeeper.cli.exits import FAULT, INTERRUPTED, UNAVAILABLE, Stop, say, told
from casekeeper.cli.opening import opened_server
from casekeeper.cli.serving import bind, holding, run_loop, serving, stopping
from casekeeper.errors import CasekeeperError
from casekeeper.values import value

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from casekeeper.identity.opening import FirstLogin
    from casekeeper.settings import Settings

# A worker that stood so long was a good one.
_LIVED_S = 30.0
# Past the time that a worker takes by its settings (see `Server.drain`).
_PATIENCE_S = 15.0

# A fresh interpreter each: what a fork would inherit (threads, loops, connections) is no good to anybody.
_SPAWN = multiprocessing.get_context("spawn")

_log = logging.getLogger("casekeeper.workers")


@value
class Patience:
    """How often a worker that dies early is replaced, and after which pauses, each twice the one before.

    With ten tries that is about a minute; then something is wrong that another one does not mend.
    """

    tries: int = 10
    pause_s: float = 0.5
    pause_max_s: float = 8.0


async def supervise(
    settings: "Settings",
    prepared: "Callable[[FirstLogin | None], None]",
    ready: Callable[[str], None],
    patience: Patience | None = None,
) -> None:
    """Serve with `settings.workers` processes until told to stop.

    `prepared` is called when the store is, with the operator's login if it was made; `ready` with the address, when
    every worker answers.

    Raises:
        CannotStart: The store cannot be opened.
        Stop: The port is taken, or workers end again and again.
    """
    living: dict[int, SpawnProcess] = {}

    def leave() -> None:
        for process in living.values():
            process.kill()
        os._exit(INTERRUPTED)

    with stopping(leave) as stop:
        bound = bind(settings.host, settings.port)
        async with opened_server(settings, use="prepare") as server:
            first = server.first_login
        prepared(first)
        with holding(settings, bound) as url:
            crew = _Crew(settings, bound, partial(ready, url), living, patience or Patience())
            stopped = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait((stopped, *crew.places), return_when=asyncio.FIRST_COMPLETED)
                for place in crew.places:
                    if place.done():
                        place.result()
            finally:
                stopped.cancel()
                bound.close()
                await crew.end()


class _Crew:
    """All workers. Each has a place, in which another follows when it dies."""

    def __init__(
        self,
        settings: "Settings",
        bound: socket.socket,
        ready: Callable[[], None],
        living: "dict[int, SpawnProcess]",
        patience: Patience,
    ) -> None:
        self._patience = patience
        self._settings = settings
        self._bound = bound
        self._ready = ready
        self._awaited = set(range(settings.workers))
        self._living = living
        self._ending = asyncio.Event()
        self.places = [asyncio.create_task(self._fill(place)) for place in range(settings.workers)]

    async def end(self) -> None:
        """Tell all to stop, and wait as long as they may take.

        Raises:
            Stop: Some did not, and were killed.
        """
        self._ending.set()
        for process in self._living.values():
            process.terminate()
        within_s = self._settings.stop_delay_s + self._settings.drain_s + _PATIENCE_S
        await asyncio.wait(self.places, timeout=within_s)
        stubborn = list(self._living.values())
        for process in stubborn:
            process.kill()
        if stubborn:
            raise Stop(f"{len(stubborn)} workers did not stop and were killed.", FAULT)

    async def _fill(self, place: int) -> None:
        loop, early = asyncio.get_running_loop(), 0
        while not self._ending.is_set():
            began_s = loop.time()
            code = await self._one(place)
            if self._ending.is_set():
                return
            early = 1 if loop.time() - began_s > _LIVED_S else early + 1
            if early == self._patience.tries:
                raise Stop(
                    f"A worker ended {early} times in a row, at last with exit code {code}.", UNAVAILABLE
                )
            _log.warning("a worker ended with exit code %s; another takes its place", code)
            with suppress(TimeoutError):
                pause_s = self._patience.pause_s * 2 ** (early - 1)
                async with asyncio.timeout(min(pause_s, self._patience.pause_max_s)):
                    await self._ending.wait()

    async def _one(self, place: int) -> int | None:
        """The life of one worker; returns its exit code."""
        ours, theirs = _SPAWN.Pipe(duplex=False)
        arguments = (_of_place(self._settings, place), self._bound, theirs)
        process = self._living[place] = _SPAWN.Process(target=_work, args=arguments)
        try:
            process.start()
            theirs.close()
            await _readable(ours.fileno())
            # The end of the file: it died before it was ready.
            with suppress(EOFError):
                ours.recv()
                self._awaited.discard(place)
                if not self._awaited and not self._ending.is_set():
                    self._ready()
                    self._ready = _nothing
            await _readable(process.sentinel)
            process.join()
            return process.exitcode
        finally:
            ours.close()
            del self._living[place]


def _nothing() -> None:
    """Only the first time is logged."""


def _of_place(settings: "Settings", place: int) -> "Settings":
    """The settings of one worker: a search index beside the store is a file that one process writes."""
    search = settings.search or settings.data / "search.db"
    return (
        settings.model_copy(update={"search": search.with_stem(f"{search.stem}-{place}")})
        if place
        else settings
    )


async def _readable(number: int) -> None:
    """Returns when there is something to read from a file, be it its end."""
    loop = asyncio.get_running_loop()
    found = loop.create_future()
    loop.add_reader(number, lambda: found.done() or found.set_result(None))
    try:
        await found
    finally:
        loop.remove_reader(number)


def _work(settings: "Settings", bound: socket.socket, ready: Connection) -> None:
    """A worker, from beginning to end."""
    try:
        run_loop(partial(_serve, settings, bound, ready))
    except Stop as stop:
        say(f"error: {stop}")
        sys.exit(stop.code)
    except CasekeeperError as error:
        sys.exit(told(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(INTERRUPTED)


async def _serve(settings: "Settings", bound: socket.socket, ready: Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    with stopping() as stop:
        # Nobody would ever tell a worker to stop whose parent was killed.
        gone = asyncio.create_task(_readable(parent.sentinel))
        gone.add_done_callback(lambda _: stop.set())
        async with serving(settings, bound):
            ready.send(None)
            await stop.wait()
        gone.cancel()
