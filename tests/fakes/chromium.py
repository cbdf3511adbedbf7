"""A real browser without a window: Debian's `chromium`, or what `TEST_CHROMIUM` names."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.support import unavailable

_SECONDS = 60


class Chromium:
    """One profile: what one page leaves, such as cookies, the next one has."""

    def __init__(self, profile: Path) -> None:
        named = os.environ.get("TEST_CHROMIUM", "chromium")  # noqa: TID251 - where tests find programs is no setting
        self._command = shutil.which(named) or unavailable("chromium")
        self._profile = profile

    async def open(self, url: str) -> str:
        """Open a page, let its scripts and what they ask for come to their end, and return what it shows then."""
        async with self._running("--virtual-time-budget=10000", "--dump-dom", url) as process:
            shown, _ = await process.communicate()
        return shown.decode()

    @asynccontextmanager
    async def showing(self, url: str) -> AsyncGenerator[None]:
        """A page that is open, wherever it leads, until this ends."""
        async with self._running("--remote-debugging-port=0", url):
            yield

    @asynccontextmanager
    async def _running(self, *arguments: str) -> AsyncGenerator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            self._command,
            "--headless=new",
            # Tests may run as root, which its sandbox refuses.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            f"--user-data-dir={self._profile}",
            # Every name is this machine.
            "--host-resolver-rules=MAP * 127.0.0.1",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_SECONDS):
                yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
