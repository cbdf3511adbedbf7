"""The access table in other states: public, archived, with expired grants, with ended accounts."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.doors.access_table import CASES, Case
from tests.doors.sites import Site
from tests.support import Api, SteppableClock, Workshop, open_test_server

IN_CASEFILE = [
    (case, target)
    for case in CASES
    if case.is_in_casefile
    for target in case.rows
    if target in ("own", "shared", "private")
]
IDS = [f"{case.id} {target}" for case, target in IN_CASEFILE]

# What a public reader, who is no member, may: read the casefile and its documents, and ask what they may.
PUBLIC_READERS_MAY = {
    "POST /v1/casefiles/get",
    "POST /v1/documents/list",
    "POST /v1/documents/get",
    "GET /v1/documents/{document_id}/content",
    "POST /v1/permissions/check",
}

ARCHIVED = {
    "POST /v1/casefiles/get": 200,
    "POST /v1/casefiles/update": 409,
    "POST /v1/permissions/grant": 409,
    "POST /v1/permissions/revoke": 409,
    "POST /v1/permissions/transfer": 409,
    "POST /v1/permissions/list": 200,
    "POST /v1/permissions/check": 200,
    "POST /v1/permissions/check another's": 200,
    "POST /v1/documents/list": 200,
    "POST /v1/documents/get": 200,
    "GET /v1/documents/{document_id}/content": 200,
    "POST /v1/documents/upload": 409,
    "POST /v1/sessions/execute read in casefile": 200,
    "POST /v1/sessions/execute write in casefile": 409,
    "POST /v1/sessions/get": 200,
    "POST /v1/sessions/list": 200,
    "GET /v1/sessions/{session_id}/events/stream": 200,
    "GET /v1/sessions/{session_id}/record": 200,
    "POST /v1/operations/get": 200,
    "GET /v1/operations/{event_id}/{part}": 200,
    "POST /v1/events/query": 200,
}


@pytest.mark.parametrize(("case", "target"), IN_CASEFILE, ids=IDS)
async def test_a_public_reader_reads_documents_and_leaves_no_other_fact(
    api: Api, case: Case, target: str
) -> None:
    site = await Site.build(api, "", public_role="viewer")
    place = await site.place(case, target, "stranger")
    facts = await api.facts()
    reply = await site.call(case, place, site.token("stranger"))
    refused = 404 if target == "private" else 403
    allowed = case.id in PUBLIC_READERS_MAY
    told = [fact for fact in await api.facts() if fact not in facts]
    assert reply.status == (200 if allowed else refused)
    # Whoever reads raw bytes is on the record, a public reader, too.
    reads_raw = case.id == "GET /v1/documents/{document_id}/content" and allowed
    assert [kind for _, kind, _ in told] == (["document_read"] if reads_raw else [])


@pytest.mark.parametrize("case", [c for c in CASES if c.id in ARCHIVED], ids=lambda case: case.id)
async def test_an_archived_casefile_is_read_and_not_changed(api: Api, case: Case) -> None:
    site = await Site.build(api, "")
    place = await site.place(case, "shared" if "shared" in case.rows else "own", "owner")
    archive = {"casefile_id": site.house.casefile_id, "status": "archived"}
    await api.ask("/v1/casefiles/update", archive, token=site.house["owner"])
    assert (await site.call(case, place, site.house["owner"])).status == ARCHIVED[case.id]


async def test_an_archived_casefile_can_be_made_active_again(api: Api) -> None:
    house = await api.house()
    for status in ("archived", "active"):
        payload = {"casefile_id": house.casefile_id, "status": status}
        await api.ask("/v1/casefiles/update", payload, token=house["owner"])
    assert (await api.run(house["editor"], "touch", casefile_id=house.casefile_id)).status_code == 200


@pytest.mark.parametrize("scoped", [True, False], ids=["token with scope", "token without"])
async def test_an_expired_grant_opens_no_door(tmp_path: Path, scoped: bool) -> None:
    clock = SteppableClock()
    async with (
        open_test_server(tmp_path / "data", clock=clock) as server,
        Api.of(server) as api,
    ):
        site = await Site.build(api, "")
        user_id, token = await api.user("guest")
        casefile_id, ends = site.house.casefile_id, (clock.now + timedelta(seconds=60)).isoformat()
        await api.grant(site.house["owner"], casefile_id, user_id, "admin", expires_at=ends)
        if scoped:
            listed = await api.ask("/v1/sessions/create", {"casefile_id": casefile_id}, token=token)
            token = listed["updated_scopes"]["token"]
        places = [(case, await site.place(case, target, "admin")) for case, target in IN_CASEFILE]
        clock.step(seconds=61)
        statuses = {case.id: (await site.call(case, place, token)).status for case, place in places}
        assert statuses == dict.fromkeys(statuses, 404)


async def test_a_deactivated_account_is_nobody_on_every_route(tmp_path: Path, workshop: Workshop) -> None:
    async with open_test_server(tmp_path / "data", workshop=workshop) as server, Api.of(server) as api:
        site = await Site.build(api, "")
        guarded = [(case, target) for case in CASES for target in case.rows if not case.open]
        places = [(case, await site.place(case, target, "admin")) for case, target in guarded]
        token = await api.token(site.house.users["admin"])
        ended = {"user_id": site.house.users["admin"]}
        await api.ask("/v1/accounts/deactivate", ended, token=site.house["operator"])
        statuses = {case.id: (await site.call(case, place, token)).status for case, place in places}
        assert statuses == dict.fromkeys(statuses, 401)
