"""Small things in Firestore: their documents, how a batch looks at them and writes them, and how they are read."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from casekeeper.clock import from_us, to_us
from casekeeper.journal.commits import Condition, Record
from casekeeper.journal.things import Drop, IsAt, Put, Thing, Topic, body_of, may_exist, topic_of
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Fields, Query
from casekeeper.storage.firestore.rows import instant, us
from casekeeper.storage.firestore.view import View

_NEWEST = (("created_us", "desc"), ("id", "desc"))
_LONGEST_DUE = (("due_us", "asc"), ("id", "asc"))


def _shelf(kind: str, about: Topic, state: str | None = None) -> str:
    """One field for all that a page asks for: to join indexes costs what is in them, others' things included."""
    return " ".join((about.key, kind) if state is None else (about.key, kind, state))


async def _found(view: View, c: IsAt) -> tuple[int, str] | None:
    row = await view.get(at.thing(*c.name))
    return (row["version"], row["about"]) if row else None


async def _put(view: View, r: Put) -> None:
    thing = r.thing
    row = {
        "kind": thing.kind,
        "id": thing.id,
        "about": thing.about.key,
        "shelf": _shelf(thing.kind, thing.about),
        "shelf_state": _shelf(thing.kind, thing.about, thing.state),
        "state": thing.state,
        "version": thing.version,
        "due_us": us(thing.due_at),
        "created_us": to_us(thing.created_at),
        "updated_us": to_us(thing.updated_at),
        "body": r.body,
    }
    await view.put(at.thing(*r.name), row)


THING_CONDITIONS: dict[type[Condition], Callable[[View, Any], Awaitable[Any]]] = {IsAt: _found}
"""What a condition on a thing is given."""

THING_RECORDS: dict[type[Record], Callable[[View, Any], Awaitable[None]]] = {
    Put: _put,
    Drop: lambda view, r: view.delete(at.thing(*r.name)),
}
"""How things are written."""


class FirestoreThings:
    """Implements `Things`."""

    def __init__(self, store: Firestore) -> None:
        self._store = store

    async def get(self, kind: str, id: str) -> Thing | None:  # noqa: A002 - as the thing has it
        found = await self._store.one(at.thing(kind, id)) if may_exist(kind, id) else None
        return _thing_of(found.fields) if found else None

    async def page(
        self, kind: str, about: Topic, state: str | None, before: tuple[int, str] | None, limit: int
    ) -> Sequence[Thing]:
        if not may_exist(kind, about.id, state or ""):
            return []
        where = (("shelf" if state is None else "shelf_state", "==", _shelf(kind, about, state)),)
        return await self._things(Query("things", where=where, order=_NEWEST, after=before, limit=limit))

    async def due(self, kind: str | None, now: datetime, limit: int) -> Sequence[Thing]:
        where = (("due_us", "<=", to_us(now)),)
        if kind is not None:
            where = (("kind", "==", kind), *where)
        return await self._things(Query("things", where=where, order=_LONGEST_DUE, limit=limit))

    async def _things(self, wanted: Query) -> Sequence[Thing]:
        return [_thing_of(one.fields) for one in await self._store.query(wanted)]


def _thing_of(row: Fields) -> Thing:
    return Thing(
        kind=row["kind"],
        id=row["id"],
        about=topic_of(row["about"]),
        state=row["state"],
        version=row["version"],
        due_at=instant(row["due_us"]),
        created_at=from_us(row["created_us"]),
        updated_at=from_us(row["updated_us"]),
        body=body_of(row["body"]),
    )
