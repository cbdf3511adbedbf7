"""The PostgreSQL store: the statements of the embedded one, over asyncpg, for several processes at once.

*Group commit.* Commits wait in shards, by casefile (see `queue`); each shard has one transaction under way and
makes the next of whatever waits then. *Order between processes.* A transaction first takes advisory locks on all that its
commits are about (casefiles, sessions, accounts, claims), sorted, in one statement: so there are no deadlocks, and inside the
locks a commit is judged and numbered as if nobody else wrote. The head of the permission feed is locked last, right before the commit: shared
by commits that are fenced, alone by those that change permissions, so that no operation starts beside a revoke that it
did not see. Whoever was overtaken until then does it once more with the head held from the beginning (`sql.feed`).

Readers and the batch are written without `await`; SQLAlchemy's greenlets let them wait for asyncpg.
"""

import asyncio
import json
import zlib
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from types import CodeType
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.util import greenlet_spawn

from casekeeper.acl_feed import Change
from casekeeper.errors import CasekeeperError, Overloaded, StoreUnavailable, Unavailable
from casekeeper.journal.commits import Commit, Superseded
from casekeeper.journal.events import Sealed
from casekeeper.storage.postgres.locks import Locks
from casekeeper.storage.postgres.queue import HeldUp, Shard, Waiting, partition_of
from casekeeper.storage.postgres.transaction import MoreThanOnce, Once, PostgresTx
from casekeeper.storage.sql.batch import Batch
from casekeeper.storage.sql.feed import Overtaken
from casekeeper.storage.sql.statements import Tx
from casekeeper.storage.unconfirmed import Unconfirmed

T = TypeVar("T")

_SHARDS = 2
# Past this many waiting commits the store is slower than its callers; more waiting helps nobody.
_QUEUE_MAX = 10_000
CHANNEL = "casekeeper_permissions"
# PostgreSQL takes less than 8,000 bytes; a longer list is read from the feed, like one that was lost.
_NOTICE_MAX = 7_000
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
        # Reads that were seen to take more than one statement.
        self._wide = set[CodeType]()
        self.unconfirmed = Unconfirmed()

    @property
    def is_writable(self) -> bool:
        """Whether commits can be taken: an outage ends by itself, so only closing ends it."""
        return not self._is_closed

    async def commit(self, commit: Commit) -> Sequence[Sealed]:
        """See `journal.commits.Commits`."""
        about = commit.about
        partition = partition_of(about)
        shard = self._shards[zlib.crc32(partition.encode()) % _SHARDS]
        if self._is_closed:
            raise StoreUnavailable("The store is closed.")
        if len(shard) >= _QUEUE_MAX:
            raise Overloaded
        future: asyncio.Future[Sequence[Sealed]] = asyncio.get_running_loop().create_future()
        # A caller that goes away only leaves the future behind: the commit may be on disk already.
        shard.add(Waiting(commit, about, partition, future))
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
            async with self._connection() as connection:
                if (code := getattr(read, "__code__", None)) and code not in self._wide:
                    try:
                        return await greenlet_spawn(read, PostgresTx(Once(connection)))
                    except MoreThanOnce:
                        self._wide.add(code)
                async with connection.transaction(isolation="repeatable_read", readonly=True):
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
                    answers = await greenlet_spawn(self._transaction, connection, batch, is_in_hurry)
        except Unavailable as error:
            if is_in_hurry and isinstance(error.__cause__, asyncpg.LockNotAvailableError):
                raise HeldUp from error
            if isinstance(error, StoreUnavailable):
                # It may have gone away after it was told to commit.
                self.unconfirmed.add(one.commit for one in batch)
            return [(one.future, error) for one in batch]
        except Exception as error:
            if len(batch) > 1:
                # One of them is poison: alone, each of the others goes through.
                return [answer for item in batch for answer in await self._commit([item], False)]
            return [(batch[0].future, error)]
        self.unconfirmed.resolve(
            one.commit
            for one, (_, answer) in zip(batch, answers, strict=True)
            if not isinstance(answer, BaseException)
        )
        return answers

    def _transaction(self, connection: Any, batch: list[Waiting], is_in_hurry: bool) -> _Answers:
        try:
            changes, answers = self._attempt(connection, batch, is_in_hurry, holds_feed=False)
        except (Overtaken, asyncpg.DeadlockDetectedError):
            # Overtaken once, it would be again where permissions change all the time.
            changes, answers = self._attempt(connection, batch, is_in_hurry, holds_feed=True)
        if changes:
            self._push(changes)
        return answers

    def _attempt(
        self, connection: Any, batch: list[Waiting], is_in_hurry: bool, *, holds_feed: bool
    ) -> tuple[Sequence[Change], _Answers]:
        tx = PostgresTx(connection)
        locks = Locks(about for one in batch for about in one.about)
        is_done = False
        try:
            tx.begin(locks, feed=holds_feed, is_in_hurry=is_in_hurry)
            work = Batch(tx, holds_feed=holds_feed)
            work.prepare([one.commit for one in batch])
            answers: _Answers = []
            for one in batch:
                try:
                    answers.append((one.future, work.add(one.commit)))
                except (CasekeeperError, Superseded) as refusal:
                    answers.append((one.future, refusal))
            work.flush()
            if work.changes:
                notice = json.dumps([[c.number, c.casefile_id, c.user_id] for c in work.changes])
                tx.text("SELECT pg_notify($1, $2)", (CHANNEL, notice if len(notice) < _NOTICE_MAX else "[]"))
            tx.commit()
            is_done = True
        finally:
            if not is_done:
                with suppress(*OUTAGES, asyncpg.PostgresError):
                    tx.roll_back()
        return work.changes, answers

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
