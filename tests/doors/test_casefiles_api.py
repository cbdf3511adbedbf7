"""Casefiles and permissions: the verbs, versions, the owner, the dry run."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsDatetime, IsPartialDict, IsStr
from inline_snapshot import snapshot

from tests.doors.problems import assert_problem
from tests.support import Api, House, Json, open_test_server


async def record(api: Api, house: House) -> list[Any]:
    """The facts of the casefile's own record, oldest first."""
    casefile = await api.ask("/v1/casefiles/get", {"casefile_id": house.casefile_id}, token=house["owner"])
    payload = {"session_id": casefile["record_session_id"], "events": {"view": "journal", "limit": 200}}
    got = await api.ask("/v1/sessions/get", payload, token=house["owner"])
    return got["events"]["items"]


# The casefile


async def test_a_new_casefile_belongs_to_its_maker(api: Api) -> None:
    user_id, token = await api.user("anna")
    made = await api.ask("/v1/casefiles/create", {"title": " Rent ", "tags": ["flat"]}, token=token)
    assert made == snapshot(
        {
            "casefile_id": IsStr(regex=r"cf_\d{6}_[0-9a-f]{6}"),
            "title": "Rent",
            "description": "",
            "tags": ["flat"],
            "status": "active",
            "public_role": "none",
            "owner": "anna@example.com",
            "version": 1,
            "created_at": IsDatetime(iso_string=True),
            "updated_at": IsDatetime(iso_string=True),
            "record_session_id": IsStr(regex="ts_.*"),
            "user_permission": "owner",
        }
    )
    assert made["owner"] == user_id


async def test_the_record_session_is_named_to_admins_only(api: Api, house: House) -> None:
    named: dict[str, bool] = {}
    for who in ("owner", "admin", "editor", "viewer"):
        got = await api.ask("/v1/casefiles/get", {"casefile_id": house.casefile_id}, token=house[who])
        named[who] = got["record_session_id"] is not None
    assert named == {"owner": True, "admin": True, "editor": False, "viewer": False}


async def test_each_member_is_told_their_role(api: Api, house: House) -> None:
    roles: dict[str, str] = {}
    for who in ("owner", "admin", "editor", "viewer"):
        got = await api.ask("/v1/casefiles/get", {"casefile_id": house.casefile_id}, token=house[who])
        roles[who] = got["user_permission"]
    assert roles == {who: who for who in roles}


async def test_an_update_changes_what_is_given_and_leaves_the_rest(api: Api, house: House) -> None:
    payload: Json = {"casefile_id": house.casefile_id, "description": "All about it", "tags": []}
    changed = await api.ask("/v1/casefiles/update", payload, token=house["admin"])
    assert changed == IsPartialDict(title="Rent dispute", description="All about it", tags=[])


async def test_a_stale_version_is_refused_and_told_the_present_one(api: Api, house: House) -> None:
    got = await api.ask("/v1/casefiles/get", {"casefile_id": house.casefile_id}, token=house["owner"])
    update = {"casefile_id": house.casefile_id, "title": "New", "expected_version": got["version"]}
    await api.ask("/v1/casefiles/update", update, token=house["owner"])
    response = await api.post("/v1/casefiles/update", update, token=house["owner"])
    problem = assert_problem(response, 409, "stale_version")
    assert problem["current_version"] == got["version"] + 1


async def test_of_ten_updates_at_one_version_one_is_made(api: Api, house: House) -> None:
    got = await api.ask("/v1/casefiles/get", {"casefile_id": house.casefile_id}, token=house["owner"])
    update = {"casefile_id": house.casefile_id, "expected_version": got["version"]}
    answers = await asyncio.gather(
        *(
            api.post("/v1/casefiles/update", update | {"title": str(n)}, token=house["owner"])
            for n in range(10)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 9]


async def test_ten_concurrent_updates_without_a_version_are_all_made(api: Api, house: House) -> None:
    answers = await asyncio.gather(
        *(
            api.post(
                "/v1/casefiles/update",
                {"casefile_id": house.casefile_id, "title": str(n)},
                token=house["owner"],
            )
            for n in range(10)
        )
    )
    # Whoever loses every race is told to come back; nothing is half done.
    assert {answer.status_code for answer in answers} <= {200, 503}
    made = sum(answer.status_code == 200 for answer in answers)
    assert [fact["kind"] for fact in await record(api, house)].count("casefile_updated") == made


async def test_a_deleted_casefile_is_gone_for_everybody(api: Api, house: House) -> None:
    await api.ask("/v1/casefiles/delete", {"casefile_id": house.casefile_id}, token=house["owner"])
    listed = await api.ask("/v1/casefiles/list", {}, token=house["owner"])
    events = await api.ask("/v1/events/query", {}, token=house["owner"])
    assert (listed["items"], events["items"]) == ([], [])


async def test_casefiles_are_listed_by_status(api: Api, house: House) -> None:
    await api.ask(
        "/v1/casefiles/update",
        {"casefile_id": house.casefile_id, "status": "archived"},
        token=house["owner"],
    )
    seen = {
        status: len((await api.ask("/v1/casefiles/list", {"status": status}, token=house["viewer"]))["items"])
        for status in ("active", "archived")
    }
    assert seen == {"active": 0, "archived": 1}


async def test_public_casefiles_are_not_listed_for_everybody(api: Api) -> None:
    house = await api.house(public_role="viewer")
    assert (await api.ask("/v1/casefiles/list", {}, token=house["stranger"]))["items"] == []


# Permissions


async def test_every_change_of_access_is_on_the_record(api: Api, house: House) -> None:
    casefile, viewer = {"casefile_id": house.casefile_id}, {"user_id": house.users["viewer"]}
    await api.ask("/v1/permissions/grant", casefile | viewer | {"role": "editor"}, token=house["owner"])
    await api.ask("/v1/permissions/revoke", casefile | viewer, token=house["admin"])
    await api.ask(
        "/v1/permissions/transfer", casefile | {"user_id": house.users["admin"]}, token=house["owner"]
    )
    told = [(fact["kind"], fact["actor_user_id"], fact["inputs"]) for fact in (await record(api, house))[4:]]
    assert told == [
        ("role_changed", "owner@example.com", {"user_id": "viewer@example.com", "role": "editor"}),
        ("revoked", "admin@example.com", {"user_id": "viewer@example.com"}),
        (
            "transferred",
            "owner@example.com",
            {"user_id": "admin@example.com", "former_owner": "owner@example.com"},
        ),
    ]


async def test_after_a_transfer_there_is_one_owner_and_the_former_is_admin(api: Api, house: House) -> None:
    payload = {"casefile_id": house.casefile_id, "user_id": house.users["editor"]}
    await api.ask("/v1/permissions/transfer", payload, token=house["owner"])
    grants = await api.ask("/v1/permissions/list", {"casefile_id": house.casefile_id}, token=house["viewer"])
    assert {grant["user_id"].split("@")[0]: grant["role"] for grant in grants["items"]} == {
        "admin": "admin",
        "editor": "owner",
        "owner": "admin",
        "viewer": "viewer",
    }


@pytest.mark.parametrize("who", ["owner", "admin"])
@pytest.mark.parametrize("route", ["grant", "revoke"])
async def test_the_owner_can_neither_be_demoted_nor_removed(
    api: Api, house: House, who: str, route: str
) -> None:
    payload = {"casefile_id": house.casefile_id, "user_id": house.users["owner"]}
    payload |= {"role": "viewer"} if route == "grant" else {}
    response = await api.post(f"/v1/permissions/{route}", payload, token=house[who])
    assert_problem(response, 409, "owner_required")


async def test_any_member_but_the_owner_may_leave(api: Api, house: House) -> None:
    for who in ("viewer", "editor", "admin"):
        payload = {"casefile_id": house.casefile_id, "user_id": house.users[who]}
        await api.ask("/v1/permissions/revoke", payload, token=house[who])
    grants = await api.ask("/v1/permissions/list", {"casefile_id": house.casefile_id}, token=house["owner"])
    assert [grant["role"] for grant in grants["items"]] == ["owner"]


async def test_a_grant_tells_who_gave_it_until_when_and_why(api: Api, house: House) -> None:
    ends = (api.server.clock() + timedelta(days=1)).isoformat().replace("+00:00", "Z")
    payload = {
        "casefile_id": house.casefile_id,
        "user_id": house.users["stranger"],
        "role": "editor",
        "expires_at": ends,
        "note": "for the hearing",
    }
    granted = await api.ask("/v1/permissions/grant", payload, token=house["admin"])
    assert granted == {
        **payload,
        "granted_by": house.users["admin"],
        "granted_at": IsDatetime(iso_string=True),
        "stopped": [],
        "waiting": [],
        "unconfirmed": {},
    }


async def test_revoking_a_right_that_nobody_has_changes_no_right(api: Api, house: House) -> None:
    payload = {"casefile_id": house.casefile_id, "user_id": house.users["stranger"]}
    revoked = await api.ask("/v1/permissions/revoke", payload, token=house["owner"])
    assert revoked == IsPartialDict(user_id=house.users["stranger"], role=None)


# The dry run

TOUCH: Json = {"operation_type": "tool", "tool_name": "touch", "parameters": {}}


@pytest.mark.parametrize(
    ("who", "operation", "verdict"),
    [
        ("viewer", None, {"allowed": True, "check": None, "needed_role": "viewer"}),
        ("viewer", TOUCH, {"allowed": False, "check": "what", "needed_role": "editor"}),
        ("editor", TOUCH, {"allowed": True, "check": None, "needed_role": "editor"}),
        (
            "editor",
            TOUCH | {"tool_name": "shred"},
            {"allowed": False, "check": "what", "needed_role": "admin"},
        ),
        ("owner", TOUCH | {"tool_name": "no_such"}, {"allowed": False, "check": "what"}),
        ("owner", TOUCH | {"parameters": {"surprise": 1}}, {"allowed": False, "check": "what"}),
    ],
)
async def test_a_dry_run_says_whether_and_why(
    api: Api, house: House, who: str, operation: Any, verdict: dict[str, Any]
) -> None:
    payload = {"casefile_id": house.casefile_id, "operation": operation}
    facts = await api.facts()
    answer = await api.ask("/v1/permissions/check", payload, token=house[who])
    assert answer == IsPartialDict(user_id=house.users[who], role=who, reason=IsStr(min_length=5), **verdict)
    assert await api.facts() == facts


@pytest.mark.parametrize("whom", ["viewer", "editor", "admin", "stranger"])
async def test_the_dry_run_for_another_agrees_with_what_happens_to_them(
    api: Api, house: House, whom: str
) -> None:
    payload: Json = {"casefile_id": house.casefile_id, "user_id": house.users[whom], "operation": TOUCH}
    answer = await api.ask("/v1/permissions/check", payload, token=house["admin"])
    ran = await api.run(house[whom], "touch", casefile_id=house.casefile_id)
    assert answer["allowed"] is (ran.status_code == 200)


async def test_the_dry_run_knows_an_archived_casefile(api: Api, house: House) -> None:
    archive = {"casefile_id": house.casefile_id, "status": "archived"}
    await api.ask("/v1/casefiles/update", archive, token=house["owner"])
    payload: Json = {"casefile_id": house.casefile_id, "operation": TOUCH}
    answer = await api.ask("/v1/permissions/check", payload, token=house["owner"])
    assert answer == IsPartialDict(allowed=False, check="admit")


async def test_casefiles_may_be_made_by_operators_only_where_a_setting_says_so(tmp_path: Path) -> None:
    async with (
        open_test_server(tmp_path / "data", everybody_creates=False) as server,
        Api.of(server) as api,
    ):
        operator = await api.token(await api.account("root@example.com", operator=True))
        _, token = await api.user("anna")
        made = await api.post("/v1/casefiles/create", {"title": "x"}, token=operator)
        assert_problem(
            await api.post("/v1/casefiles/create", {"title": "x"}, token=token), 403, "operator_only"
        )
        assert made.status_code == 200
