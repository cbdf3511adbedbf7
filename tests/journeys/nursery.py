"""A process that has everything imported and forks servers on demand: `python nursery.py DATA PORT MARKS`.

`start` on standard input forks one and answers its pid; killed, the next `start` forks the next. A fork costs a few
milliseconds where a new interpreter would import for a second, so a test affords many more crashes. Nothing is
shared between the servers but what a fresh interpreter would have imported as well: the parent opens no store, no
socket and no event loop.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
import uvloop

from casekeeper.acl import Effect
from casekeeper.asgi import create_app
from casekeeper.documents.document import NewDocument
from casekeeper.operations.context import MDSContext
from casekeeper.operations.tools import Tool, tool
from casekeeper.server import Server, open_server
from casekeeper.settings import Settings


def marking_tools(marks: Path) -> list[Tool]:
    """Tools that leave a trace of each run outside the store, in a file that is only appended to."""

    @tool(effects={Effect.WRITE})
    async def mark(call: MDSContext, marker: str, pause_ms: int = 0, note: bool = False) -> str:
        """Leave a mark, after a pause and before another; file a note if asked to."""
        await asyncio.sleep(pause_ms / 1000)
        trace = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(trace, f"{marker} {call.event_id}\n".encode())
        finally:
            os.close(trace)
        if note:
            raw = f"{marker} {call.event_id}".encode()
            await call.documents.add(
                [NewDocument(kind="note", title=marker, raw=raw, sha256=raw.hex(), source="mark")]
            )
        await asyncio.sleep(pause_ms / 1000)
        return marker

    @tool(effects={Effect.WRITE})
    async def hog(call: MDSContext, marker: str, busy_ms: int, pause_ms: int) -> str:
        """Leave a mark, let nobody else in the process have a turn for a while, then wait."""
        marks.with_name(marker).touch()
        busy_until_s = time.monotonic() + busy_ms / 1000
        while time.monotonic() < busy_until_s:
            pass
        await asyncio.sleep(pause_ms / 1000)
        return marker

    return [mark, hog]


def serve(data: Path, port: int, marks: Path) -> None:
    """Serve until killed."""

    @asynccontextmanager
    async def opening() -> AsyncGenerator[Server]:
        settings = Settings(data=data, limit_user=0, limit_casefile=0, drain_s=0)
        async with open_server(settings, tools=marking_tools(marks)) as server:
            yield server

    config = uvicorn.Config(
        create_app(opening=opening), port=port, http="httptools", access_log=False, log_level="error"
    )
    uvloop.run(uvicorn.Server(config).serve())


def main() -> None:
    """Fork a server for each line of standard input, until it ends."""
    data, port, marks = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    # The dead are not mourned: the system forgets them by itself.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.stdin.close()
            serve(data, port, marks)
            # Not through the parent's clean-up, which is not this process's.
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
