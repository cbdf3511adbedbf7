"""The shelf in SQL: the table of small things, and how they are checked, written and read."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from functools import partial as partial_of
from typing import Any, ClassVar

from sqlalchemy import Index, Table, bindparam, delete, select, tuple_

from casekeeper.casefiles.casefile import EraseContents
from casekeeper.clock import to_us
from casekeeper.journal.commits import Commit
from casekeeper.journal.things import Drop, IsAt, Put, Thing, Topic, may_exist
from casekeeper.storage.rows import thing_of, thing_row
from casekeeper.storage.sql.expressions import IsInJson
from casekeeper.storage.sql.parts import FindsHere, Part, TakesHere
from casekeeper.storage.sql.schema import binary, integer, metadata, partial, string
from casekeeper.storage.sql.statements import (
    Parameters,
    Question,
    Reads,
    Row,
    Static,
    Tx,
    Writing,
    replacing,
)

_DUE = "due_us IS NOT NULL"

THINGS = Table(
    "things",
    metadata,
    string("kind", key=True),
    string("id", key=True),
    # The key of its topic.
    string("about"),
    string("state"),
    integer("version"),
    integer("due_us", null=True),
    integer("created_us"),
    integer("updated_us"),
    binary("body"),
    Index("things_newest", "about", "kind", "created_us", "id"),
    Index("things_state", "about", "kind", "state", "created_us", "id"),
    partial("things_due", _DUE, "due_us", "id"),
    partial("things_due_of_kind", _DUE, "kind", "due_us", "id"),
)

_t = THINGS.c
_thing = (_t.kind == bindparam("kind"), _t.id == bindparam("id_"))
_GET = Static(select(THINGS).where(*_thing))
_VERSIONS = Static(
    select(_t.id, _t.version, _t.about).where(_t.kind == bindparam("kind"), IsInJson(_t.id, "ids"))
)
_DROP = Static(delete(THINGS).where(*_thing))
ERASE = Static(delete(THINGS).where(_t.about == bindparam("about")))
"""Deletes all things about a topic."""
_PUT = replacing(THINGS, "kind", "id")


@cache
def _page(by_state: bool, behind: bool) -> Static:
    # Each walks an index of its own from its newest end, and stops when the page is full.
    query = select(THINGS).where(_t.about == bindparam("about"), _t.kind == bindparam("kind"))
    if by_state:
        query = query.where(_t.state == bindparam("state"))
    if behind:
        place = tuple_(bindparam("before_us"), bindparam("before_id"))
        query = query.where(tuple_(_t.created_us, _t.id) < place)
    return Static(query.order_by(_t.created_us.desc(), _t.id.desc()).limit(bindparam("n")))


@cache
def _due(of_kind: bool) -> Static:
    query = select(THINGS).where(_t.due_us <= bindparam("now"))
    if of_kind:
        query = query.where(_t.kind == bindparam("kind"))
    return Static(query.order_by(_t.due_us, _t.id).limit(bindparam("n")))


class BatchThings(Part):
    """Things as one batch meets them: read once for all of its commits, written once at its end."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        # Version and topic, by kind and id.
        self._known: dict[tuple[str, str], tuple[int, str]] = {}
        self._changed: dict[tuple[str, str], Parameters] = {}
        self._dropped: set[tuple[str, str]] = set()

    def questions(self, commits: Iterable[Commit]) -> Iterator[Question]:
        """Which versions the things have that are asked for."""
        wanted: dict[str, set[str]] = {}
        for commit in commits:
            for condition in commit.conditions:
                if isinstance(condition, IsAt):
                    wanted.setdefault(condition.kind, set()).add(condition.id)
        for kind, ids in wanted.items():
            values = {"kind": kind, "ids": json.dumps(sorted(ids))}
            yield Question(_VERSIONS, values, partial_of(self._know, kind))

    def _know(self, kind: str, rows: list[Row]) -> None:
        self._known.update({(kind, id_): (version, about) for id_, version, about in rows})

    def _find(self, condition: IsAt) -> tuple[int, str] | None:
        return self._known.get(condition.name)

    def _put(self, record: Put) -> None:
        name = record.name
        self._known[name] = record.thing.version, record.thing.about.key
        self._dropped.discard(name)
        self._changed[name] = thing_row(record)

    def _drop(self, record: Drop) -> None:
        name = record.name
        self._known.pop(name, None)
        self._changed.pop(name, None)
        self._dropped.add(name)

    def _forget(self, record: EraseContents) -> None:
        # What the batch has put until then is written, to be erased with the rest.
        self._tx.write(self.changes())
        about = Topic("casefile", record.casefile_id).key
        self._known = {name: found for name, found in self._known.items() if found[1] != about}

    def changes(self) -> Sequence[Writing]:
        """What was put and dropped since the last call, to be written."""
        dropped: list[Writing] = [(_DROP, [{"kind": kind, "id_": id_}]) for kind, id_ in self._dropped]
        put = list(self._changed.values())
        self._dropped.clear()
        self._changed.clear()
        return (*dropped, (_PUT, put)) if put else dropped

    finds: ClassVar[FindsHere] = {IsAt: _find}
    takes: ClassVar[TakesHere] = {Put: _put, Drop: _drop, EraseContents: _forget}


class SqlThings:
    """Implements `Things`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def get(self, kind: str, id: str) -> Thing | None:  # noqa: A002 - as the thing has it
        if not may_exist(kind, id):
            return None
        row = await self._reads.point(lambda tx: tx.one(_GET, kind=kind, id_=id))
        return thing_of(row) if row else None

    async def page(
        self, kind: str, about: Topic, state: str | None, before: tuple[int, str] | None, limit: int
    ) -> Sequence[Thing]:
        if not may_exist(kind, about.id, state or ""):
            return []
        values: dict[str, Any] = {"kind": kind, "about": about.key, "n": limit}
        if state is not None:
            values["state"] = state
        if before is not None:
            values["before_us"], values["before_id"] = before
        page = _page(state is not None, before is not None)
        return [thing_of(row) for row in await self._reads.scan(lambda tx: tx.all(page, **values))]

    async def due(self, kind: str | None, now: datetime, limit: int) -> Sequence[Thing]:
        values: dict[str, Any] = {"now": to_us(now), "n": limit}
        if kind is not None:
            values["kind"] = kind
        due = _due(kind is not None)
        return [thing_of(row) for row in await self._reads.scan(lambda tx: tx.all(due, **values))]
