"""Running operations, and what is not in the envelope: streams and records of sessions, parts of operations."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from casekeeper.doors.http.dependencies import GuardedRoute, Inbound, get_session_service
from casekeeper.doors.http.envelope import Envelope, Json
from casekeeper.doors.http.rates import rate_headers
from casekeeper.doors.http.sse import EVENT_STREAM, frames
from casekeeper.errors import Quota, ShuttingDown
from casekeeper.execution.service import Streamed
from casekeeper.execution.status import Executed
from casekeeper.ids import EventId, SessionId
from casekeeper.sessions.manager import At, Purpose
from casekeeper.verbs import VERBS

T = TypeVar("T")

router = APIRouter(prefix="/v1", route_class=GuardedRoute)

# Most calls have ended by then; only the others cost a watch on the connection.
_WATCH_AFTER_S = 0.05


_EXECUTE = VERBS["sessions/execute"]


async def execute(door: Inbound, body: Envelope[Any]) -> Response:
    """Run an operation: answered when it has ended, or streamed, if that is what the client accepts."""
    ask, quotas = door.ask(_EXECUTE, body), list[Quota]()
    if EVENT_STREAM in door.headers.get("accept", ""):
        stream = get_session_service(door).stream_operation(door.caller, body.payload, ask, quotas.extend)
        # The first item comes after the corridor let the call in; until then a refusal is a problem response.
        first = await anext(stream)
        items = frames(_enveloped(first, stream, body, door), door)
        return StreamingResponse(items, media_type=EVENT_STREAM, headers=rate_headers(quotas))
    work = get_session_service(door).execute_operation(door.caller, body.payload, ask, quotas.extend)
    if (ended := await _unless_gone(door, work)) is None:
        # Nobody reads it; the number is what proxies log for a client that went away.
        return Response(status_code=499)
    executed, repeated = ended
    response = door.executed(executed, body, repeated=repeated)
    response.headers.update(rate_headers(quotas))
    return response


@router.get(
    "/sessions/{session_id}/events/stream",
    operation_id="sessions_stream",
    response_class=StreamingResponse,
    responses={200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}}}}},
    tags=["sessions"],
)
async def stream(
    session_id: Annotated[SessionId, Path()],
    door: Inbound,
    after: Annotated[int | None, Query(ge=0, le=2**53, description="Resume behind this seq.")] = None,
    last_event_id: Annotated[str | None, Header(max_length=15, pattern=r"^[0-9]*$")] = None,
) -> Response:
    """Follow a session's record live. `id:` is the seq; `Last-Event-ID` or `after` resumes without loss.

    When the reader is let in no more, the last event is `end` with the problem that any other call would be answered.
    """
    context = await door.server.sessions.manager.validate_and_get_session(
        door.caller, At(session_id), Purpose.READ
    )
    if door.server.sessions.reading.is_ended:
        raise ShuttingDown
    resume = int(last_event_id) if last_event_id else after or 0
    facts = door.server.sessions.reading.follow(context, resume)
    return StreamingResponse(
        frames(facts, door), media_type=EVENT_STREAM, headers={"Cache-Control": "no-store"}
    )


@router.get(
    "/sessions/{session_id}/record",
    operation_id="sessions_record",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}},
    tags=["sessions"],
)
async def record(session_id: Annotated[SessionId, Path()], door: Inbound) -> Response:
    """The session's record as lines that `casekeeper verify` and `verify.py` check (docs/record-format.md)."""
    lines = await door.server.sessions.recording.lines(door.caller, session_id)
    return StreamingResponse(lines, media_type="application/jsonl")


@router.get("/operations/{event_id}/{part}", operation_id="operations_part", tags=["operations"])
async def part(
    event_id: Annotated[EventId, Path()], part: Literal["inputs", "outputs"], door: Inbound
) -> Response:
    """Inputs or outputs of an operation in full, however large."""
    return Json(await door.server.execution.operations.part(door.caller, event_id, part))


async def _enveloped(
    first: Streamed, rest: AsyncGenerator[Streamed], body: Envelope[Any], door: Inbound
) -> AsyncGenerator[Any]:
    item = first
    while True:
        yield door.executed(item, body) if isinstance(item, Executed) else item
        try:
            item = await anext(rest)
        except StopAsyncIteration:
            return


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of the work; None if the client goes away first: then the work is cancelled, and decides what that means."""
    task = asyncio.current_task()
    assert task is not None
    watches: list[asyncio.Task[None]] = []

    def watch() -> None:
        gone = asyncio.ensure_future(_disconnected(request))
        gone.add_done_callback(lambda done: done.cancelled() or task.cancel())
        watches.append(gone)

    starting = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, watch)
    try:
        return await work
    except asyncio.CancelledError:
        if not any(gone.done() for gone in watches):
            raise
        task.uncancel()
        return None
    finally:
        starting.cancel()
        for gone in watches:
            gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
