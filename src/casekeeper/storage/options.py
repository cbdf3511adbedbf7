"""Options of stores: timeouts, connections, and where their files are."""

from datetime import timedelta
from pathlib import Path

from casekeeper.values import value


@value
class StoreLimits:
    """Limits for a store that is a separate server."""

    connections: int = 10
    connect: timedelta = timedelta(seconds=5)
    statement: timedelta = timedelta(seconds=15)
    lock: timedelta = timedelta(seconds=5)
    channels: int = 1
    search: Path | None = None
    blobs: str = ""
    """Address of the blob store; empty is a folder of the data directory."""
    settle: timedelta = timedelta(seconds=15)
    """For how long after a restart of a PostgreSQL server no process is taken for dead: all have to come back first."""
