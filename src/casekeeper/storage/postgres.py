"""The PostgreSQL store: the statements of the embedded one, over asyncpg, for several processes at once.

*Group commit.* Commits wait in shards, by casefile (see `postgres_queue`); each shard has one transaction under way and
makes the next of whatever waits then. *Order between processes.* A transaction first takes advisory locks on all that its commits name
(casefiles, accounts, claims), sorted, in one statement: so there are no deadlocks, and inside the locks a commit is
judged and numbered as if nobody else wrote. The head of the permission feed is locked last: shared by commits that are
fenced, alone by those that change permissions, so that no operation starts beside a revoke that it did not see.

The rooms' readers and the batch are written without `await`; SQLAlchemy's greenlets let them wait for asyncpg.
"""

import asyncio
import json
import zlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.util import await_only, greenlet_spawn

from casekeeper.acl_feed import Change
from casekeeper.errors import CasekeeperError, Overloaded, StoreUnavailable, Unavailable
from casekeeper.journal.events import Sealed
from casekeeper.journal.stream import Commit, Superseded
from casekeeper.storage.doubts import Doubts
from casekeeper.storage.postgres_locks import wanted_locks
from casekeeper.storage.postgres_queue import HeldUp, Shard, Waiting, place_of
from casekeeper.storage.postgres_words import vectors
from casekeeper.storage.sql_commit import Batch
from casekeeper.storage.sql_statements import Bulk, Parameters, Row, Static, Tx, numbered

T = TypeVar("T")

_DIALECT = asyncpg_dialect(paramstyle="numeric_dollar")
_SHARDS = 2
# Past this many waiting commits the store is slower than its callers; more waiting helps nobody.
_QUEUE_MAX = 10_000
CHANNEL = "casekeeper_permissions"
# PostgreSQL takes less than 8,000 bytes; a longer list is read from the feed, like one that was lost.
_NOTICE_MAX = 7_000
_LOCK = "SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key"
# Commits hold locks for some milliseconds; whoever holds one for longer is not waited for by all.
_LOCK_SOON = (
    "WITH hurry AS MATERIALIZED (SELECT set_config('lock_timeout', '50ms', true)) "
    "SELECT pg_advisory_xact_lock(key) FROM hurry, unnest($1::bigint[]) AS key"
)
_INDEX = (
    "INSERT INTO document_words (rid, words, title, sender, people, cc, bcc, filenames, marks) VALUES "
    "($1, $2::tsvector, $3::tsvector, $4::tsvector, $5::tsvector, $6::tsvector, $7::tsvector, $8::tsvector, $9::tsvector)"
)
_UNINDEX = "DELETE FROM document_words WHERE rid IN (SELECT rid FROM documents WHERE casefile_id = $1)"
_UNINDEX_ONE = "DELETE FROM document_words WHERE rid = $1"

OUTAGES = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What a connection says that was cut while it was at work.
    asyncpg.InternalClientError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    OSError,
    TimeoutError,
)

_CUT = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_Answers = list[tuple["asyncio.Future[Sequence[Sealed]]", Sequence[Sealed] | BaseException]]


class PostgresTx:
    """Implements `Tx` on a connection, inside a greenlet."""

    def __init__(self, connection: Any, *, is_in_hurry: bool = False) -> None:
        self._connection = connection
        self._lock = _LOCK_SOON if is_in_hurry else _LOCK

    def one(self, statement: Static, **values: Any) -> Row | None:
        text, given = statement.by_place(_DIALECT, values)
        row = await_only(self._connection.fetchrow(text, *_clean(given)))
        return None if row is None else tuple(row)

    def all(self, statement: Static, **values: Any) -> list[Row]:
        text, given = statement.by_place(_DIALECT, values)
        return self.text(text, given)

    def select(self, clause: ClauseElement, values: Parameters | None = None) -> list[Row]:
        text, names, constants = numbered(clause, _DIALECT)
        given = {**constants, **(values or {})}
        return self.text(text, [given.get(name) for name in names])

    def run(self, statement: Static, **values: Any) -> int:
        text, given = statement.by_place(_DIALECT, values)
        return self.change(text, *given)

    def many(self, statement: Static, rows: Sequence[Parameters]) -> int:
        if not rows:
            return 0
        placed = [statement.by_place(_DIALECT, row) for row in rows]
        await_only(self._connection.executemany(placed[0][0], [_clean(given) for _, given in placed]))
        # The server does not say how many it touched; foreign keys see to it that none is missing.
        return len(rows)

    def bulk(self, statement: Bulk, rows: Sequence[Parameters]) -> None:
        for text, given in statement.statements(rows, _DIALECT):
            await_only(self._connection.execute(text, *_clean(given)))

    def hold(self, commits: Iterable[Commit]) -> None:
        keys, head = wanted_locks(commits)
        if keys:
            self.text(self._lock, [keys])
        if head:
            self.text(f"SELECT number FROM acl_head FOR {head}")  # noqa: S608 - a word of ours

    def index(self, rid: int, words: Parameters) -> None:
        self.change(_INDEX, rid, *vectors(words))

    def settle(self) -> None:
        pass

    def unindex(self, casefile_id: str) -> None:
        self.change(_UNINDEX, casefile_id)

    def unindex_one(self, rid: int) -> None:
        self.change(_UNINDEX_ONE, rid)

    def text(self, sql: str, values: Any = ()) -> list[Row]:
        return [tuple(row) for row in await_only(self._connection.fetch(sql, *_clean(values)))]

    def change(self, text: str, *values: Any) -> int:
        """Write; returns how many rows were touched."""
        status: str = await_only(self._connection.execute(text, *_clean(values)))
        return int(status.rsplit(" ", 1)[1])


class PostgresStore:
    """Commits and reads on a PostgreSQL database."""

    def __init__(
        self,
        pool: Any,
        announce: Callable[[Sequence[Sealed]], None],
        push: Callable[[Sequence[Change]], None],
        acquire_s: float,
    ) -> None:
        self._pool = pool
        self._announce = announce
        self._push = push
        self._acquire_s = acquire_s
        self._shards = [Shard(self._write) for _ in range(_SHARDS)]
        self._is_closed = False
        self.doubts = Doubts()

    @property
    def is_writable(self) -> bool:
        """Whether commits can be taken: an outage ends by itself, so only closing ends it."""
        return not self._is_closed

    async def commit(self, commit: Commit) -> Sequence[Sealed]:
        """See `journal.stream.Commits`."""
        shard = self._shards[zlib.crc32(place_of(commit).encode()) % _SHARDS]
        if self._is_closed:
            raise StoreUnavailable("The store is closed.")
        if len(shard) >= _QUEUE_MAX:
            raise Overloaded
        future: asyncio.Future[Sequence[Sealed]] = asyncio.get_running_loop().create_future()
        # A caller that goes away only leaves the future behind: the commit may be on disk already.
        shard.add((commit, future))
        return await future

    async def point(self, read: Callable[[Tx], T]) -> T:
        """See `Reads`."""
        try:
            return await self._read(read)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, _CUT):
                raise
            # A connection that waited in the pool may have been cut since, and then the others were, too.
            await self._pool.expire_connections()
            return await self._read(read)

    async def _read(self, read: Callable[[Tx], T]) -> T:
        with guarded("read"):
            async with (
                self._connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                return await greenlet_spawn(read, PostgresTx(connection))

    async def scan(self, read: Callable[[Tx], T]) -> T:
        """See `Reads`."""
        return await self.point(read)

    async def close(self) -> None:
        """Write what waits, then take no more."""
        self._is_closed = True
        for shard in self._shards:
            await shard.done()

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Any]:
        try:
            connection = await self._pool.acquire(timeout=self._acquire_s)
        except TimeoutError as error:
            if self._pool.get_idle_size() or self._pool.get_size() < self._pool.get_max_size():
                raise
            raise Overloaded from error
        try:
            yield connection
        finally:
            await self._pool.release(connection)

    async def _write(self, batch: list[Waiting], is_in_hurry: bool) -> None:
        self._answer(await self._commit(batch, is_in_hurry))

    async def _commit(self, batch: list[Waiting], is_in_hurry: bool) -> _Answers:
        try:
            with guarded("write"):
                async with self._connection() as connection:
                    return await greenlet_spawn(self._transaction, connection, batch, is_in_hurry)
        except Unavailable as error:
            if is_in_hurry and isinstance(error.__cause__, asyncpg.LockNotAvailableError):
                raise HeldUp from error
            if isinstance(error, StoreUnavailable):
                # It may have gone away after it was told to commit.
                self.doubts.add(commit for commit, _ in batch)
            return [(future, error) for _, future in batch]
        except Exception as error:
            if len(batch) > 1:
                # One of them is poison: alone, each of the others goes through.
                return [answer for item in batch for answer in await self._commit([item], False)]
            return [(batch[0][1], error)]

    def _transaction(self, connection: Any, batch: list[Waiting], is_in_hurry: bool) -> _Answers:
        transaction = connection.transaction()
        await_only(transaction.start())
        is_done = False
        try:
            tx = PostgresTx(connection, is_in_hurry=is_in_hurry)
            work = Batch(tx)
            work.prepare([commit for commit, _ in batch])
            answers: _Answers = []
            for commit, future in batch:
                try:
                    answers.append((future, work.add(commit)))
                except (CasekeeperError, Superseded) as refusal:
                    answers.append((future, refusal))
            work.flush()
            if work.changes:
                notice = json.dumps([[c.number, c.casefile_id, c.user_id] for c in work.changes])
                tx.text("SELECT pg_notify($1, $2)", (CHANNEL, notice if len(notice) < _NOTICE_MAX else "[]"))
            await_only(transaction.commit())
            is_done = True
        finally:
            if not is_done:
                with suppress(*OUTAGES, asyncpg.PostgresError):
                    await_only(transaction.rollback())
        self._push(work.changes)
        return answers

    def _answer(self, answers: _Answers) -> None:
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


@contextmanager
def guarded(what: str) -> Generator[None]:
    """Tell an outage from a bug: a wrong statement of ours is not an outage."""
    try:
        yield
    except OUTAGES as error:
        raise StoreUnavailable(f"The store cannot {what}: {type(error).__name__}.") from error


def _clean(values: Iterable[Any]) -> list[Any]:
    # PostgreSQL's text holds no NUL.
    return [v.replace("\x00", "\ufffd") if isinstance(v, str) and "\x00" in v else v for v in values]
