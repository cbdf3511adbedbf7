"""The example bodies of the mission's document work as they are written, ids substituted."""

from typing import Any

from dirty_equals import IsDatetime, IsInt, IsPartialDict, IsStr

from tests.doors.problems import assert_problem
from tests.support import Api, bearer

SESSION_ID = IsStr(regex=r"ts_\d{6}_ecom[0-9a-f]{4}_[0-9a-f]{6}")
EVENT_ID = IsStr(regex=r"evt_[0-9a-z]+")


async def sam(api: Api) -> tuple[str, str]:
    """The mission's user: token and casefile."""
    token = await api.token(await api.account("sam@example.com"))
    return token, await api.casefile(token, "Taxes")


async def send(api: Api, path: str, token: str, payload: dict[str, Any]) -> Any:
    """The body as the document writes it."""
    body = {"request_id": "uuid-here", "user_id": "sam@example.com", "payload": payload}
    return await api.http.post(path, json=body, headers=bearer(token))


async def test_create_session(api: Api) -> None:
    token, casefile_id = await sam(api)
    payload: dict[str, Any] = {
        "casefile_id": casefile_id,
        "session_type": "interactive",
        "metadata": {},
    }
    response = await send(api, "/v1/sessions/create", token, payload)
    assert (response.status_code, response.json()) == (
        200,
        {
            "request_id": "uuid-here",
            "status": "completed",
            "payload": {
                "session_id": SESSION_ID,
                "casefile_id": casefile_id,
                "session_type": "interactive",
                "created_at": IsDatetime(iso_string=True),
                "user_permission": "owner",
                "permission_from_cache": False,
                "updated_scopes": {
                    "token": IsStr,
                    "casefile_scopes": {casefile_id: {"role": "owner", "not_after": None}},
                    "evicted": [],
                },
            },
            "error": None,
            "timestamp": IsDatetime(iso_string=True),
            "metadata": None,
        },
    )


async def test_a_session_id_names_its_day_its_user_and_its_casefile(api: Api) -> None:
    token, casefile_id = await sam(api)
    session_id = await api.session(token, casefile_id)
    day = f"{api.server.clock():%y%m%d}"
    assert session_id == IsStr(regex=f"ts_{day}_ecom{casefile_id[-4:]}_[0-9a-f]{{6}}")


async def test_execute_tool(api: Api) -> None:
    token, casefile_id = await sam(api)
    operation = {"operation_type": "tool", "tool_name": "gmail_search", "parameters": {"query": "invoice"}}
    payload = {"casefile_id": casefile_id, "session_id": None, "operation": operation}
    response = await send(api, "/v1/sessions/execute", token, payload)
    assert (response.status_code, response.json()) == (
        200,
        IsPartialDict(
            status="completed",
            payload=IsPartialDict(
                event_id=EVENT_ID,
                operation_type="tool",
                operation_name="gmail_search",
                success=True,
                outputs=IsPartialDict(messages=[], source="archive"),
                error=None,
                duration_ms=IsInt(ge=0),
                session_id=SESSION_ID,
                session_created=True,
            ),
        ),
    )


async def test_execute_agent_without_a_key_names_the_setting(api: Api) -> None:
    token, casefile_id = await sam(api)
    operation: dict[str, Any] = {
        "operation_type": "agent",
        "agent_name": "gemini-2.0-flash-exp",
        "prompt": "Find my tax documents from 2024",
        "message_history": [],
    }
    payload = {"casefile_id": casefile_id, "operation": operation}
    response = await send(api, "/v1/sessions/execute", token, payload)
    problem = assert_problem(response, 503, "model_unavailable")
    assert "CASEKEEPER_GOOGLE_API_KEY" in problem["detail"]


async def test_execute_agent_that_needs_no_key(api: Api) -> None:
    token, casefile_id = await sam(api)
    operation: dict[str, Any] = {
        "operation_type": "agent",
        "agent_name": "offline-researcher",
        "prompt": "Find my tax documents from 2024",
        "message_history": [],
    }
    payload = {"casefile_id": casefile_id, "operation": operation}
    response = await send(api, "/v1/sessions/execute", token, payload)
    assert response.json()["payload"] == IsPartialDict(
        operation_type="agent",
        success=True,
        outputs=IsPartialDict(response=IsStr, model=IsStr),
        session_created=True,
    )


async def test_retrieving_the_session_shows_its_user_and_that_it_is_active(api: Api) -> None:
    token, casefile_id = await sam(api)
    session_id = await api.session(token, casefile_id)
    response = await send(api, "/v1/sessions/get", token, {"session_id": session_id})
    assert response.json()["payload"] == IsPartialDict(
        session_id=session_id, user_id="sam@example.com", active=True, casefile_id=casefile_id
    )
