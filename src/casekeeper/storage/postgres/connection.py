"""A long-lived connection of a process, reopened at once when it is lost."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import asyncpg

from casekeeper.storage.postgres.store import OUTAGES

# A cut connection is back before anybody asks for it; a server that starts is not asked by everybody all the time.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
# What is asked here takes a millisecond. A connection that says nothing for this long leads nowhere.
_ANSWER_S = 5.0

_log = logging.getLogger("casekeeper.storage")


class KeptConnection:
    """One such connection."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        prepare: Callable[[Any], Awaitable[None]],
        back: Callable[[], None],
    ) -> None:
        """`prepare` makes a new connection what it is for (takes locks, listens); `back` is called when it was lost and is there again."""
        self._connect = connect
        self._prepare = prepare
        self._back = back
        self._connection: Any = None
        self._lost = asyncio.Event()
        self._turn = asyncio.Lock()
        self.lost_s: float | None = None
        """When it was lost for the last time, by the loop's clock; None while it never was."""

    @property
    def is_up(self) -> bool:
        """Whether it is there, as far as is known here."""
        return self._connection is not None and not self._lost.is_set()

    async def open(self) -> None:
        """Connect for the first time.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError: The server lets nobody in.
        """
        lost = asyncio.Event()
        connection = await self._connect()
        connection.add_termination_listener(partial(_ended, lost))
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._prepare(connection)
        except BaseException:
            connection.terminate()
            raise
        self._connection, self._lost = connection, lost

    async def keep(self) -> None:
        """Come back whenever it is lost, until cancelled."""
        now = asyncio.get_running_loop().time
        while True:
            await self._lost.wait()
            self.lost_s = now()
            _log.warning("a connection to the store's server was lost; trying again")
            pause_s = _FIRST_PAUSE_S
            while not await self._is_back():
                # Not all processes at the same moment.
                await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self._back()

    async def fetch(self, sql: str, *values: Any) -> Sequence[Any]:
        """All rows of a statement.

        Raises one of OUTAGES while it is lost, and where there is no answer in time.
        """
        async with self._turn:
            connection = self._connection
            try:
                return await connection.fetch(sql, *values, timeout=_ANSWER_S)
            except TimeoutError:
                connection.terminate()
                raise

    def end(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.terminate()

    async def _is_back(self) -> bool:
        try:
            await self.open()
        except (*OUTAGES, asyncpg.PostgresError):
            return False
        return True


def _ended(lost: asyncio.Event, connection: object) -> None:
    lost.set()
