"""Requests that do not fit: each gets a problem that names the field, and changes nothing."""

import json
from typing import Any

import httpx2
import pytest

from casekeeper.server import Server
from tests.doors.problems import assert_problem
from tests.support import Api, House, bearer

CREATE, EXECUTE, LIST = "/v1/sessions/create", "/v1/sessions/execute", "/v1/sessions/list"


async def raw(api: Api, path: str, body: Any, token: str, **headers: str) -> httpx2.Response:
    """POST a body as it is."""
    sent = {"content-type": "application/json", **bearer(token), **headers}
    return await api.http.post(path, content=body, headers=sent)


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    """A tool call."""
    return {
        "operation_type": "tool",
        "tool_name": name,
        "parameters": {} if parameters is None else parameters,
    }


# (path, payload, field that must be named)
PAYLOADS: list[tuple[str, Any, str]] = [
    (CREATE, {}, "payload.casefile_id"),
    (CREATE, {"casefile_id": 7}, "payload.casefile_id"),
    (CREATE, {"casefile_id": None}, "payload.casefile_id"),
    (CREATE, {"casefile_id": ["cf_260101_abcdef"]}, "payload.casefile_id"),
    (CREATE, {"casefile_id": "{cf}", "session_type": "record"}, "payload.session_type"),
    (CREATE, {"casefile_id": "{cf}", "session_type": 1}, "payload.session_type"),
    (CREATE, {"casefile_id": "{cf}", "visibility": "public"}, "payload.visibility"),
    (CREATE, {"casefile_id": "{cf}", "metadata": []}, "payload.metadata"),
    (CREATE, {"casefile_id": "{cf}", "title": "x" * 201}, "payload.title"),
    (CREATE, {"casefile_id": "{cf}", "title": "two\nlines"}, "payload.title"),
    (CREATE, {"casefile_id": "{cf}", "title": "NUL\x00"}, "payload.title"),
    (CREATE, {"casefile_id": "{cf}", "surprise": 1}, "payload.surprise"),
    (CREATE, [], "payload"),
    (CREATE, "text", "payload"),
    (CREATE, None, "payload"),
    # Ids of other kinds, and what only looks like an id.
    (CREATE, {"casefile_id": "ts_260101_mcom1234_abcdef"}, "payload.casefile_id"),
    (CREATE, {"casefile_id": "cf_260101_abcdef\n"}, "payload.casefile_id"),
    (CREATE, {"casefile_id": "cf_260101_abcdef\x00"}, "payload.casefile_id"),
    (CREATE, {"casefile_id": "cf_２60101_abcdef"}, "payload.casefile_id"),
    (CREATE, {"casefile_id": "../../etc/passwd"}, "payload.casefile_id"),
    ("/v1/sessions/get", {"session_id": "{cf}"}, "payload.session_id"),
    ("/v1/operations/get", {"event_id": "doc_00000000000"}, "payload.event_id"),
    ("/v1/documents/get", {"casefile_id": "{cf}", "document_id": "evt_000"}, "payload.document_id"),
    ("/v1/keys/revoke", {"key_id": "ck_123456789012_x"}, "payload.key_id"),
    ("/v1/events/query", {"event_ids": ["evt_0", "cf_0"]}, "payload.event_ids.1"),
    # Limits and pages.
    (LIST, {"limit": 0}, "payload.limit"),
    (LIST, {"limit": -1}, "payload.limit"),
    (LIST, {"limit": 201}, "payload.limit"),
    (LIST, {"limit": 2**70}, "payload.limit"),
    (LIST, {"limit": "many"}, "payload.limit"),
    (LIST, {"limit": 1.5}, "payload.limit"),
    (LIST, {"cursor": "made up"}, "cursor"),
    (LIST, {"cursor": "é"}, "cursor"),
    (LIST, {"cursor": "A" * 5000}, "cursor"),
    ("/v1/sessions/get", {"session_id": "{ts}", "events": {"limit": -5}}, "payload.events.limit"),
    ("/v1/sessions/get", {"session_id": "{ts}", "events": {"surprise": 1}}, "payload.events.surprise"),
    ("/v1/sessions/get", {"session_id": "{ts}", "events": {"order": "random"}}, "payload.events.order"),
    ("/v1/sessions/get", {"session_id": "{ts}", "events": {"kinds": ["invented"]}}, "payload.events.kinds.0"),
    # Times.
    (LIST, {"created_after": "yesterday"}, "payload.created_after"),
    (LIST, {"created_after": "2026-01-01T00:00:00"}, "payload.created_after"),
    ("/v1/keys/create", {"expires_at": "2036-01-01T00:00:00"}, "payload.expires_at"),
    (
        "/v1/permissions/grant",
        {
            "casefile_id": "{cf}",
            "user_id": "a@b",
            "role": "viewer",
            "expires_at": "9999-12-31T23:59:59-12:00",
        },
        "payload.expires_at",
    ),
    (
        "/v1/permissions/grant",
        {
            "casefile_id": "{cf}",
            "user_id": "viewer@example.com",
            "role": "viewer",
            "expires_at": "2001-01-01T00:00:00Z",
        },
        "payload.expires_at",
    ),
    # People and roles.
    ("/v1/permissions/grant", {"casefile_id": "{cf}", "user_id": "a@b", "role": "king"}, "payload.role"),
    (
        "/v1/permissions/grant",
        {"casefile_id": "{cf}", "user_id": "viewer@example.com", "role": "owner"},
        "payload.role",
    ),
    (
        "/v1/permissions/grant",
        {"casefile_id": "{cf}", "user_id": "no account@example.com", "role": "viewer"},
        "payload.user_id",
    ),
    (
        "/v1/permissions/grant",
        {"casefile_id": "{cf}", "user_id": "unheard.of@example.com", "role": "viewer"},
        "payload.user_id",
    ),
    (
        "/v1/permissions/transfer",
        {"casefile_id": "{cf}", "user_id": "unheard.of@example.com"},
        "payload.user_id",
    ),
    (
        "/v1/permissions/grant",
        {"casefile_id": "{cf}", "user_id": "a" * 65 + "@b", "role": "viewer"},
        "payload.user_id",
    ),
    ("/v1/casefiles/update", {"casefile_id": "{cf}", "expected_version": -1}, "payload.expected_version"),
    ("/v1/casefiles/update", {"casefile_id": "{cf}", "expected_version": 2**70}, "payload.expected_version"),
    ("/v1/casefiles/create", {"title": ""}, "payload.title"),
    ("/v1/casefiles/create", {"title": "   "}, "payload.title"),
    ("/v1/casefiles/create", {"title": "x", "tags": ["a"] * 51}, "payload.tags"),
    ("/v1/casefiles/create", {"title": "x", "description": "\x00"}, "payload.description"),
    # Operations.
    (EXECUTE, {"operation": tool("noop")}, "payload.casefile_id"),
    (EXECUTE, {"casefile_id": "{cf}"}, "payload.operation"),
    (EXECUTE, {"casefile_id": "{cf}", "operation": {}}, "payload.operation"),
    (EXECUTE, {"casefile_id": "{cf}", "operation": {"operation_type": "spell"}}, "payload.operation"),
    (
        EXECUTE,
        {"casefile_id": "{cf}", "operation": tool("noop") | {"prompt": "x"}},
        "payload.operation.prompt",
    ),
    (EXECUTE, {"casefile_id": "{cf}", "operation": tool("no_such_tool")}, "payload.operation.tool_name"),
    (EXECUTE, {"casefile_id": "{cf}", "operation": tool("../etc\x00")}, "payload.operation.tool_name"),
    (EXECUTE, {"casefile_id": "{cf}", "operation": tool("note_add", [])}, "payload.operation.parameters"),
    (EXECUTE, {"casefile_id": "{cf}", "operation": tool("note_add")}, "payload.operation.parameters.text"),
    (
        EXECUTE,
        {"casefile_id": "{cf}", "operation": tool("note_add", {"text": 5})},
        "payload.operation.parameters.text",
    ),
    (
        EXECUTE,
        {"casefile_id": "{cf}", "operation": tool("note_add", {"text": "x", "surprise": 1})},
        "payload.operation.parameters.surprise",
    ),
    (
        EXECUTE,
        {
            "casefile_id": "{cf}",
            "operation": {"operation_type": "agent", "agent_name": "no-such", "prompt": "x"},
        },
        "payload.operation.agent_name",
    ),
    (EXECUTE, {"casefile_id": "{cf}", "operation": tool("noop"), "timeout_s": 0}, "payload.timeout_s"),
    (EXECUTE, {"casefile_id": "{cf}", "operation": tool("noop"), "timeout_s": -1}, "payload.timeout_s"),
    (EXECUTE, {"casefile_id": "{cf}", "operation": tool("noop"), "timeout_s": 1e300}, "payload.timeout_s"),
    (EXECUTE, {"casefile_id": "{cf}", "operation": tool("noop"), "mode": "later"}, "payload.mode"),
]


@pytest.mark.parametrize(
    ("path", "payload", "field"), PAYLOADS, ids=[f"{i} {p[2]}" for i, p in enumerate(PAYLOADS)]
)
async def test_a_payload_that_does_not_fit_is_refused_by_the_name_of_its_field(
    api: Api, house: House, path: str, payload: Any, field: str
) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    facts = await api.facts()
    sent = _filled(payload, cf=house.casefile_id, ts=session_id)
    response = await api.post(path, sent, token=house["owner"])
    assert_problem(response, 422, field=field)
    assert await api.facts() == facts


@pytest.mark.parametrize(
    ("envelope", "field"),
    [
        ({}, "payload"),
        ({"payload": {}, "surprise": 1}, "surprise"),
        ({"payload": {}, "request_id": ""}, "request_id"),
        ({"payload": {}, "request_id": "x" * 129}, "request_id"),
        ({"payload": {}, "request_id": "with space"}, "request_id"),
        ({"payload": {}, "request_id": "line\n"}, "request_id"),
        ({"payload": {}, "request_id": 5}, "request_id"),
        ({"payload": {}, "user_id": "nobody"}, "user_id"),
        ({"payload": {}, "user_id": 5}, "user_id"),
        ({"payload": {}, "metadata": "text"}, "metadata"),
    ],
)
async def test_an_envelope_that_does_not_fit_is_refused(
    api: Api, house: House, envelope: dict[str, Any], field: str
) -> None:
    response = await api.http.post(LIST, json=envelope, headers=bearer(house["owner"]))
    assert_problem(response, 422, "arguments_invalid", field=field)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"\x00",
        b'{"payload": NaN}',
        b'{"payload": {"limit": Infinity}}',
        b'{"payload": {}, "metadata": {"x": 1e999}}',
        b'{"payload": {}, "metadata": {"x": -1' + b"0" * 400 + b".0}}",
        b'{"payload": {}, "metadata": {"half": "\\ud800"}}',
        b'{"payload": {}, "metadata": {"\\udc00": 1}}',
        b'{"payload": {}, "metadata": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"payload": {}, "metadata": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}",
        b"{'payload': {}}",
        b'{"payload": {}} trailing',
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_a_body_that_is_not_json_as_we_take_it_is_refused(api: Api, house: House, body: bytes) -> None:
    assert_problem(await raw(api, LIST, body, house["owner"]), 422, "arguments_invalid")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "", "garbage/;;"]
)
async def test_another_content_type_is_refused(api: Api, house: House, content_type: str) -> None:
    response = await raw(api, LIST, b'{"payload": {}}', house["owner"], **{"content-type": content_type})
    assert_problem(response, 422, "arguments_invalid")
    assert "Content-Type: application/json" in response.json()["detail"]


async def test_a_body_of_10_mib_is_read_and_one_byte_more_is_not(api: Api, house: House) -> None:
    frame = b'{"payload": {}, "metadata": {"x": "%s"}}'
    room = 10 * 1024 * 1024 - len(frame) + 2
    answers = [
        await raw(api, LIST, frame % (b"x" * room), house["owner"]),
        await raw(api, LIST, frame % (b"x" * (room + 1)), house["owner"]),
    ]
    assert [answer.status_code for answer in answers] == [200, 413]
    assert_problem(answers[1], 413, "body_too_large")


async def test_a_body_without_a_length_is_measured_as_it_comes(api: Api, house: House) -> None:
    async def chunks() -> Any:
        for _ in range(11):
            yield b"x" * 1024 * 1024

    assert_problem(await raw(api, LIST, chunks(), house["owner"]), 413, "body_too_large")


async def test_headers_of_2_mb_are_refused(api: Api, house: House) -> None:
    headers = bearer(house["owner"]) | {"x-padding": "x" * 2_000_000}
    assert_problem(await api.http.get("/v1/catalog", headers=headers), 431, "headers_too_large")


async def test_a_wrong_user_id_is_refused_before_anything_is_looked_at(api: Api, house: House) -> None:
    facts = await api.facts()
    payload = {"casefile_id": house.casefile_id}
    response = await api.post(CREATE, payload, token=house["owner"], user_id="viewer@example.com")
    problem = assert_problem(response, 403, "user_mismatch")
    assert (problem["check"], await api.facts()) == ("who", facts)


async def test_user_ids_are_compared_in_any_case(api: Api, house: House) -> None:
    payload = {"casefile_id": house.casefile_id}
    response = await api.post(CREATE, payload, token=house["owner"], user_id="OWNER@Example.com")
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/nothing", 404, "route_not_found"),
        ("/v1/sessions/create/", 404, "route_not_found"),
        ("/v1/sessions/%00/record", 422, "arguments_invalid"),
        ("/v1/sessions/%ED%A0%80/record", 422, "arguments_invalid"),
        ("/v1/sessions/create", 405, "method_not_allowed"),
        ("/v1/operations/evt_0/secrets", 422, "arguments_invalid"),
    ],
)
async def test_a_wrong_address_is_a_problem_too(
    api: Api, house: House, path: str, status: int, code: str
) -> None:
    assert_problem(await api.get(path, token=house["owner"]), status, code)


@pytest.mark.parametrize("after", ["-1", "9" * 19, "9" * 25, "1.5", "abc", "٣", ""])
async def test_a_place_to_resume_that_is_no_number_is_refused(api: Api, house: House, after: str) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    path = f"/v1/sessions/{session_id}/events/stream?after={after}"
    assert_problem(await api.get(path, token=house["owner"]), 422, "arguments_invalid")


@pytest.mark.parametrize("last", ["-1", "9" * 19, "9" * 25, "1.5", "abc"])
async def test_a_last_event_id_that_is_no_number_is_refused(api: Api, house: House, last: str) -> None:
    session_id = await api.session(house["owner"], house.casefile_id)
    headers = {"Last-Event-ID": last}
    response = await api.get(
        f"/v1/sessions/{session_id}/events/stream", token=house["owner"], headers=headers
    )
    assert_problem(response, 422, "arguments_invalid")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?casefile_id={cf}",
        "?filename=a.eml",
        "?casefile_id=nonsense&filename=a.eml",
        "?casefile_id={cf}&filename=",
        "?casefile_id={cf}&filename=..%2F..%2Fetc%2Fpasswd",
        "?casefile_id={cf}&filename=a%00b",
        "?casefile_id={cf}&filename=" + "x" * 256,
    ],
)
async def test_an_upload_without_a_proper_address_is_refused(api: Api, house: House, query: str) -> None:
    path = "/v1/documents/upload" + query.format(cf=house.casefile_id)
    response = await api.http.post(path, content=b"x", headers=bearer(house["owner"]))
    assert_problem(response, 422, "arguments_invalid")


async def test_no_incident_was_caused_by_an_empty_user_agent_or_a_strange_header(
    api: Api, house: House, server: Server
) -> None:
    headers = [
        (b"authorization", f"Bearer {house['owner']}".encode()),
        (b"user-agent", b""),
        (b"x-bytes", b"\xff\xfe"),
    ]
    response = await api.http.post(LIST, json={"payload": {}}, headers=headers)
    assert (response.status_code, server.is_ready) == (200, True)


def _filled(payload: Any, **ids: str) -> Any:
    text = json.dumps(payload)
    for name, id_ in ids.items():
        text = text.replace(f"{{{name}}}", id_)
    return json.loads(text)
