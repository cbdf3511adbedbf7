"""A transaction on SQLite."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ClauseElement

from casekeeper.storage.sql_statements import SQLITE, Bulk, Parameters, Row, Static

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

    def many(self, statement: Static, rows: Sequence[Parameters]) -> int:
        """Write many rows; returns how many were touched."""
        return self._connection.executemany(statement.sqlite({})[0], rows).rowcount

    def bulk(self, statement: Bulk, rows: Sequence[Parameters]) -> None:
        """Insert many rows."""
        for sql, values in statement.sqlite(rows):
            self._connection.execute(sql, values)

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
