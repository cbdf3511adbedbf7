"""Opens what commands work on, in one way for all of them: settings, data directory, store, server.

What cannot be used raises a `CannotStart` of the tree, which ends the command with one line and its exit code.
"""

import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casekeeper.errors import DirectoryInUse, DirectoryUnusable

if TYPE_CHECKING:
    from casekeeper.server import Server, Use
    from casekeeper.settings import Settings
    from casekeeper.storage.store import Storage

DATABASE = "casekeeper.db"
HOLDER = "server.json"


def read_settings(data: Path | None = None, **more: Any) -> "Settings":
    """The settings, with what the command line says on top."""
    from casekeeper import settings

    return settings.read_settings(data=data, **more)


@asynccontextmanager
async def opened_server(settings: "Settings", *, use: "Use" = "serve") -> "AsyncGenerator[Server]":
    """A server in this process, behind no door yet."""
    from casekeeper.server import open_server

    with _holder_named(settings.data):
        async with open_server(settings, use=use) as server:
            yield server


@asynccontextmanager
async def opened_store(settings: "Settings") -> "AsyncGenerator[Storage]":
    """The store alone, without a server; nobody in this process follows sessions."""
    from casekeeper.storage.opening import open_storage

    limits = settings.store_limits
    with _holder_named(settings.data):
        async with open_storage(settings.store, settings.data, lambda _: None, limits=limits) as storage:
            yield storage


@contextmanager
def locked(settings: "Settings") -> Generator[Path]:
    """The database of a data directory that is there and that nobody else uses meanwhile."""
    from casekeeper.storage.sqlite.opening import usable
    from casekeeper.storage.sqlite.store import DirectoryLock

    data = existing(settings)
    with _holder_named(data):
        lock = DirectoryLock(data)
    try:
        with usable(data):
            yield data / DATABASE
    finally:
        lock.release()


def existing(settings: "Settings") -> Path:
    """The data directory, which is there.

    Raises:
        DirectoryUnusable: It is not; nothing is made by accident.
    """
    if not (settings.data / DATABASE).exists():
        raise _missing(settings)
    return settings.data


def keys_of(settings: "Settings") -> Path:
    """The signing keys of the data directory, whatever the store.

    Raises:
        DirectoryUnusable: There are none; none are made by accident, which no server would know.
    """
    keys = settings.data / "keys" if settings.is_shared else existing(settings) / "keys"
    if not any(keys.glob("*.pem")):
        raise _missing(settings)
    return keys


def holder(data: Path) -> str | None:
    """The address of the server that holds the directory, as it wrote it down."""
    try:
        return json.loads((data / HOLDER).read_text("utf-8"))["url"]
    except (OSError, ValueError, KeyError):
        return None


@contextmanager
def _holder_named(data: Path) -> Generator[None]:
    try:
        yield
    except DirectoryInUse as error:
        url = holder(data)
        who = f"the server at {url}; stop it first" if url else "another casekeeper command; let it end first"
        raise DirectoryInUse(f"{data} is in use by {who}.") from error


def _missing(settings: "Settings") -> DirectoryUnusable:
    return DirectoryUnusable(
        f"There is no data directory at {settings.data}. Start a server with `casekeeper serve`, name a directory "
        "with --data, or log in to a server with `casekeeper login URL`."
    )
