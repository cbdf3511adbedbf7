"""Statements for one row or many: of one row, which it is most of the time, in the form that costs least."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, bindparam, update
from sqlalchemy.sql import ClauseElement, TableValuedAlias

from casekeeper.storage.sql.statements import (
    SQLITE_BY_PLACE,
    IsInJson,
    Many,
    Parameters,
    Question,
    Row,
    Static,
)


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
