from collections.abc import Sequence
from typing import Any

import pytest

from casekeeper.acl import Role
from casekeeper.casefiles.access import Access
from casekeeper.errors import ApprovalNeeded, ArgumentsInvalid, PolicyDenies, RoleTooLow
from casekeeper.identity.principal import Principal
from casekeeper.journal.operations import OpenOperation
from casekeeper.operations.admitting import Admitting
from casekeeper.operations.operation import ToolCall
from casekeeper.operations.policy import Policy, read_rules
from casekeeper.operations.registry import Registry, ToolRegistry
from casekeeper.operations.tools import Tool
from tests.unit.support import NOW
from tests.unit.tools import echo, send, shred

CASEFILE = "cf_251023_5acf44"


def admitting(*rules: dict[str, Any]) -> Admitting:
    return Admitting(Registry([ToolRegistry((echo, send, shred))]), Policy(read_rules(list(rules))))


def access(role: Role | None, *tags: str) -> Access:
    caller = Principal("sam@example.com", "usr_1", is_operator=False, epoch="", asof=0, expires_at=NOW)
    return Access(caller, CASEFILE, role, "store", 0, NOW, tags=frozenset(tags))


def call(tool: Tool, **parameters: Any) -> ToolCall:
    return ToolCall(operation_type="tool", tool_name=tool.name, parameters=parameters)


def row(tool: str, **fields: Any) -> OpenOperation:
    return OpenOperation(
        event_id="evt_1",
        casefile_id=CASEFILE,
        session_id="ts_1",
        parent_event_id=None,
        root_event_id="evt_1",
        user_id="sam@example.com",
        actor="usr_1",
        operation_type="tool",
        operation_name=tool,
        request_id=None,
        owner="somebody",
        started_at=NOW,
        **fields,
    )


@pytest.mark.parametrize(
    ("operation", "lowest"), [(echo, Role.VIEWER), (send, Role.EDITOR), (shred, Role.ADMIN)]
)
@pytest.mark.parametrize("role", [None, *Role])
async def test_a_role_runs_what_its_effects_allow(operation: Tool, lowest: Role, role: Role | None):
    if role is not None and role.covers(lowest):
        assert (await admitting().admit(call(operation), access(role))).operation is operation
    else:
        with pytest.raises(RoleTooLow) as refused:
            await admitting().admit(call(operation), access(role))
        assert (refused.value.needed, refused.value.has) == (lowest, role)


async def test_parameters_that_do_not_fit_are_refused_after_the_role():
    with pytest.raises(ArgumentsInvalid):
        await admitting().admit(call(send, nothing=1), access(Role.EDITOR))
    with pytest.raises(RoleTooLow):
        await admitting().admit(call(send, nothing=1), access(Role.VIEWER))


DENIED = {"name": "quiet", "then": "deny", "tools": ["send"], "tags": ["sealed"]}
ASKED = {"name": "asked", "then": "approval", "tools": ["send"]}


async def test_a_rule_refuses_whoever_has_the_role():
    with pytest.raises(PolicyDenies):
        await admitting(DENIED).admit(call(send), access(Role.OWNER, "sealed"))


async def test_what_was_approved_stays_approved_wherever_it_is_judged_again():
    judge = admitting(ASKED)

    admitted = await judge.admit(call(send), access(Role.EDITOR), approved=True)

    assert admitted.still(Role.EDITOR, ())
    assert not admitted.still(Role.VIEWER, ())
    assert admitted.again(access(Role.ADMIN)).access.role is Role.ADMIN
    assert await judge.covers(row("send", is_approved=True), Role.EDITOR, ())
    assert not await judge.covers(row("send"), Role.EDITOR, ())
    with pytest.raises(ApprovalNeeded):
        await judge.admit(call(send), access(Role.EDITOR))


async def test_what_is_tainted_stays_tainted_wherever_it_is_judged_again():
    judge = admitting()

    clean = await judge.admit(call(send), access(Role.EDITOR))
    approved = await judge.admit(call(send), access(Role.EDITOR), tainted=True, approved=True)

    assert clean.still(Role.EDITOR, ())
    assert approved.still(Role.EDITOR, ())
    assert await judge.covers(row("send"), Role.EDITOR, ())
    assert not await judge.covers(row("send", is_tainted=True), Role.EDITOR, ())
    assert await judge.covers(row("send", is_tainted=True, is_approved=True), Role.EDITOR, ())


@pytest.mark.parametrize("tags", [(), ("sealed",)])
async def test_a_rule_by_tags_ends_what_was_let_in_before_the_tag_came(tags: Sequence[str]):
    judge = admitting(DENIED)
    admitted = await judge.admit(call(send), access(Role.EDITOR))

    assert admitted.still(Role.EDITOR, tags) is not bool(tags)
    if tags:
        with pytest.raises(PolicyDenies):
            admitted.again(access(Role.EDITOR, *tags))


async def test_only_what_changes_something_needs_an_active_casefile():
    judge = admitting()

    assert (await judge.admit(call(echo), access(Role.ADMIN))).changes_nothing
    assert not (await judge.admit(call(shred), access(Role.ADMIN))).changes_nothing


async def test_what_needs_an_approval_could_be_let_in():
    judge = admitting(ASKED)

    assert judge.could(send, access(Role.EDITOR), tainted=False)
    assert not judge.could(send, access(Role.VIEWER), tainted=False)


async def test_an_operation_that_is_not_known_here_is_judged_elsewhere():
    assert await admitting().covers(row("from_a_newer_version"), Role.VIEWER, ())
