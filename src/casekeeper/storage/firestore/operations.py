"""Open operations in Firestore: how they are written, from start to end, and read."""

from collections.abc import Callable, Sequence
from datetime import datetime

from casekeeper.clock import to_us
from casekeeper.journal import operations as ops
from casekeeper.journal.events import Sealed
from casekeeper.journal.operations import NOBODY, OpenedOperation
from casekeeper.sessions.session import SessionIsIdle
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Fields, Query, StoredDocument
from casekeeper.storage.firestore.parts import Ahead, Finds, Writes
from casekeeper.storage.firestore.presence import Workers
from casekeeper.storage.firestore.view import View
from casekeeper.storage.rows import OPENED, opened_of, opened_row, picked, us

_OPEN_MAX = 1_000


def begin(view: View, operation: ops.OpenOperation, started: Sealed, claim: str | None) -> None:
    """Write the row of an operation that has started; its claim is named, so that releasing it costs no search."""
    view.create(at.open_operation(operation.event_id), {**opened_row(operation, started), "claim": claim})


async def _change(view: View, operation: ops.OperationRef, change: Callable[[Fields], Fields]) -> None:
    path = at.open_operation(operation.event_id)
    opened = await view.get(path)
    if opened is not None:
        await view.put(path, {**opened, **change(opened)})


async def _ask_to_stop(view: View, r: ops.AskToStop) -> None:
    def asked(row: Fields) -> Fields:
        return {"stop": r.reason, "wake_us": row.get("wake_us") if row["owner"] else 0}

    await _change(view, r.operation, asked)


async def _park(view: View, r: ops.ParkOperation) -> None:
    def parked(row: Fields) -> Fields:
        # Woken, or asked to stop, before it parked: a word that came too early must not be lost, nor come later than it.
        woken_us = row.get("wake_us") if row["owner"] else None
        wake_us = 0 if row.get("stop") is not None else _earlier(us(r.wake_at), woken_us)
        return {"owner": NOBODY, "state": "waiting", "held": r.held.to_text(), "wake_us": wake_us}

    await _change(view, r.operation, parked)


async def _take_over(view: View, r: ops.TakeOver) -> None:
    def taken(row: Fields) -> Fields:
        attempt = row.get("attempt", 1) + 1
        held = r.held.to_text()
        return {"owner": r.owner, "state": "running", "attempt": attempt, "wake_us": None, "held": held}

    await _change(view, r.operation, taken)


async def _wake(view: View, r: ops.Wake) -> None:
    def woken(row: Fields) -> Fields:
        return {"wake_us": _earlier(row.get("wake_us"), to_us(r.at))}

    await _change(view, r.operation, woken)


def _earlier(one_us: int | None, other_us: int | None) -> int | None:
    return min((us for us in (one_us, other_us) if us is not None), default=None)


async def _owner(view: View, c: ops.OwnedBy) -> tuple[str, int] | None:
    opened = await view.get(at.open_operation(c.operation.event_id))
    return None if opened is None else (opened["owner"], opened.get("attempt", 1))


async def _in_session(view: View, c: SessionIsIdle) -> list[str]:
    # The tail comes first: whatever starts after it takes the number that the closing fact needs.
    if casefile_id := await view.casefile_of(c.session_id):
        await view.tail(casefile_id, c.session_id)
    found = await view.find(Query("open_operations", where=(("session_id", "==", c.session_id),)))
    there = [path for path in found if await view.get(path) is not None]
    begun = [path for path, fields in view.made("open_operations/") if fields["session_id"] == c.session_id]
    return [path.partition("/")[2] for path in dict.fromkeys((*there, *begun))]


FINDS: Finds = {
    ops.OperationIsOpen: lambda view, c: view.get(at.open_operation(c.operation.event_id)),
    ops.OwnedBy: _owner,
    SessionIsIdle: _in_session,
}
WRITES: Writes = {
    ops.CloseOperation: lambda view, r: view.delete(at.open_operation(r.operation.event_id)),
    ops.AskToStop: _ask_to_stop,
    ops.ParkOperation: _park,
    ops.TakeOver: _take_over,
    ops.Wake: _wake,
}
AHEAD: Ahead = {
    kind: lambda one, _: [at.open_operation(one.operation.event_id)]
    for kind in (ops.OperationIsOpen, ops.OwnedBy, *WRITES)
}


class FirestoreOperations:
    """Implements `OpenOperations`."""

    def __init__(self, store: Firestore, workers: Workers) -> None:
        self._store = store
        self._workers = workers

    async def open_operations(self, session_id: str) -> Sequence[OpenedOperation]:
        return await self._open_where("session_id", session_id)

    async def open_inside(self, root_event_id: str) -> Sequence[OpenedOperation]:
        found = await self._open_where("root_event_id", root_event_id)
        return [one for one in found if one.row.parent is not None]

    async def _open_where(self, name: str, value: str) -> Sequence[OpenedOperation]:
        found = await self._store.query(Query("open_operations", where=((name, "==", value),)))
        return sorted(map(_opened, found), key=_age)

    async def open_of(self, casefile_id: str | None, user_id: str | None) -> Sequence[OpenedOperation]:
        named = (("casefile_id", casefile_id), ("user_id", user_id))
        where = tuple((name, "==", value) for name, value in named if value is not None)
        found: list[OpenedOperation] = []
        for state in ("waiting", "running"):
            wanted = Query("open_operations", where=(*where, ("state", "==", state)), limit=_OPEN_MAX)
            found += sorted(map(_opened, await self._store.query(wanted)), key=_age)
        return found[:_OPEN_MAX]

    async def orphans(self, owner: str, limit: int) -> Sequence[OpenedOperation]:
        return await self._workers.orphans(owner, limit)

    async def opened(self, event_ids: Sequence[str]) -> Sequence[OpenedOperation]:
        found = await self._store.get([at.open_operation(event_id) for event_id in event_ids])
        return [_opened(one) for one in found.values()]

    async def due(self, limit: int) -> Sequence[OpenedOperation]:
        # Asked so, no index of two fields is needed; the few that run and were woken already are passed over here.
        where, order, asked = (("wake_us", ">=", 0),), (("wake_us", "asc"),), limit
        while True:
            wanted = Query("open_operations", where=where, order=order, limit=asked)
            found = await self._store.query(wanted)
            waiting = [one for one in found if one.fields["owner"] == NOBODY]
            if len(waiting) >= limit or len(found) < asked:
                return [_opened(one) for one in waiting[:limit]]
            # They came first, and must not hide what waits behind them.
            asked *= 4

    async def asked_to_stop(self, owner: str) -> Sequence[tuple[str, str]]:
        found = await self._store.query(Query("open_operations", where=(("owner", "==", owner),)))
        return [(one.fields["event_id"], stop) for one in found if (stop := one.fields.get("stop"))]


def _opened(found: StoredDocument) -> OpenedOperation:
    return opened_of(picked(OPENED, found.fields))


def _age(one: OpenedOperation) -> tuple[datetime, str]:
    return one.row.started_at, one.row.event_id
