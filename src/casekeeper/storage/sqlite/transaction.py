"""A transaction on SQLite."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ClauseElement

from casekeeper.storage.sql.statements import SQLITE, Many, Parameters, Question, Row, Static, Writing

_INDEXED = ("title", "sender", "recipients", "cc", "bcc", "filenames", "body", "scope")
_INDEX_DOCUMENTS = (
    f"INSERT INTO document_search(rowid, {', '.join(_INDEXED)}) "  # noqa: S608 - names of ours
    f"SELECT rid, {', '.join(_INDEXED)} FROM documents WHERE rid BETWEEN ? AND ?"
)
_UNINDEX_DOCUMENTS = (
    f"INSERT INTO document_search(document_search, rowid, {', '.join(_INDEXED)}) "  # noqa: S608 - likewise
    f"SELECT 'delete', rid, {', '.join(_INDEXED)} FROM documents "
    "WHERE casefile_id = :casefile_id AND deleted_us IS NULL"
)
_UNINDEX_ONE = (
    f"INSERT INTO document_search(document_search, rowid, {', '.join(_INDEXED)}) "  # noqa: S608 - likewise
    f"SELECT 'delete', rid, {', '.join(_INDEXED)} FROM documents WHERE rid = :rid"
)


class SqliteTx:
    """Implements `Tx` on SQLite."""

    is_remote = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._unindexed: list[int] = []

    def one(self, statement: Static, **values: Any) -> Row | None:
        """The first row."""
        return self._connection.execute(*statement.sqlite(values)).fetchone()

    def all(self, statement: Static, **values: Any) -> list[Row]:
        """All rows."""
        return self._connection.execute(*statement.sqlite(values)).fetchall()

    def select(self, clause: ClauseElement, values: Parameters | None = None) -> list[Row]:
        """All rows of a statement put together for this call; compiling it costs a millisecond."""
        compiled = clause.compile(dialect=SQLITE, compile_kwargs={"render_postcompile": True})
        return self._connection.execute(
            str(compiled), {**(compiled.params or {}), **(values or {})}
        ).fetchall()

    def run(self, statement: Static, **values: Any) -> int:
        """Write; returns how many rows were touched."""
        return self._connection.execute(*statement.sqlite(values)).rowcount

    def ask(self, questions: Sequence[Question]) -> None:
        """Have questions answered, in their order."""
        for question in questions:
            question.take(self._connection.execute(*question.statement.sqlite(question.values)).fetchall())

    def write(
        self, changes: Sequence[Writing], last: Static | None = None
    ) -> tuple[Sequence[int], Row | None]:
        """Write many rows, and then look at something."""
        counts = [self._write(statement, rows) for statement, rows in changes]
        return counts, None if last is None else self.one(last)

    def _write(self, statement: Many | Static, rows: Sequence[Parameters]) -> int:
        count = 0
        if isinstance(statement, Static):
            for row in rows:
                count += self._connection.execute(*statement.sqlite(row)).rowcount
        else:
            for sql, values in statement.sqlite(rows):
                count += self._connection.executemany(sql, values).rowcount
        return count

    def text(self, sql: str, values: Any = ()) -> list[Row]:
        """A statement that only this database knows, like full-text search."""
        return self._connection.execute(sql, values).fetchall()

    def index(self, rid: int, words: Parameters) -> None:
        """Make a document's words and marks found."""
        self._unindexed.append(rid)

    def settle(self) -> None:
        """Index what was inserted: each other statement in between would make a segment of the index."""
        if self._unindexed:
            # The only writer has given these numbers, one after the other.
            self._connection.execute(_INDEX_DOCUMENTS, (self._unindexed[0], self._unindexed[-1]))
            self._unindexed.clear()

    def unindex(self, casefile_id: str) -> None:
        """Make nothing of a casefile found any more."""
        self.settle()
        self._connection.execute(_UNINDEX_DOCUMENTS, {"casefile_id": casefile_id})

    def unindex_one(self, rid: int) -> None:
        """Make a document found no more."""
        self.settle()
        self._connection.execute(_UNINDEX_ONE, {"rid": rid})
