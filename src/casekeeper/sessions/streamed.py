"""The items of a stream that follows a record."""

from collections.abc import Sequence
from typing import Any

import orjson

from casekeeper.errors import Refused
from casekeeper.journal.events import TERMINAL, Kind, StoredFact
from casekeeper.journal.feed import DELTAS_KEPT, Delta
from casekeeper.values import value


@value
class StreamedFact:
    """A fact on its way to a follower; `seq` is where to resume."""

    seq: int
    kind: Kind
    event_id: str
    parent_event_id: str | None
    json: bytes


@value
class StreamedDelta:
    """Progress on its way to a follower; it has no number and is not repeated."""

    event_id: str
    data: Any


@value
class StreamedBreak:
    """The stream is cut here and can be resumed behind `seq`, at another server or later at this one."""

    seq: int


@value
class StreamedRefusal:
    """The stream ends because its reader lost access; carries the error that any other call would get now."""

    error: Refused


# Progress that comes after the end of its operation is rare, and comes soon.
_ENDED_KEPT = 200


class DeltaMerge:
    """Puts deltas among the facts: each behind the start of its operation and before its end."""

    def __init__(self) -> None:
        self._waiting: list[Delta] = []
        self._ended: dict[str, None] = {}

    def items(
        self, rows: Sequence[StoredFact], begun: Sequence[Delta], perhaps: Sequence[Delta], *, is_all: bool
    ) -> list[StreamedFact | StreamedDelta]:
        """The next facts with their deltas; deltas without a place yet are kept for the next call.

        `begun`: deltas of operations whose start is among these facts or earlier ones, if these are all that there are
        (`is_all`). `perhaps`: deltas of operations whose start may not have been read.
        """
        facts = [_streamed(row) for row in rows]
        ends = {fact.event_id for fact in facts if fact.kind in TERMINAL}
        known = ends | {fact.event_id for fact in facts}
        begun = [*self._waiting, *begun]
        sent = [d for d in begun if is_all or d.event_id in known]
        sent += [d for d in perhaps if d.event_id in known]
        waiting = [d for d in begun if not is_all and d.event_id not in known]
        waiting += [d for d in perhaps if d.event_id not in known]
        self._waiting = waiting[-DELTAS_KEPT:]
        items: list[StreamedFact | StreamedDelta] = []
        for fact in facts:
            if fact.kind in TERMINAL:
                items += [_progress(d) for d in sent if d.event_id == fact.event_id]
                self._end(fact.event_id)
            items.append(fact)
        return items + [_progress(d) for d in sent if d.event_id not in self._ended]

    def _end(self, event_id: str) -> None:
        self._ended[event_id] = None
        if len(self._ended) > _ENDED_KEPT:
            del self._ended[next(iter(self._ended))]


def _progress(delta: Delta) -> StreamedDelta:
    return StreamedDelta(delta.event_id, delta.data)


def _streamed(row: StoredFact) -> StreamedFact:
    header = orjson.loads(row.header)
    kind, parent = Kind(header["kind"]), header.get("parent_event_id")
    return StreamedFact(row.seq, kind, header["event_id"], parent, row.json())
