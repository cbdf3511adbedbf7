import logging
from datetime import timedelta

import pytest

from casekeeper.acl import ROLE_FOR_ACTION, Action, Role
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.errors import CasefileNotFound, RoleTooLow
from casekeeper.identity.account_commands import DeactivateAccount
from tests.unit.support import ANNA, BEN, CARA, NOW, House


async def casefile_of(house: House, **fields: object) -> CasefileView:
    return await house.casefile(await house.caller(ANNA), **fields)


async def with_ben(house: House, role: Role) -> str:
    casefile = await casefile_of(house)
    await house.account(BEN)
    await house.grant(await house.caller(ANNA), casefile.casefile_id, BEN, role)
    return casefile.casefile_id


@pytest.mark.parametrize("role", [Role.VIEWER, Role.EDITOR, Role.ADMIN])
@pytest.mark.parametrize("action", Action)
async def test_a_member_may_what_the_role_allows(house: House, role: Role, action: Action):
    casefile_id = await with_ben(house, role)
    ben = await house.caller(BEN)

    if role.covers(ROLE_FOR_ACTION[action]):
        assert (await house.gate.enter(ben, casefile_id, action)).role is role
    else:
        with pytest.raises(RoleTooLow) as refused:
            await house.gate.enter(ben, casefile_id, action)
        assert (refused.value.needed, refused.value.has) == (ROLE_FOR_ACTION[action], role)


@pytest.mark.parametrize("action", Action)
async def test_an_owner_may_everything(house: House, action: Action):
    casefile = await casefile_of(house)

    access = await house.gate.enter(await house.caller(ANNA), casefile.casefile_id, action)

    assert access.may(action)


async def test_a_stranger_cannot_tell_a_casefile_from_a_missing_one(house: House):
    casefile = await casefile_of(house)
    ben = await house.caller(BEN)
    told = list[str]()

    for casefile_id in (casefile.casefile_id, "cf_251023_000000"):
        with pytest.raises(CasefileNotFound) as missing:
            await house.gate.enter(ben, casefile_id, Action.READ)
        told.append(missing.value.detail.replace(casefile_id, "ID"))

    assert told[0] == told[1]


async def test_a_strangers_attempt_goes_to_the_security_log_only(
    house: House, caplog: pytest.LogCaptureFixture
):
    casefile = await casefile_of(house)

    with caplog.at_level(logging.INFO, "casekeeper.security"), pytest.raises(CasefileNotFound):
        await house.gate.enter(await house.caller(BEN), casefile.casefile_id, Action.READ)

    assert [record.message for record in caplog.records] == ["no access"]
    assert await house.kinds(casefile.record_session_id) == ["casefile_created"]


async def test_a_members_refusal_is_on_the_record(house: House):
    casefile = await casefile_of(house)
    await house.account(BEN)
    await house.grant(await house.caller(ANNA), casefile.casefile_id, BEN, Role.VIEWER)

    with pytest.raises(RoleTooLow):
        await house.gate.enter(await house.caller(BEN), casefile.casefile_id, Action.DELETE)

    fact = (await house.facts(casefile.record_session_id or ""))[-1]
    assert (fact["kind"], fact["actor_user_id"], fact["error_type"]) == ("denied", BEN, "role_too_low")
    assert fact["inputs"] == {"action": "delete the casefile"}
    assert fact["permission"] == {
        "role": "viewer",
        "source": "store",
        "checked_at": "2025-10-23T12:00:00.000000Z",
    }


async def test_a_public_reader_reads_and_nothing_else(house: House, caplog: pytest.LogCaptureFixture):
    casefile = await casefile_of(house, public_role="viewer")
    ben = await house.caller(BEN)

    access = await house.gate.enter(ben, casefile.casefile_id, Action.READ)
    allowed = [action for action in Action if access.may(action)]

    assert (access.role, access.role_name, access.is_member) == (None, "public", False)
    assert allowed == [Action.READ]


async def test_a_public_readers_refusal_goes_to_the_security_log_only(
    house: House, caplog: pytest.LogCaptureFixture
):
    casefile = await casefile_of(house, public_role="viewer")

    with caplog.at_level(logging.INFO, "casekeeper.security"), pytest.raises(RoleTooLow) as refused:
        await house.gate.enter(await house.caller(BEN), casefile.casefile_id, Action.WORK)

    assert [record.message for record in caplog.records] == ["public reader refused"]
    assert refused.value.has is None
    assert await house.kinds(casefile.record_session_id) == ["casefile_created"]


async def test_a_member_of_a_public_casefile_is_a_member(house: House):
    casefile = await casefile_of(house, public_role="viewer")

    access = await house.gate.enter(await house.caller(ANNA), casefile.casefile_id, Action.WORK)

    assert access.role is Role.OWNER


@pytest.mark.parametrize(("seconds", "let_in"), [(59.999999, True), (60, False)])
async def test_an_expired_grant_is_none(house: House, seconds: float, let_in: bool):
    casefile = await casefile_of(house)
    await house.account(BEN)
    await house.grant(
        await house.caller(ANNA),
        casefile.casefile_id,
        BEN,
        Role.EDITOR,
        until=NOW + timedelta(minutes=1),
    )
    house.clock.advance(seconds=seconds)

    assert (await house.gate.look(await house.caller(BEN), casefile.casefile_id) is not None) == let_in


async def test_an_expired_member_of_a_public_casefile_reads_like_everybody(house: House):
    casefile = await casefile_of(house, public_role="viewer")
    await house.account(BEN)
    until = NOW + timedelta(minutes=1)
    await house.grant(await house.caller(ANNA), casefile.casefile_id, BEN, Role.EDITOR, until=until)
    house.clock.advance(minutes=1)

    access = await house.gate.look(await house.caller(BEN), casefile.casefile_id)

    assert access is not None
    assert access.role is None


async def test_looking_records_nothing(house: House):
    casefile = await casefile_of(house)

    await house.gate.look(await house.caller(BEN), casefile.casefile_id)
    await house.gate.look(await house.caller(ANNA), casefile.casefile_id)

    assert await house.kinds(casefile.record_session_id) == ["casefile_created"]


async def test_looking_again_asks_the_store(house: House):
    casefile = await casefile_of(house)
    await house.freshness.stands(ANNA, "", 0)
    anna = await house.caller(ANNA, casefile.casefile_id)

    cached = await house.gate.look(anna, casefile.casefile_id)
    stored = await house.gate.look(anna, casefile.casefile_id, again=True)

    assert [access and access.source for access in (cached, stored)] == ["token", "store"]


async def test_a_refusal_in_a_casefile_that_is_gone_is_recorded_nowhere(house: House):
    casefile_id = await with_ben(house, Role.VIEWER)
    access = await house.gate.enter(await house.caller(BEN), casefile_id, Action.READ)
    await house.delete(await house.caller(ANNA), casefile_id)

    refusal = await house.gate.refuse(access, Action.EDIT)

    assert refusal.needed == "admin"
    assert await house.gate.look(await house.caller(CARA), casefile_id) is None


async def test_a_deactivated_account_has_no_access(house: House):
    casefile = await casefile_of(house)
    anna, root = await house.caller(ANNA), await house.caller("root@example.com")
    await house.accounts.deactivate(root, DeactivateAccount(user_id=ANNA), house.ask(root))

    assert await house.gate.look(anna, casefile.casefile_id, again=True) is None


async def test_an_operator_has_no_right_in_any_casefile(house: House):
    casefile = await casefile_of(house, public_role="none")
    root = await house.caller("root@example.com")

    assert root.is_operator
    assert await house.gate.look(root, casefile.casefile_id) is None


async def test_a_proof_is_kept_until_it_was_overtaken_and_then_judged_anew(house: House):
    anna = await house.caller(ANNA)
    casefile = await house.casefile(anna)
    await house.account(BEN)
    await house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR)
    ben = await house.caller(BEN)
    access = await house.gate.enter(ben, casefile.casefile_id, Action.ADD)
    await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)

    assert await house.gate.entered(access, Action.ADD, again=False) is access
    with pytest.raises(RoleTooLow):
        await house.gate.entered(access, Action.ADD, again=True)
    assert (await house.gate.entered(access, Action.READ, again=True)).role is Role.VIEWER
