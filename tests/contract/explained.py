"""What a SQL store reads for a piece of work: PostgreSQL in rows by its own account, SQLite in steps; never in time."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.util import greenlet_spawn

from casekeeper.storage.postgres.store import PostgresTx
from casekeeper.storage.sql.statements import Row, Static, Tx
from casekeeper.storage.sqlite.transaction import SqliteTx

T = TypeVar("T")

# It comes without types.
_driver: Any = asyncpg

_AS_IF_LARGE = "; ".join(
    f"SET enable_{way} = off" for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin")
)


class Explained:
    """Reads a database and counts the statements, and the rows that their scans looked at."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.statements = 0
        self.rows = 0

    async def point(self, read: Callable[[Tx], T]) -> T:
        """Implements `Reads`."""
        connection = await _driver.connect(self._url)
        try:
            # As it plans where tables are large; small ones it reads as a whole, sorts and hashes.
            await connection.execute(f"ANALYZE; {_AS_IF_LARGE}")
            return await greenlet_spawn(read, _Explaining(connection, self))
        finally:
            await connection.close()

    async def scan(self, read: Callable[[Tx], T]) -> T:
        """Implements `Reads`."""
        return await self.point(read)

    def taken(self) -> tuple[int, int]:
        """The statements and rows since the last call."""
        taken, self.statements, self.rows = (self.statements, self.rows), 0, 0
        return taken

    def add(self, plan: Any) -> None:
        """Take in what one statement did."""
        self.statements += 1
        self.rows += _visited(plan)


class _Explaining(PostgresTx):
    def __init__(self, connection: Any, counts: Explained) -> None:
        super().__init__(connection)
        self._counts = counts

    def one(self, statement: Static, **values: Any) -> Row | None:
        return next(iter(self.all(statement, **values)), None)

    def text(self, sql: str, values: Any = ()) -> list[Row]:
        [[told]] = super().text(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", values)
        self._counts.add(json.loads(told)[0]["Plan"])
        return super().text(sql, values)


def _visited(node: Any) -> int:
    """The rows of all scans of a plan, those that a filter threw away as well."""
    below = sum(_visited(one) for one in node.get("Plans", ()))
    if "Relation Name" not in node:
        return below
    thrown = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
    return below + round((node["Actual Rows"] + thrown) * node["Actual Loops"])


class Stepped:
    """Reads a SQLite file and counts the steps of its machine: they grow with the rows that are looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.steps = 0

    async def point(self, read: Callable[[Tx], T]) -> T:
        """Implements `Reads`."""
        with closing(sqlite3.connect(self._path)) as connection:
            connection.set_progress_handler(self._step, 1)
            return read(SqliteTx(connection))

    async def scan(self, read: Callable[[Tx], T]) -> T:
        """Implements `Reads`."""
        return await self.point(read)

    def taken(self) -> int:
        """The steps since the last call."""
        taken, self.steps = self.steps, 0
        return taken

    def _step(self) -> int:
        self.steps += 1
        return 0
