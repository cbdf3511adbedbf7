"""The embedded store: one directory, one process, one writer thread with group commit (WAL, synchronous=FULL).

Three kinds of connections. The *writer's* thread takes whatever waits, makes one transaction of it and answers
when it is on disk; meanwhile the event loop gathers the next batch. A batch is handed over when the writer is free
and all who were woken by the last one had their turn, so that their next commits go along: a transaction costs much
more than what one commit adds to it. *Points* (a row or a short page by its key) are read on the event loop itself: microseconds
from the page cache, where a hop to a thread costs ten times as much. *Scans* (searches, filters, lists) go to a
few reader threads.

Points share one snapshot until the next batch is answered. No caller knows of a commit before it is acknowledged, and
the snapshot is let go before the answer, so a caller whose commit was acknowledged reads it.
"""

import asyncio
import fcntl
import logging
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from casekeeper.acl_feed import Change
from casekeeper.errors import CasekeeperError, DirectoryInUse, DirectoryUnusable, Overloaded, StoreUnavailable
from casekeeper.journal.commits import Commit, Superseded
from casekeeper.journal.events import Sealed
from casekeeper.storage.executors import in_thread
from casekeeper.storage.sql.batch import Batch
from casekeeper.storage.sql.statements import Tx
from casekeeper.storage.sqlite.transaction import SqliteTx

T = TypeVar("T")

# Past this many waiting commits the store is slower than its callers; more waiting helps nobody.
_QUEUE_MAX = 10_000
_BATCH_MAX = 256
_READERS = 3
_BUSY_MS = 5_000

_OUTAGES = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)

_log = logging.getLogger("casekeeper.storage")

_Waiting = tuple[Commit, "asyncio.Future[Sequence[Sealed]]"]
_Answer = tuple["asyncio.Future[Sequence[Sealed]]", Sequence[Sealed] | BaseException]


class DirectoryLock:
    """Holds a data directory for this process; the operating system lets go when the process ends."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = open(directory / "lock", "a+")  # noqa: SIM115 - held as long as the process lives
        except OSError as error:
            raise DirectoryUnusable(f"{directory} cannot be used: {error.strerror}.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise DirectoryInUse(f"{directory} is in use by another process.") from error

    def release(self) -> None:
        """Let others have it."""
        self._file.close()


class SqliteStore:
    """Commits and reads on one SQLite file."""

    def __init__(
        self,
        path: Path,
        announce: Callable[[Sequence[Sealed]], None],
        push: Callable[[Sequence[Change]], None],
    ) -> None:
        self._path = path
        self._announce = announce
        self._push = push
        # Permission changes on disk that are not yet published in this process; filled by the writer's thread.
        self._changes: deque[Change] = deque()
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        self._waiting: list[_Waiting] = []
        self._is_busy = False
        self._broken: str | None = None
        self._points = connect(path, read_only=True)
        self._point = SqliteTx(self._points)
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="casekeeper-reader")
        self._writer = threading.Thread(target=self._write, name="casekeeper-writer", daemon=True)
        self._writer.start()

    async def commit(self, commit: Commit) -> Sequence[Sealed]:
        """See `journal.commits.Commits`."""
        if self._broken is not None:
            raise StoreUnavailable(self._broken)
        if len(self._waiting) >= _QUEUE_MAX:
            raise Overloaded
        future: asyncio.Future[Sequence[Sealed]] = self._loop.create_future()
        # A caller that goes away only leaves the future behind: the commit may be on disk already.
        self._waiting.append((commit, future))
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._hand_over)
        return await future

    async def point(self, read: Callable[[Tx], T]) -> T:
        """See `Reads`."""
        try:
            if not self._points.in_transaction:
                self._points.execute("BEGIN")
            return read(self._point)
        except sqlite3.Error as error:
            raise _of_reading(error) from error

    async def scan(self, read: Callable[[Tx], T]) -> T:
        """See `Reads`."""
        return await self._loop.run_in_executor(self._readers, self._scan, read)

    @property
    def is_writable(self) -> bool:
        """Whether commits can be taken; false after an error of the disk itself, until a restart."""
        return self._broken is None

    async def close(self) -> None:
        """Write what waits, then let go of the file."""
        with suppress(StoreUnavailable, Overloaded):
            await self.commit(Commit())  # it is the last in the line
        self._queue.put(None)
        await in_thread(self._writer.join)
        self._broken = self._broken or "The store is closed."
        self._readers.shutdown()
        for connection in (self._points, *self._opened):
            connection.close()

    def _scan(self, read: Callable[[Tx], T]) -> T:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = connect(self._path, read_only=True)
            self._opened.append(connection)
        return _snapshot(connection, read)

    def _write(self) -> None:
        connection = connect(self._path)
        try:
            while (batch := self._queue.get()) is not None:
                answers = _refused(batch, self._broken) if self._broken else self._commit(connection, batch)
                self._loop.call_soon_threadsafe(self._answer, answers)
        finally:
            connection.close()

    def _commit(self, connection: sqlite3.Connection, batch: list[_Waiting]) -> list[_Answer]:
        try:
            return _transaction(connection, batch, self._changes)
        except Exception as error:
            _roll_back(connection)
            if _is_disk_failure(error):
                # After a failed sync nobody knows what is on disk; going on would acknowledge the unknown.
                self._broken = "The disk failed; the store takes no writes until the server is restarted."
                _log.critical("the store is out of service: %s", error)
                return _refused(batch, self._broken)
            if len(batch) > 1:
                # One of them is poison: alone, each of the others goes through.
                return [answer for item in batch for answer in self._commit(connection, [item])]
            return [(batch[0][1], _of_writing(error))]

    def _hand_over(self) -> None:
        batch = self._waiting[:_BATCH_MAX]
        del self._waiting[:_BATCH_MAX]
        self._queue.put(batch)

    def _answer(self, answers: list[_Answer]) -> None:
        if self._points.in_transaction:
            self._points.execute("COMMIT")
        if self._changes:
            self._push([self._changes.popleft() for _ in range(len(self._changes))])
        for future, result in answers:
            if isinstance(result, BaseException):
                if not future.done():
                    future.set_exception(result)
                    # The caller may have gone; then nobody asks for the exception, which is no news.
                    future.exception()
                continue
            self._announce(result)
            if not future.done():
                future.set_result(result)
        self._is_busy = bool(self._waiting)
        if self._is_busy:
            self._loop.call_soon(self._hand_over)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection as this store uses them: autocommit, transactions by hand."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    connection.execute("PRAGMA cache_size=-16384")
    # A checkpoint holds up everybody who waits; a larger log (16 MB) makes them rare and copies hot pages once.
    connection.execute("PRAGMA wal_autocheckpoint=4000")
    if read_only:
        connection.execute("PRAGMA query_only=ON")
    return connection


def _snapshot(connection: sqlite3.Connection, read: Callable[[Tx], T]) -> T:
    try:
        connection.execute("BEGIN")
        try:
            return read(SqliteTx(connection))
        finally:
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise _of_reading(error) from error


def _of_reading(error: sqlite3.Error) -> Exception:
    return StoreUnavailable("The store cannot be read.") if _is_outage(error) else error


def _of_writing(error: Exception) -> Exception:
    if not _is_outage(error):
        return error
    unavailable = StoreUnavailable(f"The store cannot write: {error}.")
    unavailable.__cause__ = error
    return unavailable


def _refused(batch: Sequence[_Waiting], why: str) -> list[_Answer]:
    return [(future, StoreUnavailable(why)) for _, future in batch]


def _is_disk_failure(error: Exception) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and (
        "disk I/O error" in str(error) or "malformed" in str(error)
    )


def _is_outage(error: Exception) -> bool:
    """Whether the database itself is in trouble; a wrong statement of ours is not an outage but a bug."""
    # The low byte of an extended result code is the primary one (https://www.sqlite.org/rescode.html).
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _OUTAGES


def _transaction(
    connection: sqlite3.Connection, batch: list[_Waiting], changes: deque[Change]
) -> list[_Answer]:
    connection.execute("BEGIN IMMEDIATE")
    work = Batch(SqliteTx(connection))
    work.prepare([commit for commit, _ in batch])
    answers: list[_Answer] = []
    for commit, future in batch:
        try:
            answers.append((future, work.add(commit)))
        except (CasekeeperError, Superseded) as refusal:
            answers.append((future, refusal))
    work.flush()
    connection.execute("COMMIT")
    changes.extend(work.changes)
    return answers


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            _log.exception("a transaction could not be rolled back")
