"""The live events of one operation and its nested ones, filtered from those of their session."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from casekeeper.execution.calls import Started
from casekeeper.journal.events import TERMINAL
from casekeeper.journal.feed import Watch
from casekeeper.sessions.manager import SessionContext
from casekeeper.sessions.reading import Reading
from casekeeper.sessions.streamed import StreamedBreak, StreamedDelta, StreamedFact, StreamedRefusal


async def follow(
    reading: Reading, started: Started, watch: Watch
) -> AsyncGenerator[StreamedFact | StreamedDelta | None]:
    """The facts and deltas of the operation and of what it calls, until it has ended or waits; None is a heartbeat."""
    written = SessionContext(started.context.access, started.context.session)
    family = {started.fact.event_id}
    ended = started.running.ended
    # Parking is no fact: nothing else would say that the stream is over.
    ended.add_done_callback(lambda _: watch.wake())
    stream = reading.follow(written, started.seq - 1, watched=watch, until=ended.done)
    async with aclosing(stream):
        async for item in stream:
            # A refusal of the reader has ended the operation as well: how, its own last fact says.
            if isinstance(item, StreamedBreak | StreamedRefusal):
                continue
            if item is None or _belongs(item, family):
                yield item
            if isinstance(item, StreamedFact) and _ends(item, started):
                return


def _belongs(item: StreamedFact | StreamedDelta, family: set[str]) -> bool:
    if isinstance(item, StreamedFact) and item.parent_event_id in family:
        family.add(item.event_id)
    return item.event_id in family


def _ends(item: StreamedFact, started: Started) -> bool:
    return item.event_id == started.fact.event_id and item.kind in TERMINAL
