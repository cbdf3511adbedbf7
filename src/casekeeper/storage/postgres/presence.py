"""How processes on one PostgreSQL know of each other: which are alive, which one sweeps, and which permissions changed.

A process holds an advisory lock in its name, shared by two connections, so that one of them may be cut. The server lets
go of it when the process dies, so whoever finds a running operation whose owner holds no lock knows that nobody will end
it. Each process looks every `_EVERY_S`; an owner found without a lock twice, `_SURE_S` apart, is dead. One that has only
lost its connections has them back long before: they live in a thread, which a busy event loop does not hold up.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import asyncpg

from casekeeper.acl_feed import Change
from casekeeper.journal.operations import OpenedOperation
from casekeeper.storage.postgres.connection import KeptConnection
from casekeeper.storage.postgres.locks import lock_number
from casekeeper.storage.postgres.loop_thread import LoopThread
from casekeeper.storage.postgres.store import CHANNEL, OUTAGES, guarded
from casekeeper.storage.sql.events import SqlEvents
from casekeeper.storage.sql.statements import Reads
from casekeeper.storage.unconfirmed import Unconfirmed

# Together below two seconds, in which a death is known; a connection is back in some hundredths of one.
_EVERY_S, _SURE_S = 0.8, 1.0
_AFTER_OUTAGE_S = 0.1
# Whoever was woken by a death and could not do all at once is woken once more.
_WAKE_AGAIN_S = 5.0
# Connections lost this close together were lost to the same cause, such as a restart of the server.
_TOGETHER_S = 5.0
# A server with a limit on idle connections, which there is from this version on, must not take these for forgotten.
_CUTS_IDLE = 14
_SWEEPER = lock_number("the one that sweeps")
_UP_S = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"
# What waits has no owner: it belongs to nobody on purpose.
OWNERS = "SELECT DISTINCT owner FROM open_operations WHERE owner <> '' AND owner <> $1"
"""Who else than this process runs something."""
# Locks of one number in different databases are different locks.
_HELD = """SELECT (classid::bigint << 32) | objid::bigint AS number FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1 AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND (classid::bigint << 32) | objid::bigint = ANY ($1::bigint[])"""

_log = logging.getLogger("casekeeper.storage")


class _Watch:
    """One process among others, as far as it runs in the thread."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        owner: str,
        push: Callable[[Sequence[Change]], None],
        wake: Callable[[], None],
        settle_s: float,
    ) -> None:
        self._owner = owner
        self._push = push
        self._wake = wake
        self._settle_s = settle_s
        # The first listens and sweeps, the second looks; both hold the lock.
        self._hearing = KeptConnection(connect, self._prepare_hearing, self._back)
        self._looking = KeptConnection(connect, self._prepare, self._back)
        # Before that the locks that are held do not tell who lives.
        self._settled_from_s = 0.0
        self._turn = asyncio.Lock()
        # Owners without a lock, and since when they are known to be.
        self._gone_since_s: dict[str, float] = {}
        self._dead: frozenset[str] = frozenset()
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Be known from now on.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError: The server lets nobody in.
        """
        opened = await asyncio.gather(self._hearing.open(), self._looking.open(), return_exceptions=True)
        for failure in opened:
            if failure is not None:
                raise failure
        [(up_s,)] = await self._looking.fetch(_UP_S)
        self._settled_from_s = self._now_s() + self._settle_s - up_s
        work = [self._hearing.keep(), self._looking.keep()]
        if self._owner:
            work.append(self._look_on())
        self._tasks = [asyncio.create_task(one) for one in work]
        for task in self._tasks:
            task.add_done_callback(_tell_if_it_failed)

    async def sweeps(self) -> bool:
        """See `Presence`."""
        # Taken again and again by one connection, the lock is still let go of as a whole when that ends.
        [(is_ours,)] = await self._hearing.fetch("SELECT pg_try_advisory_lock($1)", _SWEEPER)
        return is_ours

    async def dead(self) -> frozenset[str]:
        """See `Presence`."""
        await self._look()
        if unsure := self._gone_since_s.keys() - self._dead:
            await asyncio.sleep(max(self._sure_in_s(owner) for owner in unsure))
            await self._look()
        return self._dead

    async def end(self) -> None:
        """Be gone."""
        for task in self._tasks:
            task.cancel()
        for line in (self._hearing, self._looking):
            line.end()

    async def _prepare(self, connection: Any) -> None:
        if connection.get_server_version().major >= _CUTS_IDLE:
            await connection.execute("SET idle_session_timeout = 0")
        if self._owner:
            await connection.execute("SELECT pg_advisory_lock_shared($1)", _lock_of(self._owner))

    async def _prepare_hearing(self, connection: Any) -> None:
        await self._prepare(connection)
        await connection.add_listener(CHANNEL, self._heard)

    def _heard(self, _: object, __: int, ___: str, notice: str) -> None:
        with suppress(ValueError, TypeError):
            self._push([Change(*change) for change in json.loads(notice)])

    async def _look_on(self) -> None:
        """Look for the dead until cancelled, and have what they left taken care of."""
        told, told_s = frozenset[str](), 0.0
        while True:
            try:
                await self._look()
            except (*OUTAGES, asyncpg.PostgresError):
                await asyncio.sleep(_AFTER_OUTAGE_S)
                continue
            if self._dead and (self._dead - told or self._now_s() - told_s > _WAKE_AGAIN_S):
                self._wake()
                told_s = self._now_s()
            told = self._dead
            unsure = self._gone_since_s.keys() - self._dead
            await asyncio.sleep(min([_EVERY_S, *(self._sure_in_s(owner) for owner in unsure)]))

    async def _look(self) -> None:
        async with self._turn:
            if not self._is_settled:
                self._gone_since_s, self._dead = {}, frozenset()
                return
            began_s = self._now_s()
            locks = {_lock_of(owner): owner for (owner,) in await self._looking.fetch(OWNERS, self._owner)}
            held = await self._looking.fetch(_HELD, list(locks)) if locks else ()
            now_s, before = self._now_s(), self._gone_since_s
            gone = [locks[number] for number in locks.keys() - {number for (number,) in held}]
            self._gone_since_s = {owner: before.get(owner, now_s) for owner in gone}
            self._dead = frozenset(o for o, s in self._gone_since_s.items() if s <= began_s - _SURE_S)

    def _back(self) -> None:
        """A connection has come back. If both were lost, so may have been everybody else's."""
        one, other = self._hearing.lost_s, self._looking.lost_s
        if one is not None and other is not None and abs(one - other) < _TOGETHER_S:
            self._settled_from_s = max(self._settled_from_s, self._now_s() + self._settle_s)

    @property
    def _is_settled(self) -> bool:
        """Whether the locks that are held tell who lives: not while processes come back to a server."""
        is_there = self._hearing.is_up or self._looking.is_up
        return is_there and self._now_s() >= self._settled_from_s

    def _sure_in_s(self, owner: str) -> float:
        return max(0.0, self._gone_since_s[owner] + _SURE_S - self._now_s())

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


class Presence:
    """One process, as the others know it; without an owner's name it only listens, and looks when it is asked to."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        owner: str,
        push: Callable[[Sequence[Change]], None],
        is_sweep_due: asyncio.Event,
        settle: timedelta,
    ) -> None:
        """`push` is called, and `is_sweep_due` set when another process has died, in the loop that begins it.

        `settle`: for how long after a restart of the server nobody is taken for dead.
        """
        self._connect = connect
        self._owner = owner
        self._push = push
        self._is_sweep_due = is_sweep_due
        self._settle_s = settle.total_seconds()

    async def begin(self) -> None:
        """Be known from now on.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError: The server lets nobody in.
        """
        here = asyncio.get_running_loop()

        def push(changes: Sequence[Change]) -> None:
            here.call_soon_threadsafe(self._push, changes)

        def wake() -> None:
            here.call_soon_threadsafe(self._is_sweep_due.set)

        self._own = LoopThread("casekeeper-presence")
        self._watch = _Watch(self._connect, self._owner, push, wake, self._settle_s)
        try:
            await self._own.call(self._watch.begin())
        except BaseException:
            await self.end()
            raise

    async def sweeps(self) -> bool:
        """Whether this process sweeps: it holds the lock of the one that does, or has just got it.

        Raises:
            StoreUnavailable: The server has gone, and with it every lock.
        """
        with guarded("be asked who sweeps"):
            return await self._own.call(self._watch.sweeps())

    async def dead(self) -> frozenset[str]:
        """The owners of running operations that have died for sure; takes a second where one is under suspicion.

        Nobody is, while processes come back to a server that was restarted.

        Raises:
            StoreUnavailable: The server has gone, and with it every lock.
        """
        with guarded("be asked who lives"):
            return await self._own.call(self._watch.dead())

    async def end(self) -> None:
        """Be gone."""
        await self._own.call(self._watch.end())
        await self._own.close()


class PostgresEvents(SqlEvents):
    """The record, where other processes are at work as well."""

    def __init__(self, reads: Reads, presence: Presence, unconfirmed: Unconfirmed) -> None:
        super().__init__(reads)
        self._unconfirmed = unconfirmed
        self._presence = presence

    async def orphans(self, owner: str, limit: int) -> Sequence[OpenedOperation]:
        """Running operations of processes that have died; and of ours, what nobody runs."""
        if asked := self._unconfirmed.event_ids:
            rows = [(one, one.row) for one in await self.opened(sorted(asked))]
            lost = [
                one for one, row in rows if self._unconfirmed.is_lost(row.event_id, row.owner, row.attempt)
            ]
            self._unconfirmed.looked(asked, {one.row.event_id for one in lost})
            if lost:
                return lost
        dead = await self._presence.dead() - {owner}
        return await self.running_of(sorted(dead), limit) if dead else []


def _lock_of(owner: str) -> int:
    return lock_number(f"process {owner}")


def _tell_if_it_failed(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.critical("other processes can no longer see that this one is alive; restart it", exc_info=error)
