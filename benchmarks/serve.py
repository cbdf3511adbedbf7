"""Starts one server for the benchmark: `python -m benchmarks.serve casekeeper|baselines --data DIR --port N`.

Both kinds run under the same uvicorn: uvloop, httptools, no access log. casekeeper gets two more tools, one that does
nothing and one that reports progress, and no rate limits.
"""

import argparse
import asyncio
import gc
import json
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn


def main() -> None:
    """Serve until told to stop; the first line on standard output says where, and the first login if there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["casekeeper", "baselines"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    asked.data.mkdir(parents=True, exist_ok=True)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", asked.port))
    port = listening.getsockname()[1]
    app = _casekeeper(asked.data, port) if asked.kind == "casekeeper" else _baselines(asked.data, port)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


def _say(port: int, **more: object) -> None:
    print(json.dumps({"port": port, **more}), flush=True)


def _baselines(data: Path, port: int) -> Any:
    from benchmarks.baselines import build

    _say(port)
    return build(data)


def _casekeeper(data: Path, port: int) -> Any:
    # Imported here, so that each kind pays at start-up only for what it runs.
    from casekeeper.acl import Effect
    from casekeeper.asgi import create_app
    from casekeeper.operations.context import MDSContext
    from casekeeper.operations.tools import tool
    from casekeeper.server import Server, open_server
    from casekeeper.settings import Settings

    @tool(effects={Effect.READ})
    async def noop(call: MDSContext) -> dict[str, bool]:
        """Does nothing."""
        return {"done": True}

    @tool(effects={Effect.READ})
    async def tells(call: MDSContext, pieces: int, pause_ms: int) -> int:
        """Reports progress."""
        for number in range(pieces):
            call.progress({"text": "some words of an answer", "number": number})
            await asyncio.sleep(pause_ms / 1000)
        return pieces

    @asynccontextmanager
    async def opening() -> AsyncGenerator[Server]:
        settings = Settings(data=data, limit_user=0, limit_casefile=0)
        async with open_server(settings, tools=[noop, tells]) as server:
            # As `casekeeper serve` does.
            gc.freeze()
            first = server.first_login
            _say(port, user=settings.operator, password=first.password if first else None)
            yield server

    return create_app(opening=opening)


if __name__ == "__main__":
    sys.exit(main())
