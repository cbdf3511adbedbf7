"""Server-sent events (WHATWG HTML §9.2): facts with their seq as id, deltas without, comments as heartbeat."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from casekeeper.doors.http.envelope import dumps, foreign
from casekeeper.doors.http.problems import problem
from casekeeper.sessions.streamed import StreamedBreak, StreamedDelta, StreamedFact, StreamedRefusal

EVENT_STREAM = "text/event-stream"

# A client that lost its connection comes back after this many milliseconds.
_RETRY = b"retry: 2000\n\n"
_HEARTBEAT = b": heartbeat\n\n"
_END = b"event: end\ndata: {}\n\n"


async def frames(items: AsyncGenerator[Any], request: Request) -> AsyncGenerator[bytes]:
    """The items as SSE frames; ends with an `end` event, so that a client knows it was no accident.

    Its data are `{}`, or the problem (RFC 9457) for which the reader is let in no more. A break has no such event:
    the client comes back, and says behind which id.
    """
    async with aclosing(items) as stream:
        yield _RETRY
        async for item in stream:
            match item:
                case None:
                    yield _HEARTBEAT
                case StreamedFact():
                    yield b"id: %d\nevent: %s\ndata: %s\n\n" % (item.seq, item.kind.encode(), item.json)
                case StreamedDelta():
                    yield b"event: delta\ndata: %s\n\n" % dumps(
                        {"event_id": item.event_id, "data": foreign(item.data)}
                    )
                case Response():
                    yield b"event: finished\ndata: %s\n\n" % bytes(item.body)
                case StreamedBreak():
                    yield b": the server stops\nid: %d\n\n" % item.seq
                    return
                case StreamedRefusal():
                    yield b"event: end\ndata: %s\n\n" % bytes(problem(item.error, request).body)
                    return
                case _:
                    raise TypeError(f"{type(item).__name__} cannot be streamed")
    yield _END
