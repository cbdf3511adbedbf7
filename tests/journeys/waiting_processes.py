"""Server processes of the tests' own: forked in milliseconds, and killed, told to stop or held up at any moment."""

import asyncio
import atexit
import functools
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.journeys.support import ROOT, request
from tests.journeys.waiting_servers import WANTED, Wanted

# Nothing is measured here: what is not there by then never comes, however busy the machine is.
PATIENCE_S = 90.0


class _Nursery:
    """The process that forks servers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.journeys.waiting_servers"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()

    def fork(self, wanted: Wanted) -> int:
        """Start a server; returns its pid."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(WANTED.dump_json(wanted).decode() + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it, with all servers that are left."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@dataclass(eq=False)
class Process:
    """One server process."""

    pid: int
    port: int

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return Path(f"/proc/{self.pid}").exists()

    def kill(self) -> None:
        """End it as a power cut would, as far as a process can tell."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Tell it to stop."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def hold_up(self) -> None:
        """Let it stand still, as a machine does that is paused."""
        os.kill(self.pid, signal.SIGSTOP)

    def let_go(self) -> None:
        """Let it go on, as if nothing had happened."""
        os.kill(self.pid, signal.SIGCONT)

    async def gone(self) -> None:
        """Returns when it has ended, with all of its threads: until then the last of them holds what it has locked."""
        async with asyncio.timeout(PATIENCE_S):
            while self.lives:
                await asyncio.sleep(0.01)

    async def answers(self) -> bool:
        """Whether it serves."""
        try:
            return (await request(self.port, "GET", "/livez")).status == 200
        except (OSError, EOFError):
            return False


@functools.cache
def _nursery() -> _Nursery:
    nursery = _Nursery()
    atexit.register(nursery.close)
    return nursery


def forked(wanted: Wanted) -> Process:
    """A server that is on its way."""
    return Process(_nursery().fork(wanted), wanted.port)
