"""The OpenAPI document against the server: what it says is what happens, whatever is sent."""

import asyncio
import functools
from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks

# What the server would import when the first agent runs: hypothesis, in its own thread, cannot bear imports elsewhere.
import casekeeper.agents.runs  # noqa: F401  # pyright: ignore[reportUnusedImport] - for that alone
from casekeeper.asgi import create_app
from tests.doors.sites import furnish
from tests.support import Api

checks.load_all_checks()
CHECKS: list[Any] = list(
    checks.CHECKS.get_by_names(  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - not fully typed there
        [
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
        ]
    )
)

# Streams without an end have tests of their own.
OPERATIONS = sorted(
    operation["operationId"]
    for methods in create_app().openapi()["paths"].values()
    for operation in methods.values()
    if operation["operationId"] != "sessions_stream"
)

# How many good answers there must be, where three cannot be: secrets that nothing can generate, deeds done once.
LEAST = {
    "livez": 1,
    "readyz": 1,
    "catalog": 1,
    "auth_token": 0,
    "auth_refresh": 0,
    "auth_login": 0,
    "auth_callback": 0,
    "auth_session": 0,
    "auth_who": 1,
    "auth_logout": 1,
    "casefiles_delete": 1,
    "documents_delete": 1,
    "permissions_transfer": 1,
}

EXAMPLES = settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    derandomize=True,
)


async def seeds(api: Api) -> tuple[str, dict[str, Any]]:
    """A token that may everything, and values that exist."""
    root = await api.account("root@example.com", operator=True)
    token = await api.token(root)
    guest, _ = await api.user("guest")
    casefile_id = await api.casefile(token)
    place = await furnish(api, token, casefile_id)
    await api.grant(token, casefile_id, guest, "viewer")
    session_id = await api.session(token, casefile_id)
    key = await api.ask("/v1/keys/create", {"user_id": guest}, token=token)
    return token, {
        "casefile_id": casefile_id,
        "session_id": session_id,
        "event_id": place.event_id,
        "document_id": place.document_id,
        "document_ids": [place.document_id],
        "key_id": key["key_id"],
        "user_id": guest,
        "tool_name": "noop",
        "parameters": {},
        "agent_name": "offline-researcher",
        "message_history": [],
        "filename": "a.eml",
        "part": "inputs",
        "role": "viewer",
        "expires_at": None,
        "casefile_ids": [],
        "cursor": None,
        "expected_version": None,
    }


@pytest.mark.parametrize("operation_id", OPERATIONS)
async def test_an_operation_answers_as_the_document_says(api: Api, url: str, operation_id: str) -> None:
    token, values = await seeds(api)
    if operation_id == "accounts_create":
        del values["user_id"]
    statuses = await asyncio.to_thread(_try, url, operation_id, token, values)
    good = sum(count for status, count in statuses.items() if status < 300)
    # Without good answers the test would only prove that everything is refused.
    assert good >= LEAST.get(operation_id, 3), statuses


@functools.cache
def _schema() -> Any:
    # Reading it takes a second, which each of the tests would pay.
    return schemathesis.openapi.from_dict(create_app().openapi())


def _try(url: str, operation_id: str, token: str, values: dict[str, Any]) -> Counter[int]:
    operation = _schema().find_operation_by_id(operation_id)
    fitting = operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE)
    unfitting = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
    statuses: Counter[int] = Counter()

    def send(case: Any) -> None:
        response = case.call(base_url=url, headers={"Authorization": f"Bearer {token}"})
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    @EXAMPLES
    @given(fitting)
    def with_what_exists(case: Any) -> None:
        _seed(case, values)
        send(case)

    @EXAMPLES
    @given(fitting | unfitting)
    def with_anything(case: Any) -> None:
        send(case)

    with_what_exists()
    with_anything()
    return statuses


def _seed(case: Any, values: dict[str, Any]) -> None:
    for name in ("path_parameters", "query"):
        parameters = getattr(case, name)
        if parameters:
            setattr(case, name, {k: values.get(k, v) for k, v in parameters.items()})
    body: Any = case.body
    if isinstance(body, dict):
        envelope = dict[str, Any](body)  # pyright: ignore[reportUnknownArgumentType] - JSON
        envelope.pop("user_id", None)
        case.body = _seeded(envelope, values)


def _seeded(body: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    inner = {k: _seeded(v, values) if isinstance(v, dict) else v for k, v in body.items()}  # pyright: ignore[reportUnknownArgumentType] - JSON
    return inner | {k: values[k] for k in values.keys() & inner.keys()}
