"""Small things in SQLite and PostgreSQL: their table, how a batch meets them, and how they are read."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache, partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    LargeBinary,
    Table,
    Text,
    bindparam,
    delete,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.sql import ClauseElement

from casekeeper.clock import from_us, to_us
from casekeeper.journal.things import Drop, IsAt, Put, Thing, Topic, body_of, may_exist, topic_of
from casekeeper.storage.sql.schema import metadata
from casekeeper.storage.sql.statements import (
    Bulk,
    IsInJson,
    Parameters,
    Question,
    Reads,
    Row,
    Static,
    Tx,
    Writing,
)
from casekeeper.storage.sql.writing import us

_DUE = text("due_us IS NOT NULL")

THINGS = Table(
    "things",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    # The key of its topic.
    Column("about", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("due_us", BigInteger),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("things_newest", "about", "kind", "created_us", "id"),
    Index("things_state", "about", "kind", "state", "created_us", "id"),
    Index("things_due", "due_us", "id", sqlite_where=_DUE, postgresql_where=_DUE),
    Index("things_due_of_kind", "kind", "due_us", "id", sqlite_where=_DUE, postgresql_where=_DUE),
)

_t = THINGS.c
_thing = (_t.kind == bindparam("kind"), _t.id == bindparam("id_"))
_GET = Static(select(THINGS).where(*_thing))
_VERSIONS = Static(
    select(_t.id, _t.version, _t.about).where(_t.kind == bindparam("kind"), IsInJson(_t.id, "ids"))
)
_DROP = Static(delete(THINGS).where(*_thing))
ERASE = Static(delete(THINGS).where(_t.about == bindparam("about")))
"""Takes away all that is about a topic."""


def _replace(new: Insert) -> ClauseElement:
    changed = {c.name: new.excluded[c.name] for c in _t if c.name not in ("kind", "id")}
    return new.on_conflict_do_update(index_elements=["kind", "id"], set_=changed)


_PUT = Bulk(THINGS, _replace)


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


class BatchThings:
    """Things as one batch meets them: read once for all of its commits, written once at its end."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        # Version and topic, by kind and id.
        self._known: dict[tuple[str, str], tuple[int, str]] = {}
        self._put: dict[tuple[str, str], Parameters] = {}
        self._dropped: set[tuple[str, str]] = set()

    def questions(self, conditions: Iterable[IsAt]) -> Iterator[Question]:
        """Which versions the things have that are asked for."""
        wanted: dict[str, set[str]] = {}
        for condition in conditions:
            wanted.setdefault(condition.kind, set()).add(condition.id)
        for kind, ids in wanted.items():
            values = {"kind": kind, "ids": json.dumps(sorted(ids))}
            yield Question(_VERSIONS, values, partial(self._know, kind))

    def _know(self, kind: str, rows: list[Row]) -> None:
        self._known.update({(kind, id_): (version, about) for id_, version, about in rows})

    def find(self, condition: IsAt) -> tuple[int, str] | None:
        """The thing's version and topic within the batch."""
        return self._known.get(condition.name)

    def put(self, record: Put) -> None:
        """Make or replace a thing."""
        thing, name = record.thing, record.name
        self._known[name] = thing.version, thing.about.key
        self._dropped.discard(name)
        self._put[name] = {
            "kind": thing.kind,
            "id": thing.id,
            "about": thing.about.key,
            "state": thing.state,
            "version": thing.version,
            "due_us": us(thing.due_at),
            "created_us": to_us(thing.created_at),
            "updated_us": to_us(thing.updated_at),
            "body": record.body,
        }

    def drop(self, record: Drop) -> None:
        """Take a thing away."""
        name = record.name
        self._known.pop(name, None)
        self._put.pop(name, None)
        self._dropped.add(name)

    def forget(self, about: Topic) -> None:
        """What is about this topic will be erased: write what the batch has put until then, and know none of it."""
        self._tx.write(self.changes())
        self._known = {name: found for name, found in self._known.items() if found[1] != about.key}

    def changes(self) -> Sequence[Writing]:
        """What was put and dropped since the last call, to be written."""
        dropped: list[Writing] = [(_DROP, [{"kind": kind, "id_": id_}]) for kind, id_ in self._dropped]
        put = list(self._put.values())
        self._dropped.clear()
        self._put.clear()
        return (*dropped, (_PUT, put)) if put else dropped


class SqlThings:
    """Implements `Things`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def get(self, kind: str, id: str) -> Thing | None:  # noqa: A002 - as the thing has it
        if not may_exist(kind, id):
            return None
        row = await self._reads.point(lambda tx: tx.one(_GET, kind=kind, id_=id))
        return _thing_of(row) if row else None

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
        return [_thing_of(row) for row in await self._reads.scan(lambda tx: tx.all(page, **values))]

    async def due(self, kind: str | None, now: datetime, limit: int) -> Sequence[Thing]:
        values: dict[str, Any] = {"now": to_us(now), "n": limit}
        if kind is not None:
            values["kind"] = kind
        due = _due(kind is not None)
        return [_thing_of(row) for row in await self._reads.scan(lambda tx: tx.all(due, **values))]


def _thing_of(row: Row) -> Thing:
    kind, id_, about, state, version, due_us, created_us, updated_us, body = row
    return Thing(
        kind=kind,
        id=id_,
        about=topic_of(about),
        state=state,
        version=version,
        due_at=None if due_us is None else from_us(due_us),
        created_at=from_us(created_us),
        updated_at=from_us(updated_us),
        body=body_of(body),
    )
