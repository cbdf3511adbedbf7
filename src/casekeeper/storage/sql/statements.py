"""Statements written once in SQLAlchemy Core, compiled once per database, run on the bare driver.

Going through an engine for every statement costs several times what SQLite needs to answer it; compiling ahead
keeps the statements portable and the hot path short.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from sqlalchemy import ColumnElement, Select, Table, bindparam, cast, func, literal_column, select, update
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement, TableValuedAlias
from sqlalchemy.sql.compiler import SQLCompiler

from casekeeper.storage.sql.expressions import IsInJson
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


class BulkUpdate(Many):
    """Changes some columns of many rows, each found by another one, if `where` holds for it."""

    def __init__(
        self, table: Table, found_by: str, *changed: str, where: ColumnElement[bool] | None = None
    ) -> None:
        # In the order in which the table's columns are, which is that of an update's parameters.
        super().__init__([*(c for c in table.c if c.name in changed), table.c[found_by]])
        self._table = table
        self._changed = changed
        self._found_by = found_by
        self._where = () if where is None else (where,)
        self._text = ""

    def sqlite(self, rows: Sequence[Parameters]) -> Iterator[tuple[str, Iterable[Sequence[Any]]]]:
        """One statement, run for each row."""
        if not self._text:
            self._text = self._compiled(self._of_row(), SQLITE_BY_PLACE)
        yield self._text, map(self._values, rows)

    def _of_row(self) -> ClauseElement:
        # SQLAlchemy keeps the names of columns for itself.
        return self._update({name: bindparam(f"{name}_") for name in self._names})

    def _of_rows(self, new: TableValuedAlias) -> ClauseElement:
        return self._update({name: new.c[name] for name in self._names})

    def _update(self, values: Mapping[str, ColumnElement[Any]]) -> ClauseElement:
        found = self._table.c[self._found_by] == values[self._found_by]
        changed = {name: values[name] for name in self._changed}
        return update(self._table).where(found, *self._where).values(changed)


Writing = tuple[Many | Static, Sequence[Parameters]]
"""A statement that writes, and the rows it writes; a static one has the values of one run."""


@value
class Question:
    """What a transaction wants to know, and who takes the rows that answer it."""

    statement: Static
    values: Parameters
    take: Callable[[list[Row]], None]


class ByIds:
    """Looks for the rows of some ids in a column."""

    def __init__(self, rows: Select[*tuple[Any, ...]], column: ColumnElement[str]) -> None:
        self._one = Static(rows.where(column == bindparam("id")))
        self._some = Static(rows.where(IsInJson(column, "ids")))

    def question(self, ids: Collection[str], take: Callable[[list[Row]], None]) -> Question:
        """What is asked, of one id at least."""
        if len(ids) == 1:
            return Question(self._one, {"id": next(iter(ids))}, take)
        return Question(self._some, {"ids": json.dumps(list(ids))}, take)


def insert_into(table: Table) -> Static:
    """Insert a row with all columns but the number that the database gives."""
    return Static(insert(table).values({c.name: bindparam(c.name) for c in table.c if c.name != "rid"}))


def put_into(table: Table, *keys: str, keep: tuple[str, ...] = ()) -> Static:
    """Insert, or replace all but the keys and what is to be kept."""
    new = insert(table).values({c.name: bindparam(c.name) for c in table.c if c.name not in keep})
    changed = {c.name: new.excluded[c.name] for c in table.c if c.name not in (*keys, *keep)}
    return Static(new.on_conflict_do_update(index_elements=list(keys), set_=changed))


def replacing(table: Table, *keys: str) -> "Bulk":
    """Inserts rows, or replaces those of the same keys."""

    def finish(new: Insert) -> ClauseElement:
        changed = {c.name: new.excluded[c.name] for c in table.c if c.name not in keys}
        return new.on_conflict_do_update(index_elements=list(keys), set_=changed)

    return Bulk(table, finish)


# As they are. Looked at by exact type: this is done for each value of each row.
_PLAIN = frozenset({str, int, bytes, type(None)})


def encoded(row: Parameters) -> dict[str, Any]:
    """A row as these stores keep it: truth as 0 or 1, JSON as text."""
    return {name: given if type(given) in _PLAIN else _encoded(given) for name, given in row.items()}


def _encoded(given: Any) -> Any:
    if isinstance(given, bool):
        return int(given)
    return json.dumps(given) if isinstance(given, list | dict) else given


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
