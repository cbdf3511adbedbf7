"""Statements written once in SQLAlchemy Core, compiled once per database, run on the bare driver.

Going through an engine for every statement costs several times what SQLite needs to answer it; compiling ahead
keeps the statements portable and the hot path short.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from sqlalchemy import ColumnElement, Integer, Table, Text, bindparam, cast, func, literal_column, select
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import NullType

from casekeeper.journal.commits import Commit

T = TypeVar("T")

Row = tuple[Any, ...]
Parameters = Mapping[str, Any]

SQLITE = sqlite_dialect.dialect(paramstyle="named")
_SQLITE_BY_PLACE = sqlite_dialect.dialect(paramstyle="qmark")


class Static:
    """A statement whose text never changes; values come as named parameters."""

    def __init__(self, clause: ClauseElement) -> None:
        self._clause = clause
        self._sqlite: tuple[str, Parameters] | None = None
        self._by_place: tuple[str, Sequence[str], Parameters] | None = None

    def sqlite(self, values: Parameters) -> tuple[str, Parameters]:
        """Its text for SQLite, and the values with the constants that are written in the statement itself."""
        if self._sqlite is None:
            compiled = self._clause.compile(dialect=SQLITE)
            self._sqlite = str(compiled), _constants(compiled.params)
        text, constants = self._sqlite
        return text, {**constants, **values} if constants else values

    def by_place(self, dialect: Dialect, values: Parameters) -> tuple[str, list[Any]]:
        """Its text for a database whose parameters are numbered, and the values in their order."""
        if self._by_place is None:
            self._by_place = numbered(self._clause, dialect)
        text, names, constants = self._by_place
        given = {**constants, **values}
        return text, [given[name] for name in names]


def numbered(clause: ClauseElement, dialect: Dialect) -> tuple[str, Sequence[str], Parameters]:
    """A statement's text with numbered parameters, their names in order, and its constants."""
    compiled = clause.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    assert isinstance(compiled, SQLCompiler)
    return str(compiled), compiled.positiontup or (), _constants(compiled.params)


def _constants(params: Parameters | None) -> Parameters:
    return {name: value for name, value in (params or {}).items() if value is not None}


class Bulk:
    """An insert of many rows at once, which `finish` may turn into one that replaces.

    `rid`: PostgreSQL's expression for the column of that name, in which `n` counts the inserted rows from 1.
    """

    def __init__(
        self,
        table: Table,
        finish: Callable[[Insert], ClauseElement] = lambda new: new,
        *,
        rid: str | None = None,
    ) -> None:
        self._table = table
        self._finish = finish
        self._rid = rid
        self._columns = [column for column in table.c if column.name != "rid"]
        self._names = [column.name for column in self._columns]
        self._values = itemgetter(*self._names)
        self._texts: dict[int, str] = {}

    def sqlite(self, rows: Sequence[Parameters]) -> Iterator[tuple[str, list[Any]]]:
        """Statements of 32, 16, 8 … rows for SQLite, and their values by place.

        Every statement that runs lets go of the interpreter and gets it back late where others are busy; row by row
        that costs more than the rows do.
        """
        size, at = 32, 0
        while at < len(rows):
            while size > len(rows) - at:
                size //= 2
            chunk = rows[at : at + size]
            yield self._of_size(size), [*chain.from_iterable(map(self._values, chunk))]
            at += size

    def _of_size(self, size: int) -> str:
        if size not in self._texts:
            names = self._names
            rows: list[dict[str, Any]] = [
                {name: bindparam(f"{name}_{n}") for name in names} for n in range(size)
            ]
            text, places, _ = numbered(self._finish(insert(self._table).values(rows)), _SQLITE_BY_PLACE)
            assert list(places) == [f"{name}_{n}" for n in range(size) for name in names]
            self._texts[size] = text
        return self._texts[size]

    def unnested(self, dialect: Dialect, rows: Sequence[Parameters]) -> tuple[str, list[list[Any]]]:
        """One statement for any number of rows for PostgreSQL, and their values as one list for each column."""
        if 0 not in self._texts:
            names = self._names
            lists = [cast(bindparam(column.name), ARRAY(column.type)) for column in self._columns]
            place = "n" if self._rid else None
            new = func.unnest(*lists).table_valued(*names, name="new", with_ordinality=place).render_derived()
            columns: dict[str, ColumnElement[Any]] = {name: new.c[name] for name in names}
            if self._rid:
                columns["rid"] = literal_column(self._rid)
            adding = insert(self._table).from_select(list(columns), select(*columns.values()))
            text, places, _ = numbered(self._finish(adding), dialect)
            assert list(places) == names
            self._texts[0] = text
        return self._texts[0], [[row[name] for row in rows] for name in self._names]


class IsInJson(ColumnElement[Any]):
    """The column is in a JSON list of texts given as one parameter, so that the statement stays static."""

    # Not Boolean: databases without such a type would be asked whether it equals 1, and scan.
    type = NullType()
    inherit_cache = False

    def __init__(self, column: ColumnElement[str], parameter: str) -> None:
        self.column = column
        self.parameter = bindparam(parameter, type_=Text())


@compiles(IsInJson)
def _is_in_json(element: IsInJson, compiler: SQLCompiler, **more: Any) -> str:
    column, parameter = compiler.process(element.column, **more), compiler.process(element.parameter, **more)
    return f"{column} IN (SELECT value FROM json_each({parameter}))"  # noqa: S608 - names of ours


@compiles(IsInJson, "postgresql")
def _is_in_json_postgres(element: IsInJson, compiler: SQLCompiler, **more: Any) -> str:
    column, parameter = compiler.process(element.column, **more), compiler.process(element.parameter, **more)
    return f"{column} IN (SELECT jsonb_array_elements_text(({parameter})::jsonb))"


class BodyText(ColumnElement[str]):
    """Stored JSON bytes as text."""

    type = Text()
    inherit_cache = True

    def __init__(self, column: ColumnElement[bytes]) -> None:
        self.column = column


@compiles(BodyText)
def _body_text(element: BodyText, compiler: SQLCompiler, **more: Any) -> str:
    return f"CAST({compiler.process(element.column, **more)} AS TEXT)"


@compiles(BodyText, "postgresql")
def _body_text_postgres(element: BodyText, compiler: SQLCompiler, **more: Any) -> str:
    return f"convert_from({compiler.process(element.column, **more)}, 'UTF8')"


class Place(ColumnElement[int]):
    """Where a text begins within another, counted from 1; 0 if it is not there."""

    type = Integer()
    inherit_cache = True

    def __init__(self, within: ColumnElement[Any], text: ColumnElement[Any]) -> None:
        self.within = within
        self.sought = text


@compiles(Place)
def _place(element: Place, compiler: SQLCompiler, **more: Any) -> str:
    return f"instr({compiler.process(element.within, **more)}, {compiler.process(element.sought, **more)})"


@compiles(Place, "postgresql")
def _place_postgres(element: Place, compiler: SQLCompiler, **more: Any) -> str:
    return f"strpos({compiler.process(element.within, **more)}, {compiler.process(element.sought, **more)})"


class Tx(Protocol):
    """A transaction, or a reader's connection."""

    def one(self, statement: Static, **values: Any) -> Row | None:
        """The first row."""
        ...

    def all(self, statement: Static, **values: Any) -> list[Row]:
        """All rows."""
        ...

    def select(self, clause: ClauseElement, values: Parameters | None = None) -> list[Row]:
        """All rows of a statement put together for this call; compiling it costs a millisecond."""
        ...

    def run(self, statement: Static, **values: Any) -> int:
        """Write; returns how many rows were touched."""
        ...

    def many(self, statement: Static, rows: Sequence[Parameters]) -> int:
        """Write many rows; returns how many were touched, as far as the database says."""
        ...

    def bulk(self, statement: Bulk, rows: Sequence[Parameters]) -> None:
        """Insert many rows."""
        ...

    def text(self, sql: str, values: Any = ()) -> list[Row]:
        """A statement that only this database knows, like full-text search, with its kind of parameters."""
        ...

    def hold(self, commits: Sequence[Commit], *, feed: bool) -> None:
        """Keep others from writing what these commits look at and write, until the transaction ends.

        `feed`: the head of the permission feed as well, where they are judged by it or change it.

        Without effect where there is one writer.
        """
        ...

    def index(self, rid: int, words: Parameters) -> None:
        """Make the words and marks of a document found, which has been inserted just now."""
        ...

    def settle(self) -> None:
        """Write what was put off; the transaction can be committed then."""
        ...

    def unindex(self, casefile_id: str) -> None:
        """Make nothing of a casefile found any more."""
        ...

    def unindex_one(self, rid: int) -> None:
        """Make a document found no more; its row still says what it did when it was indexed."""
        ...


class Reads(Protocol):
    """How the readers of single rooms get at the database."""

    async def point(self, read: Callable[[Tx], T]) -> T:
        """Read a row or a short page by key; all statements of `read` see one snapshot."""
        ...

    async def scan(self, read: Callable[[Tx], T]) -> T:
        """Read something that may take long."""
        ...
