"""`/v1/sessions`, `/v1/operations`, `/v1/events`: the work and its record."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from casekeeper.doors.http.dependencies import GuardedRoute, Inbound, get_session_service
from casekeeper.doors.http.envelope import Envelope, Json
from casekeeper.doors.http.rates import rate_headers
from casekeeper.doors.http.sse import frames
from casekeeper.doors.http.verbs import EVENT_STREAM, verb
from casekeeper.errors import Quota, ShuttingDown
from casekeeper.execution.service import Execute, GetSession, SessionCreated, SessionDetail, Streamed
from casekeeper.execution.status import CancelOperation, Executed, GetOperation
from casekeeper.ids import EventId, SessionId
from casekeeper.paging import Page
from casekeeper.sessions.manager import At, Purpose
from casekeeper.sessions.reading import FactPage, QueryEvents
from casekeeper.sessions.session import (
    CloseSession,
    CreateSession,
    ListSessions,
    SessionClosedAnswer,
    UnifiedSession,
)

T = TypeVar("T")

router = APIRouter(prefix="/v1", route_class=GuardedRoute)

# Most calls have ended by then; only the others cost a watch on the connection.
_WATCH_AFTER_S = 0.05


@verb(router, "/sessions/create", SessionCreated)
async def create(body: Envelope[CreateSession], door: Inbound) -> Response:
    """Open a session in a casefile."""
    created, repeated = await get_session_service(door).create_session(
        door.caller, body.payload, door.ask(body)
    )
    return door.answer(created, body, repeated=repeated)


@verb(router, "/sessions/execute", Executed, may_wait=True, streams=True)
async def execute(
    body: Envelope[Execute],
    door: Inbound,
) -> Response:
    """Run a tool or an agent. With `Accept: text/event-stream` its facts and progress are streamed."""
    ask, quotas = door.ask(body), list[Quota]()
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
    response = _executed(executed, body, door, repeated=repeated)
    response.headers.update(rate_headers(quotas))
    return response


@verb(router, "/sessions/get", SessionDetail)
async def get(body: Envelope[GetSession], door: Inbound) -> Response:
    """Read a session, a page of its record, and what has not ended."""
    door.ask(body)
    return door.answer(await get_session_service(door).get_session(door.caller, body.payload), body)


@verb(router, "/sessions/list", Page[UnifiedSession])
async def list_(body: Envelope[ListSessions], door: Inbound) -> Response:
    """List the sessions that the caller may see, newest first."""
    door.ask(body)
    return door.answer(await get_session_service(door).list_sessions(door.caller, body.payload), body)


@verb(router, "/sessions/close", SessionClosedAnswer)
async def close(body: Envelope[CloseSession], door: Inbound) -> Response:
    """Close a session for good and get its statistics."""
    closed, repeated = await get_session_service(door).close_session(
        door.caller, body.payload, door.ask(body)
    )
    return door.answer(closed, body, repeated=repeated)


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
    context = await door.server.manager.validate_and_get_session(door.caller, At(session_id), Purpose.READ)
    if door.server.reading.is_ended:
        raise ShuttingDown
    resume = int(last_event_id) if last_event_id else after or 0
    facts = door.server.reading.follow(context, resume)
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
    lines = await door.server.recording.lines(door.caller, session_id)
    return StreamingResponse(lines, media_type="application/jsonl")


@verb(router, "/operations/get", Executed, may_wait=True)
async def get_operation(body: Envelope[GetOperation], door: Inbound) -> Response:
    """How an operation stands, or how it ended, outputs in full."""
    door.ask(body)
    return _executed(await door.server.operations.get(door.caller, body.payload), body, door)


@verb(router, "/operations/cancel", Executed, may_wait=True)
async def cancel(body: Envelope[CancelOperation], door: Inbound) -> Response:
    """Stop an operation. Repeating it is safe; one that has ended is left as it is."""
    door.ask(body)
    return _executed(await door.server.operations.cancel(door.caller, body.payload), body, door)


@router.get("/operations/{event_id}/{part}", operation_id="operations_part", tags=["operations"])
async def part(
    event_id: Annotated[EventId, Path()], part: Literal["inputs", "outputs"], door: Inbound
) -> Response:
    """Inputs or outputs of an operation in full, however large."""
    return Json(await door.server.operations.part(door.caller, event_id, part))


@verb(router, "/events/query", FactPage)
async def query(body: Envelope[QueryEvents], door: Inbound) -> Response:
    """Events by ids or filters, across all sessions that the caller may read."""
    door.ask(body)
    return door.answer(await door.server.reading.query(door.caller, body.payload), body)


def _executed(executed: Executed, body: Envelope[Any], door: Inbound, *, repeated: bool = False) -> Json:
    return door.answer(executed, body, repeated=repeated, status=executed.status, error=executed.error)


async def _enveloped(
    first: Streamed, rest: AsyncGenerator[Streamed], body: Envelope[Any], door: Inbound
) -> AsyncGenerator[Any]:
    item = first
    while True:
        yield _executed(item, body, door) if isinstance(item, Executed) else item
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
