"""A PostgreSQL of the tests' own, on a free port of loopback, gone when they are done.

`CASEKEEPER_TEST_POSTGRES` names a server to use instead; databases are made in it and dropped again.
"""

import atexit
import functools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from casekeeper.storage.options import StoreLimits
from casekeeper.storage.postgres.opening import migrate_postgres
from tests.support import unavailable

# It comes without types.
_driver: Any = asyncpg

_DEBIAN = Path("/usr/lib/postgresql")
_SHM = Path("/dev/shm")
_ROOM = 4 * 2**30
# PostgreSQL refuses to run as root.
_USERS = ("postgres", "nobody")


class Postgres:
    """A server; `url` is that of its first database."""

    def __init__(
        self, url: str, command: Sequence[str | Path] = (), how: Mapping[str, Any] | None = None
    ) -> None:
        self.url = url
        self._command = command
        self._how = how or {}
        self._process: subprocess.Popen[Any] | None = None
        self._template: str | None = None

    def start(self) -> None:
        """Start the server of our own and wait until it lets somebody in."""
        self._process = subprocess.Popen(self._command, **self._how)
        port = urlsplit(self.url).port
        ready = [
            Path(self._command[0]).with_name("pg_isready"),
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-t",
            "1",
        ]
        for _ in range(300):
            if subprocess.run([*ready, "-U", "casekeeper"], check=False).returncode == 0:
                return
        unavailable("a PostgreSQL that starts")

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        # Its quickest way out; SIGKILL would leave its children behind.
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)

    async def migrated(self) -> str:
        """The URL of a new database at the newest schema; migrating takes longer than most tests."""
        if self._template is None:
            url = await self.make()
            await migrate_postgres(url, StoreLimits())
            self._template = urlsplit(url).path[1:]
        return await self.make(self._template)

    async def make(self, template: str = "template0") -> str:
        """The URL of a new database, ordered by bytes as SQLite orders."""
        name = f"test_{secrets.token_hex(6)}"
        # Copying files takes a fraction of writing all pages to the log.
        how = "LC_COLLATE 'C' LC_CTYPE 'C'" if template == "template0" else "STRATEGY FILE_COPY"
        await self._do(f"CREATE DATABASE {name} TEMPLATE {template} {how}")
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    async def drop(self, url: str) -> None:
        """Take a database away, whoever uses it."""
        await self._do(f"DROP DATABASE IF EXISTS {urlsplit(url).path[1:]} WITH (FORCE)")

    async def _do(self, statement: str) -> None:
        connection = await _driver.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def running_postgres(*options: str, on_disk: bool = False) -> Generator[Postgres]:
    """A server, the one that the environment names or one of our own, which lives in memory unless told otherwise."""
    if url := os.environ.get("CASEKEEPER_TEST_POSTGRES"):  # noqa: TID251 - not a setting of casekeeper
        yield Postgres(url)
        return
    tools = _tools()
    if tools is None:
        unavailable("PostgreSQL (install it, or name a server in CASEKEEPER_TEST_POSTGRES)")
    directory = Path(tempfile.mkdtemp(prefix="casekeeper-pg-", dir=None if on_disk else _memory()))
    user = _user()
    if user:
        shutil.chown(directory, user)
    data = directory / "data"
    quiet: dict[str, Any] = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "user": user,
        "cwd": directory,
    }
    subprocess.run(
        [tools / "initdb", "-D", data, "-U", "casekeeper", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True,
        **quiet,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = [
        f"port={port}",
        f"unix_socket_directories={directory}",
        "fsync=off",
        "max_connections=300",
        *options,
    ]
    command = [tools / "postgres", "-D", data, *(word for one in settings for word in ("-c", one))]
    server = Postgres(f"postgresql://casekeeper@127.0.0.1:{port}/postgres", command, quiet)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)


async def selected(url: str, sql: str) -> list[Any]:
    """All rows of a statement."""
    connection = await _driver.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


@functools.cache
def shared_postgres() -> Postgres:
    """One server for all tests of a process; it ends with it."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running_postgres())


def _tools() -> Path | None:
    """The folder with PostgreSQL's programs."""
    versions = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def _memory() -> Path | None:
    """A folder in memory, if there is one with room: thousands of databases are made in a run."""
    return _SHM if _SHM.is_dir() and shutil.disk_usage(_SHM).free > _ROOM else None


def _user() -> str | None:
    if os.getuid():
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    found = next((name for name in _USERS if name in known), None)
    return found or unavailable("a user other than root for PostgreSQL")
