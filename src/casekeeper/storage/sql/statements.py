"""Statements written once in SQLAlchemy Core, compiled once per database, run on the bare driver.

Going through an engine for every statement costs several times what SQLite needs to answer it; compiling ahead
keeps the statements portable and the hot path short.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from sqlalchemy import ColumnElement, Integer, Table, Text, bindparam, cast, func, literal_column, select
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement, TableValuedAlias
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import NullType

from casekeeper.values import value

T = TypeVar("T")

Row = tuple[Any, ...]
Parameters = Mapping[str, Any]

SQLITE = sqlite_dialect.dialect(paramstyle="named")
SQLITE_BY_PLACE = sqlite_dialect.dialect(paramstyle="qmark")


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


class Many:
    """A statement for any number of rows, each a value for each of these columns."""

    def __init__(self, columns: Sequence[ColumnElement[Any]]) -> None:
        self._columns = columns
        self._names = [str(column.key) for column in columns]
        self._values = itemgetter(*self._names)
        self._one = self._many = ""
        # The name of the column that counts the rows, where the statement wants one.
        self._place: str | None = None

    def sqlite(self, rows: Sequence[Parameters]) -> Iterator[tuple[str, Iterable[Sequence[Any]]]]:
        """Statements for SQLite, each with the values by place of every time that it is run."""
        raise NotImplementedError

    def of_one(self, dialect: Dialect, row: Parameters) -> tuple[str, list[Any]]:
        """The statement for a single row for PostgreSQL, and its values."""
        if not self._one:
            self._one = self._compiled(self._of_row(), dialect)
        return self._one, [*self._values(row)]

    def of_many(self, dialect: Dialect, rows: Sequence[Parameters]) -> tuple[str, list[Any]]:
        """The statement for any number of rows for PostgreSQL, and its values as a list for each column.

        Lists cost the driver ten times as much as what is in them.
        """
        if not self._many:
            lists = [cast(bindparam(str(column.key)), ARRAY(column.type)) for column in self._columns]
            new = func.unnest(*lists).table_valued(*self._names, name="new", with_ordinality=self._place)
            self._many = self._compiled(self._of_rows(new.render_derived()), dialect)
        return self._many, [*map(list, zip(*map(self._values, rows), strict=True))]

    def _compiled(self, clause: ClauseElement, dialect: Dialect) -> str:
        text, places, _ = numbered(clause, dialect)
        assert [place.rstrip("_") for place in places] == self._names
        return text

    def _of_row(self) -> ClauseElement:
        """The statement for one row."""
        raise NotImplementedError

    def _of_rows(self, new: TableValuedAlias) -> ClauseElement:
        """The statement for all rows of a table of new values."""
        raise NotImplementedError


class Bulk(Many):
    """An insert of many rows at once, which `finish` may turn into one that replaces.

    `rid`: PostgreSQL's expression for the column of that name, in which `{n}` counts the inserted rows from 1.
    """

    def __init__(
        self,
        table: Table,
        finish: Callable[[Insert], ClauseElement] = lambda new: new,
        *,
        rid: str | None = None,
    ) -> None:
        super().__init__([column for column in table.c if column.name != "rid"])
        self._table = table
        self._finish = finish
        self._rid = rid
        self._place = "n" if rid else None
        self._texts: dict[int, str] = {}

    def sqlite(self, rows: Sequence[Parameters]) -> Iterator[tuple[str, Iterable[Sequence[Any]]]]:
        """Statements of 32, 16, 8 … rows for SQLite, and their values by place.

        Every statement that runs lets go of the interpreter and gets it back late where others are busy; row by row
        that costs more than the rows do.
        """
        size, at = 32, 0
        while at < len(rows):
            while size > len(rows) - at:
                size //= 2
            chunk = rows[at : at + size]
            yield self._of_size(size), ([*chain.from_iterable(map(self._values, chunk))],)
            at += size

    def _of_size(self, size: int) -> str:
        if size not in self._texts:
            names = self._names
            rows: list[dict[str, Any]] = [
                {name: bindparam(f"{name}_{n}") for name in names} for n in range(size)
            ]
            text, places, _ = numbered(self._finish(insert(self._table).values(rows)), SQLITE_BY_PLACE)
            assert list(places) == [f"{name}_{n}" for n in range(size) for name in names]
            self._texts[size] = text
        return self._texts[size]

    def _of_row(self) -> ClauseElement:
        values: dict[str, ColumnElement[Any]] = {name: bindparam(name) for name in self._names}
        if self._rid:
            values["rid"] = literal_column(self._rid.format(n=1))
        new = insert(self._table).values(values)
        # Nobody asks for the number that the database gives.
        return self._finish(new.inline())

    def _of_rows(self, new: TableValuedAlias) -> ClauseElement:
        columns: dict[str, ColumnElement[Any]] = {name: new.c[name] for name in self._names}
        if self._rid:
            columns["rid"] = literal_column(self._rid.format(n="n"))
        return self._finish(insert(self._table).from_select(list(columns), select(*columns.values())))


Writing = tuple[Many | Static, Sequence[Parameters]]
"""A statement that writes, and the rows it writes; a static one has the values of one run."""


@value
class Question:
    """What a transaction wants to know, and who takes the rows that answer it."""

    statement: Static
    values: Parameters
    take: Callable[[list[Row]], None]


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

    is_remote: bool
    """Whether each statement takes a way to a server and back."""

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

    def ask(self, questions: Sequence[Question]) -> None:
        """Have questions answered, all of one state where that is one statement, and in their order otherwise."""
        ...

    def write(
        self, changes: Sequence[Writing], last: Static | None = None
    ) -> tuple[Sequence[int], Row | None]:
        """Write many rows, and then look at something; returns how many rows each change has touched, and what was seen.

        No two changes may touch the same row, since it may be one statement that does all of them.
        """
        ...

    def text(self, sql: str, values: Any = ()) -> list[Row]:
        """A statement that only this database knows, like full-text search, with its kind of parameters."""
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
