"""The shelf in Firestore: documents of small things, and how they are checked, written and read."""

from collections.abc import Sequence
from datetime import datetime

from casekeeper.clock import to_us
from casekeeper.journal.things import Drop, IsAt, Put, Thing, Topic, may_exist
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Query
from casekeeper.storage.firestore.parts import Ahead, Finds, Writes
from casekeeper.storage.firestore.view import View
from casekeeper.storage.rows import THING, picked, thing_of, thing_row

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
    shelves = {
        "shelf": _shelf(thing.kind, thing.about),
        "shelf_state": _shelf(thing.kind, thing.about, thing.state),
    }
    await view.put(at.thing(*r.name), {**thing_row(r), **shelves})


FINDS: Finds = {IsAt: _found}
WRITES: Writes = {Put: _put, Drop: lambda view, r: view.delete(at.thing(*r.name))}
AHEAD: Ahead = {kind: lambda one, _: [at.thing(*one.name)] for kind in (IsAt, Put, Drop)}


class FirestoreThings:
    """Implements `Things`."""

    def __init__(self, store: Firestore) -> None:
        self._store = store

    async def get(self, kind: str, id: str) -> Thing | None:  # noqa: A002 - as the thing has it
        found = await self._store.one(at.thing(kind, id)) if may_exist(kind, id) else None
        return thing_of(picked(THING, found.fields)) if found else None

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
        return [thing_of(picked(THING, one.fields)) for one in await self._store.query(wanted)]
