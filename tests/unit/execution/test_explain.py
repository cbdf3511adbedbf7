from typing import Any

import pytest

from casekeeper.acl import Role
from casekeeper.casefiles.casefile import CasefileView, DeleteCasefile
from casekeeper.errors import CasefileNotFound, Refused, RoleTooLow
from casekeeper.execution.explain import CheckPermission, Verdict
from casekeeper.identity.account_commands import DeactivateAccount
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.operations.operation import ToolCall
from casekeeper.sessions.manager import At
from tests.unit.support import ANNA, BEN, CARA, NOW, ROOT, House


@pytest.fixture
async def anna(house: House) -> Principal:
    return await house.caller(ANNA)


@pytest.fixture
async def casefile(house: House, anna: Principal) -> CasefileView:
    """Anna's casefile, in which Ben is viewer."""
    made = await house.casefile(anna)
    await house.account(BEN)
    await house.grant(anna, made.casefile_id, BEN, Role.VIEWER)
    return made


async def check(
    house: House,
    caller: Principal,
    casefile_id: str,
    tool: str | None = None,
    parameters: dict[str, Any] | None = None,
    user_id: str | None = None,
) -> Verdict:
    call = ToolCall(operation_type="tool", tool_name=tool, parameters=parameters or {}) if tool else None
    command = CheckPermission(casefile_id=casefile_id, user_id=user_id, operation=call)
    return await house.explain.check(caller, command)


def said(verdict: Verdict) -> tuple[bool, str | None, str | None, str | None]:
    return verdict.allowed, verdict.role, verdict.check, verdict.needed_role


TABLE: list[tuple[str | None, dict[str, Any], tuple[bool, str, str | None, str | None]]] = [
    (None, {}, (True, "viewer", None, "viewer")),
    ("echo", {}, (True, "viewer", None, "viewer")),
    ("note_add", {"text": "x"}, (False, "viewer", "what", "editor")),
    ("send", {}, (False, "viewer", "what", "editor")),
    ("shred", {}, (False, "viewer", "what", "admin")),
    ("no_such_tool", {}, (False, "viewer", "what", None)),
    ("echo", {"colour": "red"}, (False, "viewer", "what", "viewer")),
]


@pytest.mark.parametrize(("tool", "parameters", "wanted"), TABLE)
async def test_a_check_says_whether_and_what_would_do(
    house: House,
    casefile: CasefileView,
    tool: str | None,
    parameters: dict[str, Any],
    wanted: tuple[bool, str, str | None, str | None],
):
    ben = await house.caller(BEN)

    assert said(await check(house, ben, casefile.casefile_id, tool, parameters)) == wanted


async def test_a_check_agrees_with_what_then_happens(house: House, casefile: CasefileView):
    for user in (ANNA, BEN):
        caller = await house.caller(user)
        for tool, parameters, _ in TABLE[1:]:
            assert tool is not None
            verdict = await check(house, caller, casefile.casefile_id, tool, parameters)
            try:
                await house.run(caller, At(casefile_id=casefile.casefile_id), tool, **parameters)
                happened = True
            except Refused:
                happened = False
            assert verdict.allowed == happened


async def test_parameters_that_do_not_fit_are_named(house: House, anna: Principal, casefile: CasefileView):
    verdict = await check(house, anna, casefile.casefile_id, "note_add", {})

    assert (verdict.check, "parameters.text" in verdict.reason) == ("what", True)


@pytest.mark.parametrize(
    ("tool", "allowed"), [("note_add", False), ("send", False), ("echo", True), (None, True)]
)
async def test_an_archived_casefile_admits_only_reading(
    house: House, anna: Principal, casefile: CasefileView, tool: str | None, allowed: bool
):
    await house.update(anna, casefile.casefile_id, status="archived")

    verdict = await check(
        house, anna, casefile.casefile_id, tool, {"text": "x"} if tool == "note_add" else {}
    )

    assert (verdict.allowed, verdict.check) == (allowed, None if allowed else "admit")


async def test_a_public_reader_reads_and_runs_nothing(house: House, anna: Principal):
    casefile = await house.casefile(anna, public_role="viewer")
    cara = await house.caller(CARA)

    reading = await check(house, cara, casefile.casefile_id)
    running = await check(house, cara, casefile.casefile_id, "echo")

    assert said(reading) == (True, "public", None, "viewer")
    assert said(running) == (False, "public", "what", "viewer")


async def test_a_stranger_is_told_nothing(house: House, casefile: CasefileView):
    with pytest.raises(CasefileNotFound):
        await check(house, await house.caller(CARA), casefile.casefile_id)


async def test_an_admin_asks_about_others(house: House, anna: Principal, casefile: CasefileView):
    verdict = await check(house, anna, casefile.casefile_id, "note_add", {"text": "x"}, BEN)

    assert (verdict.user_id, said(verdict)) == (BEN, (False, "viewer", "what", "editor"))


@pytest.mark.parametrize("who", ["a stranger", "nobody", "deactivated"])
async def test_of_who_has_no_access_the_check_says_so(
    house: House, anna: Principal, casefile: CasefileView, who: str
):
    root = await house.caller(ROOT)
    await house.account(CARA)
    await house.accounts.deactivate(root, DeactivateAccount(user_id=BEN), house.ask(root))
    user_id = {"a stranger": CARA, "nobody": "nobody@example.com", "deactivated": BEN}[who]

    verdict = await check(house, anna, casefile.casefile_id, user_id=user_id)

    assert said(verdict) == (False, None, "where", "viewer")


async def test_who_is_no_admin_asks_about_themselves_only(house: House, casefile: CasefileView):
    with pytest.raises(RoleTooLow):
        await check(house, await house.caller(BEN), casefile.casefile_id, user_id=ANNA)


async def test_asking_about_oneself_by_name_is_no_question_about_others(house: House, casefile: CasefileView):
    verdict = await check(house, await house.caller(BEN), casefile.casefile_id, user_id=BEN)

    assert verdict.allowed


async def test_a_check_runs_and_records_nothing(house: House, anna: Principal, casefile: CasefileView):
    before = await house.kinds(casefile.record_session_id)

    await check(house, await house.caller(BEN), casefile.casefile_id, "shred")

    since = house.clock.now.replace(year=2000)
    assert await house.kinds(casefile.record_session_id) == before
    assert await house.storage.sessions.auto_session(BEN, casefile.casefile_id, since) is None


async def test_a_casefile_that_vanishes_while_it_is_asked_about_is_missing(
    house: House, anna: Principal, casefile: CasefileView
):
    await house.freshness.stands(ANNA, "", 0)
    caller = await house.caller(ANNA, casefile.casefile_id)
    # The tombstone alone, without its number in the feed: what may be seen between two reads.
    await house.storage.commits.commit(Commit(records=(DeleteCasefile(casefile.casefile_id, NOW),)))

    with pytest.raises(CasefileNotFound):
        await check(house, caller, casefile.casefile_id)
