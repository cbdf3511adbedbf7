"""Sessions, operations and their events."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union

from casekeeper.client import streams
from casekeeper.client.connection import Connection
from casekeeper.client.paging import each
from casekeeper.client.payloads import read

if TYPE_CHECKING:
    from casekeeper.client.results import Result
    from casekeeper.execution.service import SessionCreated, SessionDetail
    from casekeeper.journal.events import ExecutionEvent
    from casekeeper.operations.operation import AgentCall, ToolCall
    from casekeeper.paging import Page
    from casekeeper.sessions.session import SessionClosedAnswer, UnifiedSession
    from casekeeper.sessions.streamed import StreamedDelta

Operation: TypeAlias = Union["ToolCall", "AgentCall", Mapping[str, Any]]
"""What to run: a model of the server's, or the same as a mapping; `tool()` and `agent()` make one."""

View = Literal["operations", "journal"]
Order = Literal["asc", "desc"]


def tool(name: str, /, **parameters: Any) -> dict[str, Any]:
    """The operation that runs a tool."""
    return {"operation_type": "tool", "tool_name": name, "parameters": parameters}


def agent(
    name: str, prompt: str, *, message_history: Sequence[Mapping[str, str]] | None = None
) -> dict[str, Any]:
    """The operation that runs an agent. Without a history the session's conversation goes on; `[]` starts anew."""
    operation: dict[str, Any] = {"operation_type": "agent", "agent_name": name, "prompt": prompt}
    if message_history is not None:
        operation["message_history"] = [dict(message) for message in message_history]
    return operation


class Sessions:
    """`/v1/sessions`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
        self,
        casefile_id: str,
        *,
        session_type: Literal["interactive", "batch", "workflow"] | None = None,
        title: str | None = None,
        visibility: Literal["private", "casefile"] | None = None,
        metadata: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> "SessionCreated":
        """A new session in a casefile."""
        fields = {
            "casefile_id": casefile_id,
            "session_type": session_type,
            "title": title,
            "visibility": visibility,
            "metadata": metadata,
        }
        return await self._connection.ask("sessions/create", fields, request_id)

    async def execute(
        self,
        operation: Operation,
        *,
        casefile_id: str | None = None,
        session_id: str | None = None,
        mode: Literal["wait", "background"] | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> "Result":
        """Run an operation in a session, or in a casefile, whose auto session is then used.

        The run goes on when this call is cancelled or its connection is lost; calling again with the same
        `request_id` finds it. In the background the result has the status `running`.
        """
        fields = _execute(operation, casefile_id, session_id, mode, timeout_s)
        return await self._connection.ask("sessions/execute", fields, request_id)

    async def get(
        self,
        session_id: str,
        *,
        casefile_id: str | None = None,
        include_events: bool = True,
        view: View = "operations",
        order: Order = "asc",
        limit: int | None = None,
        cursor: str | None = None,
        **filters: Any,
    ) -> "SessionDetail":
        """A session, a page of its events, and what has not ended. `filters`: those of `events.query`."""
        wanted = {"view": view, "order": order, "limit": limit, "cursor": cursor, **filters}
        fields = {
            "session_id": session_id,
            "casefile_id": casefile_id,
            "include_events": include_events,
            "events": {name: value for name, value in wanted.items() if value is not None},
        }
        detail = await self._connection.ask("sessions/get", fields)
        if detail.events is None:
            return detail
        items = [read("journal.events:ExecutionEvent", item) for item in detail.events.items]
        return replace(detail, events=replace(detail.events, items=items))

    async def list(
        self,
        *,
        casefile_id: str | None = None,
        user_id: str | None = None,
        active: bool | None = None,
        session_type: Literal["interactive", "batch", "workflow"] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        text: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> "Page[UnifiedSession]":
        """A page of the sessions that the caller may see, newest first."""
        fields = {
            "casefile_id": casefile_id,
            "user_id": user_id,
            "active": active,
            "session_type": session_type,
            "created_after": created_after,
            "created_before": created_before,
            "text": text,
            "limit": limit,
            "cursor": cursor,
        }
        return await self._connection.ask("sessions/list", fields)

    def each(
        self, *, casefile_id: str | None = None, user_id: str | None = None, active: bool | None = None
    ) -> "AsyncGenerator[UnifiedSession]":
        """All of them, page by page."""
        fields = {"casefile_id": casefile_id, "user_id": user_id, "active": active}
        return each(self._connection, "sessions/list", fields)

    async def close(
        self,
        session_id: str,
        *,
        reason: str | None = None,
        cancel: bool | None = None,
        request_id: str | None = None,
    ) -> "SessionClosedAnswer":
        """Close a session for good and get its statistics; `cancel` stops what still runs."""
        fields = {"session_id": session_id, "reason": reason, "cancel": cancel}
        return await self._connection.ask("sessions/close", fields, request_id)

    def stream(self, session_id: str, after: int = 0) -> "AsyncGenerator[ExecutionEvent | StreamedDelta]":
        """The session's facts behind `after`, then what comes, live, with progress in between.

        Facts come once each, in order, whatever happens to the connection. When the permission ends, it raises what any
        other call would: `NotFound` mostly.
        """
        return streams.follow(self._connection, session_id, after)


class Operations:
    """`/v1/operations`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, event_id: str) -> "Result":
        """How an operation stands, or how it ended, outputs in full."""
        return await self._connection.ask("operations/get", {"event_id": event_id})

    async def cancel(self, event_id: str, *, reason: str | None = None) -> "Result":
        """Stop an operation; one that has ended is left as it is."""
        return await self._connection.ask("operations/cancel", {"event_id": event_id, "reason": reason})

    async def part(self, event_id: str, part: Literal["inputs", "outputs"]) -> Any:
        """Inputs or outputs in full, however large."""
        return await self._connection.json(f"/v1/operations/{event_id}/{part}")


class Events:
    """`/v1/events`: the record, across sessions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def query(
        self,
        *,
        event_ids: Sequence[str] | None = None,
        casefile_id: str | None = None,
        session_ids: Sequence[str] | None = None,
        view: View | None = None,
        order: Order | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        **filters: Any,
    ) -> "Page[ExecutionEvent]":
        """A page of events by ids or filters, across all sessions that the caller may read; newest first.

        `filters`: operation_type, operation_name, kinds, actor, parent_event_id, request_id, after, before, text.
        """
        fields = {
            "event_ids": event_ids,
            "casefile_id": casefile_id,
            "session_ids": session_ids,
            "view": view,
            "order": order,
            "limit": limit,
            "cursor": cursor,
        }
        return await self._connection.ask("events/query", {**fields, **filters})

    def each(self, *, casefile_id: str | None = None, **filters: Any) -> "AsyncGenerator[ExecutionEvent]":
        """All of them, page by page; `filters` are those of `query`, its view and order included."""
        return each(self._connection, "events/query", {"casefile_id": casefile_id, **filters})


def _execute(
    operation: Operation,
    casefile_id: str | None,
    session_id: str | None,
    mode: str | None,
    timeout_s: float | None,
) -> dict[str, Any]:
    return {
        "casefile_id": casefile_id,
        "session_id": session_id,
        "operation": operation,
        "mode": mode,
        "timeout_s": timeout_s,
    }


def stream_execute(
    connection: Connection,
    operation: Operation,
    *,
    casefile_id: str | None,
    session_id: str | None,
    timeout_s: float | None,
    request_id: str | None,
) -> "AsyncGenerator[ExecutionEvent | StreamedDelta | Result]":
    """See `Casekeeper.stream_execute`."""
    fields = _execute(operation, casefile_id, session_id, None, timeout_s)
    return streams.execute(connection, fields, request_id)
