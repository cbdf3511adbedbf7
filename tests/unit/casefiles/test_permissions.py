import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from casekeeper.acl import Role
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.casefiles.permissions import GrantRole, ListGrants, RevokeRole, TransferCasefile
from casekeeper.errors import (
    ArgumentsInvalid,
    CasefileArchived,
    CasefileNotFound,
    CursorInvalid,
    OwnerRequired,
    RoleTooLow,
)
from casekeeper.identity.account_commands import DeactivateAccount
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.sessions.manager import At
from tests.unit.support import ANNA, BEN, CARA, NOW, ROOT, House, open_house


@pytest.fixture
async def anna(house: House) -> Principal:
    return await house.caller(ANNA)


@pytest.fixture
async def ben(house: House) -> Principal:
    return await house.caller(BEN)


@pytest.fixture
async def casefile(house: House, anna: Principal) -> CasefileView:
    """Anna's casefile."""
    return await house.casefile(anna)


async def roles(house: House, by: Principal, casefile_id: str) -> dict[str, Role | None]:
    page = await house.permissions.page(by, ListGrants(casefile_id=casefile_id))
    return {view.user_id: view.role for view in page.items}


async def role_of(house: House, user_id: str, casefile_id: str) -> Role | None:
    access = await house.gate.look(await house.caller(user_id), casefile_id, again=True)
    return access and access.role


# Granting


@pytest.mark.parametrize("role", [Role.VIEWER, Role.EDITOR, Role.ADMIN])
async def test_an_owner_gives_roles_up_to_admin(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView, role: Role
):
    view = await house.grant(anna, casefile.casefile_id, BEN, role)

    assert (view.role, view.granted_by, view.granted_at) == (role, ANNA, NOW)
    assert await role_of(house, BEN, casefile.casefile_id) is role


async def test_an_admin_gives_roles_up_to_admin(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await house.account(CARA)
    await house.grant(anna, casefile.casefile_id, BEN, Role.ADMIN)

    await house.grant(ben, casefile.casefile_id, CARA, Role.ADMIN)

    assert await role_of(house, CARA, casefile.casefile_id) is Role.ADMIN


@pytest.mark.parametrize("role", [Role.VIEWER, Role.EDITOR])
async def test_below_admin_nobody_gives_roles(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView, role: Role
):
    await house.grant(anna, casefile.casefile_id, BEN, role)

    with pytest.raises(RoleTooLow):
        await house.grant(ben, casefile.casefile_id, BEN, Role.ADMIN)


@pytest.mark.parametrize(
    ("user", "role", "minutes", "field"),
    [
        (BEN, Role.OWNER, None, "payload.role"),
        (BEN, Role.EDITOR, 0, "payload.expires_at"),
        (BEN, Role.EDITOR, -60, "payload.expires_at"),
        ("nobody@example.com", Role.EDITOR, None, "payload.user_id"),
    ],
    ids=["as owner", "until now", "in the past", "to nobody"],
)
async def test_a_grant_that_makes_no_sense_names_the_field(
    house: House,
    anna: Principal,
    ben: Principal,
    casefile: CasefileView,
    user: str,
    role: Role,
    minutes: int | None,
    field: str,
):
    until = None if minutes is None else NOW + timedelta(minutes=minutes)

    with pytest.raises(ArgumentsInvalid) as invalid:
        await house.grant(anna, casefile.casefile_id, user, role, until=until)

    assert [error.field for error in invalid.value.errors] == [field]


async def test_a_deactivated_account_is_given_nothing(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    root = await house.caller(ROOT)
    await house.accounts.deactivate(root, DeactivateAccount(user_id=BEN), house.ask(root))

    with pytest.raises(ArgumentsInvalid):
        await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)
    with pytest.raises(ArgumentsInvalid):
        await house.transfer(anna, casefile.casefile_id, BEN)


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59-12:00", "2026-01-01T00:00:00"])
def test_an_end_that_no_store_could_keep_is_refused(end: Any):
    with pytest.raises(ValidationError, match="expires_at"):
        GrantRole.model_validate(
            {"casefile_id": "cf_251023_5acf44", "user_id": BEN, "role": "viewer", "expires_at": end}
        )


async def test_the_latest_end_there_is_can_be_read_back(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    until = datetime.max.replace(tzinfo=NOW.tzinfo)

    await house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR, until=until)

    page = await house.permissions.page(anna, ListGrants(casefile_id=casefile.casefile_id))
    assert [view.expires_at for view in page.items] == [None, until]
    assert await role_of(house, BEN, casefile.casefile_id) is Role.EDITOR


async def test_who_has_access_is_told_in_pages_without_what_has_expired(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    for number in range(5):
        user_id = f"c{number}@example.com"
        await house.caller(user_id)
        until = house.clock() + timedelta(hours=1) if number in (0, 1, 2) else None
        await house.grant(anna, casefile.casefile_id, user_id, Role.VIEWER, until=until)
    house.clock.advance(hours=2)
    pages = [await house.permissions.page(anna, ListGrants(casefile_id=casefile.casefile_id, limit=2))]
    while cursor := pages[-1].next_cursor:
        wanted = ListGrants(casefile_id=casefile.casefile_id, limit=2, cursor=cursor)
        pages.append(await house.permissions.page(anna, wanted))

    assert [[view.user_id for view in page.items] for page in pages] == [
        [ANNA, "c3@example.com"],
        ["c4@example.com"],
    ]


async def test_a_cursor_of_another_casefiles_list_is_refused(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)
    other = await house.casefile(anna)
    page = await house.permissions.page(anna, ListGrants(casefile_id=casefile.casefile_id, limit=1))

    with pytest.raises(CursorInvalid):
        await house.permissions.page(anna, ListGrants(casefile_id=other.casefile_id, cursor=page.next_cursor))


async def test_the_owners_role_is_not_changed_by_a_grant(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await house.grant(anna, casefile.casefile_id, BEN, Role.ADMIN)

    for caller in (anna, ben):
        with pytest.raises(OwnerRequired):
            await house.grant(caller, casefile.casefile_id, ANNA, Role.VIEWER)


async def test_the_record_tells_a_new_role_from_a_changed_one(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)
    await house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR)

    facts = (await house.facts(casefile.record_session_id or ""))[1:]
    assert [(f["kind"], f["inputs"]) for f in facts] == [
        ("granted", {"user_id": BEN, "role": "viewer"}),
        ("role_changed", {"user_id": BEN, "role": "editor"}),
    ]


async def test_of_two_first_grants_at_once_one_is_the_first(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await asyncio.gather(
        house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER),
        house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR),
    )

    assert (await house.kinds(casefile.record_session_id))[1:] == ["granted", "role_changed"]


async def test_a_repeated_grant_answers_with_the_role_that_is_there_now(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    command = GrantRole(casefile_id=casefile.casefile_id, user_id=BEN, role=Role.VIEWER)
    await house.permissions.grant(anna, command, house.ask(anna, "req"))
    await house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR)
    changed, repeated = await house.permissions.grant(anna, command, house.ask(anna, "req"))
    await house.revoke(anna, casefile.casefile_id, BEN)
    gone, again = await house.permissions.grant(anna, command, house.ask(anna, "req"))

    assert (changed.role, repeated) == (Role.EDITOR, True)
    assert (gone.role, again) == (None, True)


async def test_a_grant_can_be_repeated_after_it_has_ended(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    until = NOW + timedelta(hours=1)
    command = GrantRole(casefile_id=casefile.casefile_id, user_id=BEN, role=Role.VIEWER, expires_at=until)
    await house.permissions.grant(anna, command, house.ask(anna, "req"))
    house.clock.advance(hours=2)

    answer, repeated = await house.permissions.grant(anna, command, house.ask(anna, "req"))

    assert (answer.expires_at, repeated) == (until, True)


async def test_a_grant_is_not_repeated_by_somebody_who_may_grant_no_more(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await house.account(CARA)
    await house.grant(anna, casefile.casefile_id, BEN, Role.ADMIN)
    command = GrantRole(casefile_id=casefile.casefile_id, user_id=CARA, role=Role.VIEWER)
    await house.permissions.grant(ben, command, house.ask(ben, "req"))
    await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)

    with pytest.raises(RoleTooLow):
        await house.permissions.grant(ben, command, house.ask(ben, "req"))


# Revoking


async def test_who_was_revoked_is_a_stranger(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await house.grant(anna, casefile.casefile_id, BEN, Role.ADMIN)

    await house.revoke(anna, casefile.casefile_id, BEN)

    assert await role_of(house, BEN, casefile.casefile_id) is None
    assert (await house.kinds(casefile.record_session_id))[-1] == "revoked"


async def test_nobody_revokes_the_owner(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await house.grant(anna, casefile.casefile_id, BEN, Role.ADMIN)

    for caller in (anna, ben):
        with pytest.raises(OwnerRequired):
            await house.revoke(caller, casefile.casefile_id, ANNA)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.EDITOR, Role.ADMIN])
async def test_everybody_else_may_leave(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView, role: Role
):
    await house.grant(anna, casefile.casefile_id, BEN, role)

    await house.revoke(ben, casefile.casefile_id, BEN)

    assert await role_of(house, BEN, casefile.casefile_id) is None


async def test_leaving_can_be_repeated(house: House, anna: Principal, ben: Principal, casefile: CasefileView):
    await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)
    command = RevokeRole(casefile_id=casefile.casefile_id, user_id=BEN)
    await house.permissions.revoke(ben, command, house.ask(ben, "req"))

    answer, repeated = await house.permissions.revoke(ben, command, house.ask(ben, "req"))

    assert (answer.role, repeated) == (None, True)


async def test_a_stranger_cannot_leave(house: House, ben: Principal, casefile: CasefileView):
    with pytest.raises(CasefileNotFound):
        await house.revoke(ben, casefile.casefile_id, BEN)


async def test_an_editor_revokes_nobody_else(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await house.account(CARA)
    for user in (BEN, CARA):
        await house.grant(anna, casefile.casefile_id, user, Role.EDITOR)

    with pytest.raises(RoleTooLow):
        await house.revoke(ben, casefile.casefile_id, CARA)


async def test_what_a_revoked_user_runs_there_is_stopped_and_nothing_else(directory: Path):
    async with open_house(directory) as house:
        anna, ben = await house.caller(ANNA), await house.caller(BEN)
        one, other = await house.casefile(anna), await house.casefile(anna)
        for casefile in (one, other):
            await house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR)
        lost = await house.start(ben, At(casefile_id=one.casefile_id), "sleepy")
        elsewhere = await house.start(ben, At(casefile_id=other.casefile_id), "sleepy")
        somebody = await house.start(anna, At(casefile_id=one.casefile_id), "sleepy")

        await house.revoke(anna, one.casefile_id, BEN)
        outcome = await asyncio.wait_for(lost.running.ended, 5)

        assert outcome.failure.type == "rights_lost"
        assert [s.running.ended.done() for s in (elsewhere, somebody)] == [False, False]


# Transferring


async def test_a_transfer_makes_one_owner_and_keeps_the_former_as_admin(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    moved = await house.transfer(anna, casefile.casefile_id, BEN)

    assert (moved.owner, moved.user_permission) == (BEN, "admin")
    assert await roles(house, ben, casefile.casefile_id) == {ANNA: Role.ADMIN, BEN: Role.OWNER}


async def test_a_transfer_to_oneself_changes_no_role(house: House, anna: Principal, casefile: CasefileView):
    moved = await house.transfer(anna, casefile.casefile_id, ANNA)

    assert moved.owner == ANNA
    assert await roles(house, anna, casefile.casefile_id) == {ANNA: Role.OWNER}


async def test_a_role_that_would_have_ended_does_not_end_as_owner(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR, until=NOW + timedelta(hours=1))
    await house.transfer(anna, casefile.casefile_id, BEN)
    house.clock.advance(hours=2)

    assert await role_of(house, BEN, casefile.casefile_id) is Role.OWNER


async def test_of_two_transfers_at_once_one_is_too_late(
    house: House, anna: Principal, casefile: CasefileView
):
    for user in (BEN, CARA):
        await house.account(user)

    answers = await asyncio.gather(
        *(house.transfer(anna, casefile.casefile_id, user) for user in (BEN, CARA)), return_exceptions=True
    )

    held = await roles(house, anna, casefile.casefile_id)
    assert [type(a) for a in answers if isinstance(a, BaseException)] == [RoleTooLow]
    assert list(held.values()).count(Role.OWNER) == 1


async def test_only_the_owner_transfers(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await house.grant(anna, casefile.casefile_id, BEN, Role.ADMIN)

    with pytest.raises(RoleTooLow):
        await house.transfer(ben, casefile.casefile_id, BEN)


async def test_a_stranger_learns_nothing_from_a_transfer(
    house: House, ben: Principal, casefile: CasefileView
):
    for user in (BEN, "nobody@example.com"):
        with pytest.raises(CasefileNotFound):
            await house.transfer(ben, casefile.casefile_id, user)


async def test_a_transfer_can_be_repeated(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    command = TransferCasefile(casefile_id=casefile.casefile_id, user_id=BEN)
    await house.permissions.transfer(anna, command, house.ask(anna, "req"))

    answer, repeated = await house.permissions.transfer(anna, command, house.ask(anna, "req"))

    assert (answer.owner, answer.user_permission, repeated) == (BEN, "admin", True)


async def test_a_repeated_transfer_tells_nothing_to_who_was_put_out_since(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    command = TransferCasefile(casefile_id=casefile.casefile_id, user_id=BEN)
    await house.permissions.transfer(anna, command, house.ask(anna, "req"))
    await house.revoke(ben, casefile.casefile_id, ANNA)

    with pytest.raises(CasefileNotFound):
        await house.permissions.transfer(anna, command, house.ask(anna, "req"))


# Listing, and what is archived


async def test_members_see_who_has_access_and_the_expired_are_not_among_them(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await house.account(CARA)
    await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)
    await house.grant(anna, casefile.casefile_id, CARA, Role.VIEWER, until=NOW + timedelta(hours=1))
    before = await roles(house, ben, casefile.casefile_id)
    house.clock.advance(hours=1)

    assert set(before) == {ANNA, BEN, CARA}
    assert set(await roles(house, ben, casefile.casefile_id)) == {ANNA, BEN}


async def test_public_readers_do_not_see_who_has_access(house: House, anna: Principal, ben: Principal):
    casefile = await house.casefile(anna, public_role="viewer")

    with pytest.raises(RoleTooLow):
        await roles(house, ben, casefile.casefile_id)


async def test_the_access_list_of_an_archived_casefile_stays_as_it_is(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)
    await house.update(anna, casefile.casefile_id, status="archived")

    for change in (
        house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR),
        house.revoke(anna, casefile.casefile_id, BEN),
        house.transfer(anna, casefile.casefile_id, BEN),
    ):
        with pytest.raises(CasefileArchived):
            await change


async def test_a_grant_that_races_with_archiving_does_not_happen(
    house: House, anna: Principal, ben: Principal, casefile: CasefileView
):
    async def rival(_: Commit) -> None:
        await house.update(anna, casefile.casefile_id, status="archived")

    house.commits.meanwhile(rival)

    with pytest.raises(CasefileArchived):
        await house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR)
