"""Grants that nobody should ask for, and more of them than anybody needs."""

from datetime import timedelta
from typing import Any

import pytest

from casekeeper.acl import Grant, Role
from casekeeper.acl_feed import ANY
from casekeeper.casefiles.casefile import PutGrant
from casekeeper.journal.commits import Commit, PermissionChanged
from tests.doors.problems import assert_problem
from tests.support import Api, House

GRANT, REVOKE, LIST = (f"/v1/permissions/{verb}" for verb in ("grant", "revoke", "list"))


async def roles(api: Api, house: House) -> dict[str, str]:
    """Who has which role."""
    found = await api.ask(LIST, {"casefile_id": house.casefile_id}, token=house["owner"])
    return {one["user_id"]: one["role"] for one in found["items"]}


@pytest.mark.parametrize(
    ("who", "role", "status", "code"),
    [
        ("viewer", "editor", 403, "role_too_low"),
        ("viewer", "admin", 403, "role_too_low"),
        ("editor", "admin", 403, "role_too_low"),
        ("editor", "owner", 403, "role_too_low"),
        ("admin", "owner", 422, "arguments_invalid"),
        ("owner", "owner", 422, "arguments_invalid"),
        ("stranger", "viewer", 404, "casefile_not_found"),
        ("operator", "viewer", 404, "casefile_not_found"),
    ],
)
async def test_nobody_gives_themselves_a_higher_role(
    api: Api, house: House, who: str, role: str, status: int, code: str
) -> None:
    before = await roles(api, house)
    payload = {"casefile_id": house.casefile_id, "user_id": house.users[who], "role": role}

    assert_problem(await api.post(GRANT, payload, token=house[who]), status, code)

    assert await roles(api, house) == before


@pytest.mark.parametrize("who", ["viewer", "editor", "admin"])
async def test_nobody_but_the_owner_makes_themselves_owner(api: Api, house: House, who: str) -> None:
    payload = {"casefile_id": house.casefile_id, "user_id": house.users[who]}

    answer = await api.post("/v1/permissions/transfer", payload, token=house[who])

    assert_problem(answer, 403, "role_too_low")
    assert (await roles(api, house))[house.users["owner"]] == "owner"


async def test_an_admin_who_lowers_themselves_cannot_take_it_back(api: Api, house: House) -> None:
    payload = {"casefile_id": house.casefile_id, "user_id": house.users["admin"]}
    await api.ask(GRANT, {**payload, "role": "viewer"}, token=house["admin"])

    answer = await api.post(GRANT, {**payload, "role": "admin"}, token=house["admin"])

    assert_problem(answer, 403, "role_too_low")


@pytest.mark.parametrize("before", [timedelta(0), timedelta(seconds=1), timedelta(days=3650)])
async def test_a_grant_that_has_ended_already_changes_nothing(
    api: Api, house: House, before: timedelta
) -> None:
    ends = (api.server.clock() - before).isoformat()
    payload = {"casefile_id": house.casefile_id, "user_id": house.users["editor"], "role": "viewer"}

    answer = await api.post(GRANT, {**payload, "expires_at": ends}, token=house["owner"])

    assert assert_problem(answer, 422)["errors"][0]["field"] == "payload.expires_at"
    assert (await roles(api, house))[house.users["editor"]] == "editor"


async def test_only_active_accounts_are_given_roles_and_are_told_apart_from_none_by_nothing(
    api: Api, house: House
) -> None:
    await api.ask("/v1/accounts/deactivate", {"user_id": house.users["stranger"]}, token=house["operator"])
    said: list[Any] = []
    for user_id in ("nobody@example.com", house.users["stranger"]):
        for path in (GRANT, "/v1/permissions/transfer"):
            payload = {"casefile_id": house.casefile_id, "user_id": user_id}
            payload |= {"role": "viewer"} if path == GRANT else {}
            answer = await api.post(path, payload, token=house["owner"])
            said.append(assert_problem(answer, 422)["errors"])

    assert said == [
        [{"field": "payload.user_id", "message": "there is no active account with this user id"}]
    ] * len(said)


async def test_a_right_of_nobody_is_taken_away_without_telling_whether_there_is_such_an_account(
    api: Api, house: House
) -> None:
    payload = {"casefile_id": house.casefile_id, "user_id": "nobody@example.com"}
    known = {**payload, "user_id": house.users["stranger"]}

    answers = [(await api.ask(REVOKE, one, token=house["owner"])) for one in (payload, known)]

    assert [one["role"] for one in answers] == [None, None]
    assert answers[0].keys() == answers[1].keys()


@pytest.mark.timeout(120)
async def test_a_casefile_takes_ten_thousand_grants(api: Api, house: House) -> None:
    """They are put past the door, which would take a minute for so many."""
    casefile_id, owner, now = house.casefile_id, house.users["owner"], api.server.clock()
    members = [f"member{number:05}@example.com" for number in range(10_000)]
    last = await api.account(members[-1])
    for at in range(0, len(members), 250):
        grants = [
            Grant(casefile_id=casefile_id, user_id=user, role=Role.VIEWER, granted_by=owner, granted_at=now)
            for user in members[at : at + 250]
        ]
        changed = PermissionChanged(casefile_id, ANY, "granted", now)
        await api.server.storage.commits.commit(Commit(records=(*map(PutGrant, grants), changed)))

    found, cursor = list[str](), None
    while True:
        page = await api.ask(
            LIST, {"casefile_id": casefile_id, "limit": 200, "cursor": cursor}, token=house["viewer"]
        )
        found += [one["user_id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break
    token, get = await api.token(last), {"casefile_id": casefile_id}
    opened = await api.post("/v1/casefiles/get", get, token=token)
    await api.ask(REVOKE, {"casefile_id": casefile_id, "user_id": last}, token=house["admin"])
    shut = await api.post("/v1/casefiles/get", get, token=token)

    assert found == sorted([*members, *(house.users[w] for w in ("owner", "admin", "editor", "viewer"))])
    assert opened.status_code == 200
    assert_problem(shut, 404, "casefile_not_found")
