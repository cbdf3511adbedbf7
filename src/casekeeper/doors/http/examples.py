"""Worked examples for the OpenAPI document; the tests send them."""

from typing import Any

_CASEFILE = "cf_251023_5acf44"
_USER = "sam@example.com"


def _example(summary: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "value": {"request_id": "uuid-here", "user_id": _USER, "payload": payload}}


EXAMPLES: dict[str, dict[str, Any]] = {
    "sessions_create": {
        "interactive": _example(
            "Create a session",
            {"casefile_id": _CASEFILE, "session_type": "interactive", "metadata": {}},
        )
    },
    "sessions_execute": {
        "tool": _example(
            "Execute a tool",
            {
                "casefile_id": _CASEFILE,
                "session_id": None,
                "operation": {
                    "operation_type": "tool",
                    "tool_name": "gmail_search",
                    "parameters": {"query": "invoice"},
                },
            },
        ),
        "agent": _example(
            "Execute an agent",
            {
                "casefile_id": _CASEFILE,
                "operation": {
                    "operation_type": "agent",
                    "agent_name": "gemini-2.0-flash-exp",
                    "prompt": "Find my tax documents from 2024",
                    "message_history": [],
                },
            },
        ),
    },
}
"""By operation id, as OpenAPI writes them."""
