"""What SQLite does for a piece of work, counted in steps and never in time."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from casekeeper.storage.sql.statements import Tx
from casekeeper.storage.sqlite.store import connect
from casekeeper.storage.sqlite.transaction import SqliteTx

T = TypeVar("T")


class Counted:
    """A connection that counts the steps of SQLite's virtual machine and keeps what it ran."""

    def __init__(self, path: Path, *, read_only: bool = True) -> None:
        self.connection = connect(path, read_only=read_only)
        self.statements: list[str] = []
        self.steps = 0

    async def point(self, read: Callable[[Tx], T]) -> T:
        """Implements `Reads`."""
        return self.watch(read)

    async def scan(self, read: Callable[[Tx], T]) -> T:
        """Implements `Reads`."""
        return self.watch(read)

    def watch(self, work: Callable[[Tx], T]) -> T:
        """Do some work, counted."""
        self.connection.set_progress_handler(self._step, 1)
        self.connection.set_trace_callback(self.statements.append)
        try:
            return work(SqliteTx(self.connection))
        finally:
            self.connection.set_progress_handler(None, 0)
            self.connection.set_trace_callback(None)

    def taken(self) -> int:
        """The steps since the last call."""
        steps, self.steps = self.steps, 0
        return steps

    def plans(self) -> list[str]:
        """How SQLite would run each statement; those inside triggers and of transactions are left out."""
        lines: list[str] = []
        for statement in self.statements:
            if statement.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE"):
                rows = self.connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
                lines += [f"{row[3]} <- {statement}" for row in rows]
        return lines

    def _step(self) -> int:
        self.steps += 1
        return 0
