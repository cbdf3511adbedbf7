"""The command line with one more tool, which goes on until it is let go: `python holding.py serve …`."""

import asyncio
import os
import sys
from pathlib import Path

from casekeeper.acl import Effect
from casekeeper.cli.app import run
from casekeeper.operations.context import MDSContext
from casekeeper.operations.registry import MANAGED_TOOLS
from casekeeper.operations.tools import tool


@tool(effects={Effect.READ})
async def hold(call: MDSContext, marks: str) -> int:
    """Leave a file `begun-PID` in a directory, and end when there is one named `go`."""
    (Path(marks) / f"begun-{os.getpid()}-{call.event_id}").touch()
    while not (Path(marks) / "go").exists():
        await asyncio.sleep(0.01)
    return os.getpid()


MANAGED_TOOLS.add(hold)

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
