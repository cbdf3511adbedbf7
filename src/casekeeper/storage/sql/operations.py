"""How open operations are parked, taken up, woken and asked to stop, in SQL."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, case, literal_column, null, update

from casekeeper.clock import to_us
from casekeeper.journal import operations as ops
from casekeeper.journal.commits import Record
from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.statements import Static, Tx
from casekeeper.storage.sql.writing import us

_o = t.open_operations.c
_AT_ONCE, _NOBODY = literal_column("0", BigInteger()), literal_column("''", Text())
_WAKE_AT = bindparam("wake_", type_=BigInteger())
_IS_IT = _o.event_id == bindparam("id_")
_RUNS, _WAITS = _o.owner != _NOBODY, _o.owner == _NOBODY

_PARK = Static(
    update(t.open_operations)
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
    update(t.open_operations)
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
    update(t.open_operations)
    .where(_IS_IT)
    .values(wake_us=case((_o.wake_us.is_(None) | (_o.wake_us > _WAKE_AT), _WAKE_AT), else_=_o.wake_us))
)
_ASK_TO_STOP = Static(
    update(t.open_operations)
    .where(_IS_IT)
    .values(stop=bindparam("reason_"), wake_us=case((_WAITS, _AT_ONCE), else_=_o.wake_us))
)


def _park(tx: Tx, r: ops.ParkOperation) -> None:
    tx.run(_PARK, id_=r.operation.event_id, held_=r.held.to_text(), wake_=us(r.wake_at))


OPERATION_RECORDS: dict[type[Record], Callable[[Tx, Any], object]] = {
    ops.ParkOperation: _park,
    ops.TakeOver: lambda tx, r: tx.run(
        _TAKE_OVER, id_=r.operation.event_id, owner_=r.owner, held_=r.held.to_text()
    ),
    ops.Wake: lambda tx, r: tx.run(_WAKE, id_=r.operation.event_id, wake_=to_us(r.at)),
    ops.AskToStop: lambda tx, r: tx.run(_ASK_TO_STOP, id_=r.operation.event_id, reason_=r.reason),
}
"""How each of them is written."""
