"""What a process keeps one connection for: to be known as alive, and to hear of permission changes.

The connection holds an advisory lock in the name of the process. The server lets go of it when the process dies, so
whoever finds an operation whose owner holds no lock knows that nobody will end it.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import asyncpg

from casekeeper.acl_feed import Change
from casekeeper.journal.operations import OpenedOperation
from casekeeper.storage.doubts import Doubts
from casekeeper.storage.postgres import CHANNEL, OUTAGES, guarded
from casekeeper.storage.postgres_locks import lock_number
from casekeeper.storage.sql_events import SqlEvents
from casekeeper.storage.sql_statements import Reads, Tx

_AGAIN_S = 1.0
# A process whose connection was cut takes its lock again within a second; one that is dead never does.
_SURE_S = 3.0
# After a restart of the server nobody holds a lock until all have come back.
_SETTLED_S = 15.0
_SWEEPER = lock_number("the one that sweeps")
_HELD = """SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1 AND granted"""

_log = logging.getLogger("casekeeper.storage")


class Presence:
    """One process, as the others know it; without an owner's name it only listens."""

    def __init__(
        self, connect: Callable[[], Awaitable[Any]], owner: str, push: Callable[[Sequence[Change]], None]
    ) -> None:
        self._connect = connect
        self._lock = lock_number(f"process {owner}") if owner else None
        self._push = push
        self._connection: Any = None
        self._lost = asyncio.Event()
        self._came_back_s: float | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the locks that are held tell who is alive: not while processes come back to a server."""
        if self._lost.is_set():
            return False
        now_s = asyncio.get_running_loop().time()
        return self._came_back_s is None or now_s - self._came_back_s > _SETTLED_S

    async def begin(self) -> None:
        """Be known from now on.

        Raises:
            OSError, asyncpg.PostgresError: The server lets nobody in.
        """
        self._lost = asyncio.Event()
        self._connection = connection = await self._connect()
        # A server with a limit on idle connections must not take this one for forgotten.
        await connection.execute("SET statement_timeout = 0; SET idle_session_timeout = 0")
        connection.add_termination_listener(partial(_ended, self._lost))
        if self._lock is not None:
            await connection.execute("SELECT pg_advisory_lock($1)", self._lock)
        await connection.add_listener(CHANNEL, self._heard)

    async def keep(self) -> None:
        """Come back whenever the connection is lost, until cancelled.

        Pushes only make changes known sooner: what is missed here is read from the feed.
        """
        while True:
            await self._lost.wait()
            _log.warning("the store's server has gone; trying again")
            while self._lost.is_set():
                await asyncio.sleep(_AGAIN_S)
                try:
                    await self.begin()
                except (*OUTAGES, asyncpg.PostgresError):
                    self._lost.set()
            self._came_back_s = asyncio.get_running_loop().time()

    async def sweeps(self) -> bool:
        """Whether this process sweeps: it holds the lock of the one that does, or has just got it.

        Raises:
            StoreUnavailable: The server has gone, and with it every lock.
        """
        # Taken again and again by one connection, the lock is still let go of as a whole when that ends.
        with guarded("be asked who sweeps"):
            return await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", _SWEEPER)

    def end(self) -> None:
        """Be gone."""
        if self._connection is not None:
            self._connection.terminate()

    def _heard(self, _: object, __: int, ___: str, notice: str) -> None:
        with suppress(ValueError, TypeError):
            self._push([Change(*change) for change in json.loads(notice)])


class PostgresEvents(SqlEvents):
    """The record, where other processes are at work as well."""

    def __init__(self, reads: Reads, presence: Presence, doubts: Doubts) -> None:
        super().__init__(reads)
        self._doubts = doubts
        self._shared = reads
        self._presence = presence

    async def orphans(self, owner: str, limit: int) -> Sequence[OpenedOperation]:
        """Running operations whose process is gone, looked at twice, some seconds apart; and of ours, what nobody runs."""
        if asked := self._doubts.event_ids:
            rows = [(one, one.row) for one in await self.opened(sorted(asked))]
            lost = [one for one, row in rows if self._doubts.is_lost(row.event_id, row.owner, row.attempt)]
            self._doubts.looked(asked, {one.row.event_id for one in lost})
            if lost:
                return lost
        opened = await super().orphans(owner, limit)
        dead = await self._dead(opened)
        if dead:
            await asyncio.sleep(_SURE_S)
            dead &= await self._dead(opened)
        return [operation for operation in opened if operation.row.owner in dead]

    async def _dead(self, opened: Sequence[OpenedOperation]) -> set[str]:
        if not opened or not self._presence.is_settled:
            return set()

        def read(tx: Tx) -> set[str]:
            held = {row[0] for row in tx.text(_HELD)}
            owners = {operation.row.owner for operation in opened}
            return {one for one in owners if lock_number(f"process {one}") not in held}

        return await self._shared.scan(read)


def _ended(lost: asyncio.Event, connection: object) -> None:
    lost.set()
