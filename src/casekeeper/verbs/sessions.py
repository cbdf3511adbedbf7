"""Sessions, operations and events: the work and its record."""

from casekeeper.verbs.verb import Example, Verb

_EXECUTED = "execution.status:Executed"
_IN = "cf_251023_5acf44"

VERBS = (
    Verb(
        "sessions/create",
        "Open a session in a casefile.",
        needs="viewer",
        command="sessions.session:CreateSession",
        result="execution.service:SessionCreated",
        calls="execution.sessions.create_session",
        claims="/v1/sessions/create",
        examples={
            "interactive": Example(
                "Create a session",
                {"casefile_id": _IN, "session_type": "interactive", "metadata": {}},
            )
        },
    ),
    Verb(
        "sessions/execute",
        "Run a tool or an agent. With `Accept: text/event-stream` its facts and progress are streamed.",
        needs="operation",
        note="in another's shared session at least editor",
        command="execution.service:Execute",
        result=_EXECUTED,
        calls="execution.sessions.execute_operation",
        claims="/v1/sessions/execute",
        may_wait=True,
        streams=True,
        examples={
            "tool": Example(
                "Execute a tool",
                {
                    "casefile_id": _IN,
                    "session_id": None,
                    "operation": {
                        "operation_type": "tool",
                        "tool_name": "gmail_search",
                        "parameters": {"query": "invoice"},
                    },
                },
            ),
            "agent": Example(
                "Execute an agent",
                {
                    "casefile_id": _IN,
                    "operation": {
                        "operation_type": "agent",
                        "agent_name": "gemini-2.0-flash-exp",
                        "prompt": "Find my tax documents from 2024",
                        "message_history": [],
                    },
                },
            ),
        },
    ),
    Verb(
        "sessions/get",
        "Read a session, a page of its record, and what has not ended.",
        needs="session",
        command="execution.service:GetSession",
        result="execution.service:SessionDetail",
        calls="execution.sessions.get_session",
    ),
    Verb(
        "sessions/list",
        "List the sessions that the caller may see, newest first.",
        needs="account",
        note="shows what it may see",
        command="sessions.session:ListSessions",
        page_of="sessions.session:UnifiedSession",
        calls="execution.sessions.list_sessions",
    ),
    Verb(
        "sessions/close",
        "Close a session for good and get its statistics.",
        needs="admin",
        note="one's own session: any member",
        command="sessions.session:CloseSession",
        result="sessions.session:SessionClosedAnswer",
        calls="execution.sessions.close_session",
        claims="/v1/sessions/close",
    ),
    Verb(
        "operations/get",
        "How an operation stands, or how it ended, outputs in full.",
        needs="session",
        command="execution.status:GetOperation",
        result=_EXECUTED,
        calls="execution.operations.get",
        may_wait=True,
    ),
    Verb(
        "operations/cancel",
        "Stop an operation. Repeating it is safe; one that has ended is left as it is.",
        needs="admin",
        note="one's own operation: any member",
        command="execution.status:CancelOperation",
        result=_EXECUTED,
        calls="execution.operations.cancel",
        unclaimed=True,
        may_wait=True,
    ),
    Verb(
        "events/query",
        "Events by ids or filters, across all sessions that the caller may read.",
        needs="account",
        note="shows what it may see",
        command="sessions.reading:QueryEvents",
        result="sessions.reading:FactPage",
        calls="sessions.reading.query",
    ),
)
