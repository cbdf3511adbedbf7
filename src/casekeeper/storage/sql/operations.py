"""Open operations in SQL: their table, how they are written, from start to end, and read."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Subquery,
    Table,
    Text,
    bindparam,
    case,
    delete,
    literal_column,
    null,
    select,
    union_all,
    update,
)

from casekeeper.clock import to_us
from casekeeper.journal import operations as ops
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Sealed
from casekeeper.journal.operations import NOBODY, OpenedOperation
from casekeeper.sessions.session import SessionIsIdle
from casekeeper.storage.rows import OPENED, opened_of, opened_row, us
from casekeeper.storage.sql.expressions import IsInJson
from casekeeper.storage.sql.parts import FindsHere, Part, TakesHere, Writes
from casekeeper.storage.sql.schema import integer, metadata, partial, string
from casekeeper.storage.sql.statements import (
    Bulk,
    ByIds,
    Parameters,
    Question,
    Reads,
    Row,
    Static,
    Tx,
    Writing,
    encoded,
)

OPEN_OPERATIONS = Table(
    "open_operations",
    metadata,
    string("event_id", key=True),
    string("casefile_id"),
    string("session_id"),
    string("parent_event_id", null=True),
    string("root_event_id"),
    string("user_id"),
    string("actor"),
    string("operation_type"),
    string("operation_name"),
    string("request_id", null=True),
    string("owner"),
    string("state"),
    integer("started_us"),
    # Nobody reads it. Processes of older versions, which may share the database, write it and it may not be missing.
    integer("heartbeat_us"),
    integer("started_seq"),
    string("inputs_commit"),
    string("stop", null=True),
    integer("attempt", default="1"),
    integer("wake_us", null=True),
    integer("tainted", default="0"),
    integer("approved", default="0"),
    string("held", null=True),
    # What runs is few however many wait, so one index of it is enough, and all that a call pays for. What waits costs it nothing.
    partial("open_operations_running", "owner <> ''", "session_id"),
    partial("open_operations_inside", "parent_event_id IS NOT NULL", "root_event_id"),
    partial("open_operations_due", "wake_us IS NOT NULL AND owner = ''", "wake_us"),
    partial("open_operations_waiting_in", "owner = ''", "casefile_id", "user_id"),
    partial("open_operations_waiting_of", "owner = ''", "user_id"),
    partial("open_operations_waiting_at", "owner = ''", "session_id"),
)

_o = OPEN_OPERATIONS.c
_OPENED = [_o[name] for name in OPENED]
_AT_ONCE, _NOBODY = literal_column("0", BigInteger()), literal_column("''", Text())
_WAKE_AT = bindparam("wake_", type_=BigInteger())
_IS_IT = _o.event_id == bindparam("id_")
_RUNS, _WAITS = _o.owner != _NOBODY, _o.owner == _NOBODY

_HELD_BY = ByIds(select(_o.event_id, _o.owner, _o.attempt), _o.event_id)
_CLOSE = Static(delete(OPEN_OPERATIONS).where(IsInJson(_o.event_id, "event_ids")))
_OPEN = Bulk(OPEN_OPERATIONS)
_PARK = Static(
    update(OPEN_OPERATIONS)
    .where(_IS_IT)
    .values(
        owner=_NOBODY,
        state="waiting",
        held=bindparam("held_"),
        # Woken, or asked to stop, before it parked: a word that came too early must not be lost, nor come later than it.
        wake_us=case(
            (_o.stop.is_not(None), _AT_ONCE),
            (_RUNS & (_WAKE_AT.is_(None) | (_o.wake_us < _WAKE_AT)), _o.wake_us),
            else_=_WAKE_AT,
        ),
    )
)
_TAKE_OVER = Static(
    update(OPEN_OPERATIONS)
    .where(_IS_IT)
    .values(
        owner=bindparam("owner_"),
        state="running",
        attempt=_o.attempt + 1,
        wake_us=null(),
        held=bindparam("held_"),
    )
)
_WAKE = Static(
    update(OPEN_OPERATIONS)
    .where(_IS_IT)
    .values(wake_us=case((_o.wake_us.is_(None) | (_o.wake_us > _WAKE_AT), _WAKE_AT), else_=_o.wake_us))
)
_ASK_TO_STOP = Static(
    update(OPEN_OPERATIONS)
    .where(_IS_IT)
    .values(stop=bindparam("reason_"), wake_us=case((_WAITS, _AT_ONCE), else_=_o.wake_us))
)


def _park(tx: Tx, r: ops.ParkOperation) -> None:
    tx.run(_PARK, id_=r.operation.event_id, held_=r.held.to_text(), wake_=us(r.wake_at))


def _take_over(tx: Tx, r: ops.TakeOver) -> None:
    tx.run(_TAKE_OVER, id_=r.operation.event_id, owner_=r.owner, held_=r.held.to_text())


WRITES: Writes = {
    ops.ParkOperation: _park,
    ops.TakeOver: _take_over,
    ops.Wake: lambda tx, r: tx.run(_WAKE, id_=r.operation.event_id, wake_=to_us(r.at)),
    ops.AskToStop: lambda tx, r: tx.run(_ASK_TO_STOP, id_=r.operation.event_id, reason_=r.reason),
}


class BatchOperations(Part):
    """The operations that the commits of one transaction begin, hand on and end."""

    def __init__(self, tx: Tx, newest: Callable[[], Sealed]) -> None:
        """`newest`: the fact that was numbered last, which started the operation that begins."""
        self._tx = tx
        self._newest = newest
        # Owner and attempt.
        self._known: dict[str, tuple[str, int]] = {}
        self._opened: dict[str, Parameters] = {}
        self._closed: list[str] = []

    def questions(self, commits: Iterable[Commit]) -> Sequence[Question]:
        """Who has the operations that the commits ask for."""
        wanted = {
            one.operation.event_id
            for commit in commits
            for one in commit.conditions
            if isinstance(one, ops.OperationIsOpen | ops.OwnedBy)
        }
        return (_HELD_BY.question(wanted, self._know),) if wanted else ()

    def _know(self, rows: list[Row]) -> None:
        self._known = {event_id: (owner, attempt) for event_id, owner, attempt in rows}

    def _held_by(self, condition: ops.OperationIsOpen | ops.OwnedBy) -> tuple[str, int] | None:
        return self._known.get(condition.operation.event_id)

    def _in_session(self, condition: SessionIsIdle) -> Sequence[str]:
        self._flush()
        return [row[0] for row in self._tx.all(_IDS_IN, session_id=condition.session_id)]

    def _open(self, record: ops.OpenOperation) -> None:
        row = encoded(opened_row(record, self._newest()))
        self._opened[record.event_id] = {**row, "heartbeat_us": row["started_us"]}
        self._known[record.event_id] = record.owner, record.attempt

    def _close(self, record: ops.CloseOperation) -> None:
        event_id = record.operation.event_id
        self._known.pop(event_id, None)
        if self._opened.pop(event_id, None) is None:
            self._closed.append(event_id)

    def _park(self, record: ops.ParkOperation) -> None:
        self._flush()
        self._hand_on(record.operation, NOBODY, 0)

    def _take_over(self, record: ops.TakeOver) -> None:
        self._flush()
        self._hand_on(record.operation, record.owner, 1)

    def _hand_on(self, operation: ops.OperationRef, owner: str, attempts: int) -> None:
        """Who has it from now on, for those commits of the batch that are judged after this one."""
        _, attempt = self._known[operation.event_id]
        self._known[operation.event_id] = owner, attempt + attempts

    def _flush(self, _: object = None) -> None:
        self._tx.write([change for change in self.changes() if change[1]])

    def changes(self) -> Sequence[Writing]:
        """What has begun and ended since the last call."""
        closed = [{"event_ids": json.dumps(self._closed)}] if self._closed else ()
        opened = list(self._opened.values())
        self._closed.clear()
        self._opened.clear()
        return (_CLOSE, closed), (_OPEN, opened)

    finds: ClassVar[FindsHere] = {
        ops.OperationIsOpen: _held_by,
        ops.OwnedBy: _held_by,
        SessionIsIdle: _in_session,
    }
    takes: ClassVar[TakesHere] = {
        ops.OpenOperation: _open,
        ops.CloseOperation: _close,
        ops.ParkOperation: _park,
        ops.TakeOver: _take_over,
        ops.Wake: _flush,
        ops.AskToStop: _flush,
    }


def _both(*wanted: ColumnElement[bool]) -> Subquery:
    """What runs and what waits of these: each half has an index that the other half does not burden."""
    return union_all(*(select(*_OPENED).where(is_so, *wanted) for is_so in (_RUNS, _WAITS))).subquery()


_SESSIONS = _both(_o.session_id == bindparam("session_id"))
_IDS_IN = Static(select(_SESSIONS.c.event_id))
_OPEN_IN = Static(select(_SESSIONS).order_by(_SESSIONS.c.started_us, _SESSIONS.c.event_id))
_OPEN_INSIDE = Static(
    select(*_OPENED)
    .where(_o.root_event_id == bindparam("root_event_id"), _o.parent_event_id.is_not(None))
    .order_by(_o.started_us, _o.event_id)
)


def _open_of(*by: str) -> Static:
    """What runs or waits of a casefile, a user, or both."""
    some = _both(*(_o[name] == bindparam(name) for name in by))
    return Static(select(some).order_by(some.c.state.desc(), some.c.started_us, some.c.event_id).limit(1_000))


_PLACES: Sequence[tuple[str, ...]] = (("casefile_id",), ("user_id",), ("casefile_id", "user_id"), ())
_OPEN_OF: dict[tuple[str, ...], Static] = {by: _open_of(*by) for by in _PLACES}


def _deepest_first(*where: ColumnElement[Any]) -> Static:
    # An operation never ends before those inside it.
    order = (_o.started_us.desc(), _o.started_seq.desc())
    return Static(select(*_OPENED).where(*where).order_by(*order).limit(bindparam("n")))


_ORPHANS = _deepest_first(_RUNS, _o.owner != bindparam("owner"))
_RUNNING_OF = _deepest_first(_RUNS, IsInJson(_o.owner, "owners"))
_BY_IDS = Static(select(*_OPENED).where(IsInJson(_o.event_id, "event_ids")))
_DUE = Static(
    select(*_OPENED)
    .where(_WAITS, _o.wake_us.is_not(None))
    # Nothing breaks ties: all that a server parked when it stopped is due at the same time, and would be sorted each time.
    .order_by(_o.wake_us)
    .limit(bindparam("n"))
)
_ASKED_TO_STOP = Static(
    select(_o.event_id, _o.stop).where(_RUNS, _o.owner == bindparam("owner"), _o.stop.is_not(None))
)


class SqlOperations:
    """Implements `OpenOperations`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def open_operations(self, session_id: str) -> Sequence[OpenedOperation]:
        rows = await self._reads.point(lambda tx: tx.all(_OPEN_IN, session_id=session_id))
        return [opened_of(row) for row in rows]

    async def open_inside(self, root_event_id: str) -> Sequence[OpenedOperation]:
        rows = await self._reads.point(lambda tx: tx.all(_OPEN_INSIDE, root_event_id=root_event_id))
        return [opened_of(row) for row in rows]

    async def open_of(self, casefile_id: str | None, user_id: str | None) -> Sequence[OpenedOperation]:
        named = {"casefile_id": casefile_id, "user_id": user_id}
        wanted = {name: given for name, given in named.items() if given is not None}
        rows = await self._reads.point(lambda tx: tx.all(_OPEN_OF[tuple(wanted)], **wanted))
        return [opened_of(row) for row in rows]

    async def orphans(self, owner: str, limit: int) -> Sequence[OpenedOperation]:
        rows = await self._reads.scan(lambda tx: tx.all(_ORPHANS, owner=owner, n=limit))
        return [opened_of(row) for row in rows]

    async def running_of(self, owners: Sequence[str], limit: int) -> Sequence[OpenedOperation]:
        """What these processes run, or ran, children before their parents."""
        named = json.dumps(owners)
        rows = await self._reads.scan(lambda tx: tx.all(_RUNNING_OF, owners=named, n=limit))
        return [opened_of(row) for row in rows]

    async def due(self, limit: int) -> Sequence[OpenedOperation]:
        rows = await self._reads.point(lambda tx: tx.all(_DUE, n=limit))
        return [opened_of(row) for row in rows]

    async def opened(self, event_ids: Sequence[str]) -> Sequence[OpenedOperation]:
        rows = await self._reads.point(lambda tx: tx.all(_BY_IDS, event_ids=json.dumps(list(event_ids))))
        return [opened_of(row) for row in rows]

    async def asked_to_stop(self, owner: str) -> Sequence[tuple[str, str]]:
        rows = await self._reads.point(lambda tx: tx.all(_ASKED_TO_STOP, owner=owner))
        return [(event_id, reason) for event_id, reason in rows]
