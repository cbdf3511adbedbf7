"""Following the record over server-sent events; a connection that breaks is taken up where it broke."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
from httpx2 import EventSource, ServerSentEvent
from pydantic_core import from_json

from casekeeper.client.connection import Connection, new_request_id
from casekeeper.client.errors import ServerFault, error_of, unreachable
from casekeeper.client.payloads import command_of, read, result_of
from casekeeper.verbs import VERBS

if TYPE_CHECKING:
    from casekeeper.client.results import Result
    from casekeeper.journal.events import ExecutionEvent
    from casekeeper.sessions.streamed import StreamedDelta

_EXECUTE = VERBS["sessions/execute"]
# A heartbeat comes every 15 s: three missing ones mean that nobody is there.
_SILENCE_S = 45.0
# A connection that stood this long was a good one, even if nothing happened on it.
_LIVED_S = 5.0
_HEADERS = {"Accept": "text/event-stream", "Cache-Control": "no-store"}


async def follow(
    connection: Connection, session_id: str, after: int
) -> "AsyncGenerator[ExecutionEvent | StreamedDelta]":
    """The facts of a session behind `after`, then what comes, with progress in between."""
    cuts = 0
    while True:
        seen, opened_at = after, time.monotonic()

        def make(last: int = after) -> httpx2.Request:
            path = f"/v1/sessions/{session_id}/events/stream"
            return _request(connection, "GET", path, headers={"Last-Event-ID": str(last)})

        async with aclosing(_frames(connection, make)) as frames:
            async for frame in frames:
                if frame is None:
                    break
                if frame.event == "end":
                    if said := from_json(frame.data):
                        raise error_of(said["status"], said)
                    return
                if frame.event == "delta":
                    yield _delta(frame)
                else:
                    fact = _fact(frame)
                    after = fact.seq
                    yield fact
        lived = time.monotonic() - opened_at > _LIVED_S
        cuts = 0 if after > seen or lived else cuts + 1
        await _pause(connection, cuts)


async def execute(
    connection: Connection, fields: dict[str, Any], request_id: str | None
) -> "AsyncGenerator[ExecutionEvent | StreamedDelta | Result]":
    """Run an operation: its facts and its children's, progress in between, last the result."""
    body = {"request_id": request_id or new_request_id(), "payload": command_of(_EXECUTE, fields)}
    started: ExecutionEvent | None = None
    family: set[str] = set()
    seen, cuts = 0, 0
    # Until its `started` has come, nothing is known of the run: the same request_id finds it, or begins it.
    while started is None:
        request = partial(_request, connection, "POST", _EXECUTE.path, json=body)
        async with aclosing(_frames(connection, request)) as frames:
            async for frame in frames:
                if frame is None:
                    break
                match frame.event:
                    case "finished":
                        yield result_of(_EXECUTE, from_json(frame.data)["payload"])
                        return
                    case "end":
                        raise ServerFault("stream_ended", "The stream ended without a result.")
                    case "delta":
                        yield _delta(frame)
                    case _:
                        fact = _fact(frame)
                        started, seen = started or fact, fact.seq
                        family.add(fact.event_id)
                        yield fact
        cuts += 1
        await _pause(connection, cuts)
    async with aclosing(_rest(connection, started, family, seen)) as rest:
        async for item in rest:
            yield item
    yield await connection.ask("operations/get", {"event_id": started.event_id})


async def _rest(
    connection: Connection, started: "ExecutionEvent", family: set[str], seen: int
) -> "AsyncGenerator[ExecutionEvent | StreamedDelta]":
    """What a cut stream of an operation would have brought, out of its session's stream."""
    from casekeeper.journal.events import TERMINAL, ExecutionEvent

    async with aclosing(follow(connection, started.session_id, seen)) as items:
        async for item in items:
            if isinstance(item, ExecutionEvent) and item.parent_event_id in family:
                family.add(item.event_id)
            if item.event_id in family:
                yield item
            if (
                isinstance(item, ExecutionEvent)
                and item.kind in TERMINAL
                and item.event_id == started.event_id
            ):
                return


async def _frames(
    connection: Connection, make: Callable[[], httpx2.Request]
) -> AsyncGenerator[ServerSentEvent | None]:
    """The frames of one connection; None where it was cut."""
    async with connection.stream(make) as response:
        try:
            # An operation's outputs come in one piece, however large.
            async for frame in EventSource(response, max_event_size=None):
                if frame.data:
                    yield frame
        except httpx2.TransportError:
            pass
        yield None


async def _pause(connection: Connection, cuts: int) -> None:
    if cuts >= connection.retry.tries:
        raise unreachable(connection.url, ConnectionError("the stream broke off again and again"))
    await asyncio.sleep(connection.retry.wait_s(max(cuts, 1)))


def _request(connection: Connection, method: str, path: str, **more: Any) -> httpx2.Request:
    headers = {**_HEADERS, **more.pop("headers", {})}
    timeout = httpx2.Timeout(_SILENCE_S, connect=10.0, pool=None)
    return connection.http.build_request(method, path, headers=headers, timeout=timeout, **more)


def _fact(frame: ServerSentEvent) -> "ExecutionEvent":
    return read("journal.events:ExecutionEvent", from_json(frame.data))


def _delta(frame: ServerSentEvent) -> "StreamedDelta":
    return read("sessions.streamed:StreamedDelta", from_json(frame.data))
