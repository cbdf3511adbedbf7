"""Tools that misbehave: the operation fails with a clear reason, the record closes it, the server goes on."""

import asyncio
from typing import Any

import pytest
from dirty_equals import IsInt, IsPartialDict, IsStr

from casekeeper.server import Server
from tests.support import Api, House, Workshop, bearer

FAILURES: list[tuple[str, dict[str, Any], str, str]] = [
    ("raises", {}, "operation_raised", "ValueError: the tool broke"),
    ("raises", {"message": "x" * 100_000}, "operation_raised", "ValueError: xxx"),
    ("raises_surrogates", {}, "operation_raised", "ValueError: half a pair: \\ud800"),
    ("raises_unprintable", {}, "operation_raised", "_CannotBeTold"),
    ("hangs", {}, "deadline_exceeded", "0.1 s"),
    ("exits", {}, "operation_raised", "SystemExit"),
    ("returns_bytes", {"size": 50_000_000}, "output_too_large", "50000002 bytes"),
    ("returns_object", {}, "output_not_json", "JSON"),
    ("returns_nested", {"depth": 500}, "output_not_json", "JSON"),
    ("nested", {"name": "raises"}, "operation_raised", "the tool broke"),
    ("nested", {"name": "no_such_tool"}, "arguments_invalid", "no_such_tool"),
    ("nested", {"name": "note_add", "parameters": {"text": 1}}, "arguments_invalid", "text"),
    ("mail_get", {"document_id": "doc_0"}, "document_not_found", "doc_0"),
    ("document_import", {"upload_id": "upl_" + "0" * 32}, "document_not_found", "upl_"),
]


@pytest.mark.parametrize(
    ("name", "parameters", "type_", "said"),
    FAILURES,
    ids=[f"{f[0]}-{f[2]}-{i}" for i, f in enumerate(FAILURES)],
)
async def test_a_tool_that_misbehaves_fails_and_says_how(
    api: Api, house: House, name: str, parameters: dict[str, Any], type_: str, said: str
) -> None:
    response = await api.run(house["owner"], name, parameters, casefile_id=house.casefile_id)
    body = response.json()
    error = {
        "type": type_,
        "message": IsStr(regex=f"(?s).*{_escaped(said)}.*"),
        "retryable": type_ == "deadline_exceeded",
    }
    assert (response.status_code, body) == (
        200,
        IsPartialDict(
            status="failed",
            error=error,
            payload=IsPartialDict(success=False, outputs=None, error=error, duration_ms=IsInt(ge=0)),
        ),
    )


@pytest.mark.parametrize("name", sorted({failure[0] for failure in FAILURES}))
async def test_nothing_stays_open_behind_a_tool_that_misbehaves(api: Api, house: House, name: str) -> None:
    parameters = next(failure[1] for failure in FAILURES if failure[0] == name)
    ran = (await api.run(house["owner"], name, parameters, casefile_id=house.casefile_id)).json()["payload"]
    page = {"session_id": ran["session_id"], "events": {"view": "journal"}}
    session = await api.ask("/v1/sessions/get", page, token=house["owner"])
    kinds = [e["kind"] for e in session["events"]["items"] if e["event_id"] == ran["event_id"]]
    expected = ["started", "timed_out" if name == "hangs" else "failed"]
    assert (session["open"], kinds) == ([], expected)


async def test_a_tool_that_ignores_its_cancellation_is_left_to_itself(
    api: Api, house: House, workshop: Workshop
) -> None:
    try:
        response = await api.run(house["owner"], "ignores_cancellation", casefile_id=house.casefile_id)
        assert response.json()["payload"] == IsPartialDict(
            success=False, error=IsPartialDict(type="deadline_exceeded")
        )
    finally:
        workshop.release.set()


async def test_the_server_serves_while_a_tool_ignores_its_cancellation(
    api: Api, house: House, workshop: Workshop
) -> None:
    stubborn = asyncio.ensure_future(
        api.run(house["owner"], "ignores_cancellation", casefile_id=house.casefile_id)
    )
    try:
        await workshop.until_running("ignores_cancellation")
        async with asyncio.timeout(2):
            other = await api.run(house["editor"], "noop", casefile_id=house.casefile_id)
        assert other.status_code == 200
    finally:
        workshop.release.set()
        await stubborn


async def test_a_deadline_of_the_caller_is_kept(api: Api, house: House, workshop: Workshop) -> None:
    ran = await api.run(house["owner"], "waits", casefile_id=house.casefile_id, timeout_s=0.05)
    assert ran.json()["error"] == IsPartialDict(type="deadline_exceeded", retryable=True)


async def test_what_json_cannot_say_becomes_null(api: Api, house: House) -> None:
    ran = await api.run(house["owner"], "returns_nan", casefile_id=house.casefile_id)
    assert ran.json()["payload"] == IsPartialDict(success=True, outputs=None)


@pytest.mark.parametrize("number", [2**70, -(2**70), 2**63, 10**300])
async def test_large_integers_come_back_whole_from_everywhere(api: Api, house: House, number: int) -> None:
    token = house["owner"]
    ran = (await api.run(token, "echo", {"value": number}, casefile_id=house.casefile_id)).json()["payload"]
    again = await api.ask("/v1/operations/get", {"event_id": ran["event_id"]}, token=token)
    inputs = (await api.get(f"/v1/operations/{ran['event_id']}/inputs", token=token)).json()
    session = await api.ask("/v1/sessions/get", {"session_id": ran["session_id"]}, token=token)
    event = session["events"]["items"][0]
    seen = [ran["outputs"], again["outputs"], inputs["value"], event["outputs"], event["inputs"]["value"]]
    assert seen == [number] * 5


async def test_large_integers_in_metadata_come_back_whole(api: Api, house: House) -> None:
    metadata = {"big": 2**70, "deep": [[[{"x": None}]]]}
    session_id = await api.session(house["owner"], house.casefile_id, metadata=metadata)
    body = {"payload": {"session_id": session_id}, "metadata": metadata}
    got = (await api.http.post("/v1/sessions/get", json=body, headers=bearer(house["owner"]))).json()
    listed = await api.ask("/v1/sessions/list", {}, token=house["owner"])
    assert [got["metadata"], got["payload"]["metadata"], listed["items"][0]["metadata"]] == [metadata] * 3


@pytest.mark.parametrize("depth", [100, 190, 210, 250])
async def test_deep_outputs_can_be_read_again(api: Api, house: House, depth: int) -> None:
    ran = await api.run(house["owner"], "returns_nested", {"depth": depth}, casefile_id=house.casefile_id)
    event_id = ran.json()["payload"]["event_id"]
    again = await api.ask("/v1/operations/get", {"event_id": event_id}, token=house["owner"])
    part = await api.get(f"/v1/operations/{event_id}/outputs", token=house["owner"])
    assert (again["outputs"], part.json()) == (ran.json()["payload"]["outputs"],) * 2


async def test_nul_characters_are_text_like_any_other(api: Api, house: House) -> None:
    parameters = {"value": "a\x00b"}
    ran = await api.run(house["owner"], "echo", parameters, casefile_id=house.casefile_id)
    assert ran.json()["payload"]["outputs"] == "a\x00b"


async def test_tools_that_misbehave_leave_the_server_ready(api: Api, house: House, server: Server) -> None:
    await asyncio.gather(
        *(
            api.run(house["owner"], name, parameters, casefile_id=house.casefile_id)
            for name, parameters, *_ in FAILURES
        )
    )
    assert (await api.get("/readyz")).status_code == 200


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if not c.isalnum() and c != "_" else c for c in text)
