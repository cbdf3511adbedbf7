"""Statements written once in SQLAlchemy Core, compiled once per database, run on the bare driver.

Going through an engine for every statement costs several times what SQLite needs to answer it; compiling ahead
keeps the statements portable and the hot path short.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import TextClause, bindparam, text
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.sql import ClauseElement

Row = tuple[Any, ...]
Parameters = Mapping[str, Any]

_SQLITE = sqlite_dialect.dialect(paramstyle="named")
_SQLITE_BY_PLACE = sqlite_dialect.dialect(paramstyle="qmark")


class Static:
    """A statement whose text never changes; values come as named parameters."""

    def __init__(self, clause: ClauseElement) -> None:
        self._clause = clause
        self._sqlite: tuple[str, Parameters] | None = None

    def sqlite(self, values: Parameters) -> tuple[str, Parameters]:
        """Its text for SQLite, and the values with the constants that are written in the statement itself."""
        if self._sqlite is None:
            compiled = self._clause.compile(dialect=_SQLITE)
            constants = {name: value for name, value in (compiled.params or {}).items() if value is not None}
            self._sqlite = str(compiled), constants
        text, constants = self._sqlite
        return text, {**constants, **values} if constants else values


class Bulk:
    """An insert of many rows at once, in statements of 32, 16, 8 … rows.

    Every statement that runs lets go of the interpreter and gets it back late where others are busy; row by row
    that costs more than the rows do.
    """

    def __init__(
        self, columns: Sequence[str], build: Callable[[list[dict[str, Any]]], ClauseElement]
    ) -> None:
        self._columns = columns
        self._build = build
        self._texts: dict[int, str] = {}

    def sqlite(self, rows: Sequence[Parameters]) -> Iterator[tuple[str, list[Any]]]:
        """The statements and their values, by place."""
        size, at = 32, 0
        while at < len(rows):
            while size > len(rows) - at:
                size //= 2
            chunk = rows[at : at + size]
            yield self._text(size), [row[name] for row in chunk for name in self._columns]
            at += size

    def _text(self, size: int) -> str:
        if size not in self._texts:
            rows: list[dict[str, Any]] = [
                {name: bindparam(f"{name}_{n}") for name in self._columns} for n in range(size)
            ]
            compiled = self._build(rows).compile(dialect=_SQLITE_BY_PLACE)
            assert compiled.positiontup == [f"{name}_{n}" for n in range(size) for name in self._columns]  # type: ignore[attr-defined]
            self._texts[size] = str(compiled)
        return self._texts[size]


def is_in_json(column: str, parameter: str) -> TextClause:
    """The column is in a JSON list given as one parameter, so that the statement stays static."""
    return text(f"{column} IN (SELECT value FROM json_each(:{parameter}))")  # noqa: S608 - both are names of ours


class Tx:
    """A transaction, or a reader's connection, on SQLite."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def one(self, statement: Static, **values: Any) -> Row | None:
        """The first row."""
        return self._connection.execute(*statement.sqlite(values)).fetchone()

    def all(self, statement: Static, **values: Any) -> list[Row]:
        """All rows."""
        return self._connection.execute(*statement.sqlite(values)).fetchall()

    def select(self, clause: ClauseElement, values: Parameters | None = None) -> list[Row]:
        """All rows of a statement put together for this call; compiling it costs a millisecond."""
        compiled = clause.compile(dialect=_SQLITE, compile_kwargs={"render_postcompile": True})
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

    def text(self, sql: str, values: Parameters | None = None) -> list[Row]:
        """A statement that only this database knows, like full-text search."""
        return self._connection.execute(sql, values or {}).fetchall()
