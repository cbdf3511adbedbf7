"""A process that has everything imported and forks servers on demand, any number: `python -m tests.journeys.waiting_servers`.

Each line of standard input asks for one (`Wanted`, in JSON) and is answered with its pid. A fork costs a few milliseconds
where a new interpreter would import for a second; nothing is shared but what a fresh interpreter would have imported as
well. A server is put together and told to stop as `casekeeper serve` does it, but it looks for lost processes all the time,
and it has tools of a test's own.
"""

import asyncio
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NoReturn

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as validated

from casekeeper.cli.serving import Web, bind, run_loop, stopping
from casekeeper.operations.tools import Tool
from casekeeper.server import Server, open_server
from casekeeper.settings import Settings

# A product's server looks every half minute for what a lost process has left; a test that kills ten would wait too long.
_SWEEP = timedelta(seconds=0.5)


@validated(frozen=True)
class Wanted:
    """A server that is to be started. `tools`: `module:function` of a `MakesTools`."""

    data: Path
    store: str
    search: Path
    port: int
    marks: Path
    log: Path
    tools: str
    drain_s: float


WANTED = TypeAdapter(Wanted)


@dataclass
class Home:
    """What the tools of one server process share. `marks` is a directory in which they leave traces."""

    marks: Path
    opened: list[Server] = field(default_factory=list[Server])

    @property
    def server(self) -> Server:
        """The server that they run in."""
        return self.opened[0]

    def mark(self, name: str, *words: object) -> None:
        """Add a line to a file, which is there whatever happens to the process a moment later."""
        line = " ".join(map(str, words))
        trace = os.open(self.marks / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(trace, f"{line}\n".encode())
        finally:
            os.close(trace)

    def dies_here(self, point: str) -> None:
        """Lose the process, without a word to anybody, where a test has asked for it (`die-POINT`), once."""
        try:
            (self.marks / f"die-{point}").unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    async def comes(self, name: str) -> None:
        """Returns when there is a file of this name."""
        while not (self.marks / name).exists():
            await asyncio.sleep(0.01)


MakesTools = Callable[[Home], Sequence[Tool]]
"""The tools of one server process."""


def tools_of(name: str) -> MakesTools:
    """The function that makes the tools, by `module:function`."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


async def serve(wanted: Wanted) -> None:
    """Serve until told to stop."""
    home = Home(wanted.marks)
    settings = Settings(
        data=wanted.data,
        store=wanted.store,
        search=wanted.search,
        port=wanted.port,
        limit_user=0,
        limit_casefile=0,
        drain_s=wanted.drain_s,
    )
    with stopping() as stop:
        async with open_server(settings, tools=tools_of(wanted.tools)(home), sweep_every=_SWEEP) as server:
            home.opened.append(server)
            web = Web(server, settings.host)
            answering = asyncio.create_task(web.serve([bind(settings.host, settings.port)]))
            await stop.wait()
            await server.drain()
            web.should_exit = True
            await answering


def run_here(wanted: Wanted) -> NoReturn:
    """Be that server, to the end of the process."""
    os.dup2(os.open(wanted.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), sys.stderr.fileno())
    try:
        run_loop(partial(serve, wanted))
    except BaseException:
        traceback.print_exc()
    finally:
        # Not through the parent's clean-up, which is not this process's.
        os._exit(0)


def main() -> None:
    """Fork a server for each line of standard input; when there are no more, end all that still live."""
    # The dead are forgotten by the system at once: others on this machine look whether a process is there.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        wanted = WANTED.validate_json(line)
        # What the tests bring is imported once, too.
        tools_of(wanted.tools)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.stdin.close()
            run_here(wanted)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)


if __name__ == "__main__":
    main()
