"""What followers of a record are sent."""

from collections.abc import Sequence
from typing import Any

import orjson

from casekeeper.errors import Refused
from casekeeper.journal.events import TERMINAL, Kind, StoredFact
from casekeeper.journal.feed import Delta
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
    """The stream ends, because its reader is let in no more: what any other call would be answered now."""

    error: Refused


def in_order(
    rows: Sequence[StoredFact], deltas: Sequence[Delta], late: Sequence[Delta]
) -> tuple[list[StreamedFact | StreamedDelta], list[Delta]]:
    """Facts with the progress that came meanwhile, behind the start of what made it and before its end.

    Of the late deltas those whose operation is not among the facts are left for the next time.
    """
    facts = [_streamed(row) for row in rows]
    ends = next((number for number, fact in enumerate(facts) if fact.kind in TERMINAL), len(facts))
    known = {fact.event_id for fact in facts}
    told = [*deltas, *(delta for delta in late if delta.event_id in known)]
    items = [*facts[:ends], *(StreamedDelta(delta.event_id, delta.data) for delta in told), *facts[ends:]]
    return items, [delta for delta in late if delta.event_id not in known]


def _streamed(row: StoredFact) -> StreamedFact:
    header = orjson.loads(row.header)
    kind, parent = Kind(header["kind"]), header.get("parent_event_id")
    return StreamedFact(row.seq, kind, header["event_id"], parent, row.json())
