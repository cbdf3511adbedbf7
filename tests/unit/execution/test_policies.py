"""Rules of operators and taint, as the corridor meets them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json

from casekeeper.acl import Effect, Role
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.errors import ApprovalNeeded, PolicyDenies, RoleTooLow
from casekeeper.execution.calls import Call, Started
from casekeeper.execution.explain import CheckPermission, Verdict
from casekeeper.execution.stopping import Rights
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import OperationType
from casekeeper.operations.context import MDSContext, NestedFailed
from casekeeper.operations.operation import (
    AgentCall,
    CatalogEntry,
    Finished,
    Operation,
    OperationScope,
    ToolCall,
)
from casekeeper.operations.policy import Policy, read_rules
from casekeeper.operations.tools import tool
from casekeeper.sessions.manager import At
from tests.unit.support import ANNA, BEN, CARA, House, open_house

RULES = [
    {
        "name": "secret",
        "then": "deny",
        "tags": ["secret"],
        "effects": ["external"],
        "reason": "It stays here.",
    },
    {"name": "four-eyes", "then": "approval", "tools": ["note_*"], "roles": ["editor"], "tags": ["hr"]},
    {"name": "no-dig", "then": "deny", "tools": ["dig"], "roles": ["viewer", "editor"]},
]


@tool(effects={Effect.EXTERNAL})
async def sends_slowly(call: MDSContext) -> None:
    """Send for a minute."""
    await asyncio.sleep(60)


class Obedient:
    """An agent that calls tools in a fixed order, whatever they answer; stands for a model that obeys everything."""

    type: OperationType = "agent"
    name: str = "obedient"
    effects: frozenset[Effect] = frozenset({Effect.READ})
    timeout: timedelta = timedelta(minutes=1)
    limit: int | None = None
    parks: bool = False
    snapshot_version: int = 1

    def parse(self, call: Any) -> Any:
        return call

    async def run(self, context: MDSContext, parameters: Any) -> Finished:
        told: list[Any] = []
        for index, wanted in enumerate(parameters.prompt.split()):
            name, _, value = wanted.partition("=")
            if name == "remembers":
                context.taint()
                continue
            given = {"tool_name": value} if name == "nest" else {"text": value} if name == "note_add" else {}
            call = ToolCall(operation_type="tool", tool_name=name, parameters=given)
            try:
                told.append(await context.invoke(call, call_id=f"call_{index}"))
            except NestedFailed as failed:
                told.append(failed.type)
        return Finished(told)

    def entry(self) -> CatalogEntry:
        raise AssertionError("nobody asks for the catalogue here")


class Agents:
    """Brings the obedient agent."""

    type: OperationType = "agent"
    names: Collection[str] = ()

    async def find(self, name: str, scope: OperationScope) -> Operation | None:
        return Obedient() if name == Obedient.name else None

    async def catalogue(self, scope: OperationScope) -> Sequence[Operation]:
        return [Obedient()]


@asynccontextmanager
async def ruled(directory: Path, rules: Any = RULES, *, careful: bool = True) -> AsyncGenerator[House]:
    policy = Policy(read_rules(rules), tainted_needs_approval=careful)
    async with open_house(directory, policy=policy, agents=[Agents()], tools=[sends_slowly]) as house:
        yield house


@pytest.fixture
async def house(directory: Path) -> AsyncGenerator[House]:
    async with ruled(directory) as opened:
        yield opened


@pytest.fixture
async def anna(house: House) -> Principal:
    return await house.caller(ANNA)


async def ben_in(house: House, anna: Principal, *tags: str, role: Role = Role.EDITOR) -> CasefileView:
    """Anna's casefile with these tags, in which Ben has a role."""
    await house.caller(BEN)
    made = await house.casefile(anna, tags=list(tags))
    await house.grant(anna, made.casefile_id, BEN, role)
    return made


async def agent(
    house: House, caller: Principal, casefile_id: str, prompt: str, *, session_id: str | None = None
) -> Any:
    """What the obedient agent's calls gave, one after the other."""
    operation = AgentCall(operation_type="agent", agent_name="obedient", prompt=prompt)
    _, started = await house.executor.execute(
        Call(caller, At(session_id, casefile_id=casefile_id), operation, house.ask(caller))
    )
    assert isinstance(started, Started)
    outcome = await asyncio.wait_for(started.running.ended, 10)
    return from_json(outcome.outputs or b"null")


# Rules


async def test_a_rule_forbids_by_tag(house: House, anna: Principal):
    secret, plain = await ben_in(house, anna, "Secret"), await ben_in(house, anna, "rent")
    ben = await house.caller(BEN)

    with pytest.raises(PolicyDenies) as refused:
        await house.run(ben, At(casefile_id=secret.casefile_id), "send")
    await house.run(ben, At(casefile_id=plain.casefile_id), "send")

    assert (refused.value.rule, refused.value.needed) == ("secret", None)
    assert "It stays here." in refused.value.detail


async def test_a_members_denial_is_on_the_record(house: House, anna: Principal):
    casefile = await ben_in(house, anna, "hr")
    ben = await house.caller(BEN)
    session_id = await house.session(ben, casefile.casefile_id)

    with pytest.raises(ApprovalNeeded):
        await house.run(ben, At(session_id), "note_add", text="x")

    last = (await house.facts(session_id))[-1]
    assert (last["kind"], last["operation_name"], last["error_type"]) == (
        "denied",
        "note_add",
        "approval_needed",
    )
    assert "four-eyes" in last["error"]["message"]


async def test_a_refusal_before_any_session_is_on_the_casefiles_record(house: House, anna: Principal):
    casefile = await ben_in(house, anna, "secret")

    with pytest.raises(PolicyDenies):
        await house.run(await house.caller(BEN), At(casefile_id=casefile.casefile_id), "send")

    assert (await house.kinds(casefile.record_session_id))[-1] == "denied"


async def test_the_role_for_which_a_rule_does_not_hold_is_named(house: House, anna: Principal):
    casefile = await ben_in(house, anna)

    with pytest.raises(PolicyDenies) as refused:
        await house.run(await house.caller(BEN), At(casefile_id=casefile.casefile_id), "dig")
    await house.run(anna, At(casefile_id=casefile.casefile_id), "dig")

    assert refused.value.needed == "admin"


async def test_what_a_role_does_not_cover_stays_a_question_of_the_role(house: House, anna: Principal):
    casefile = await ben_in(house, anna, role=Role.VIEWER)

    with pytest.raises(RoleTooLow):
        await house.run(await house.caller(BEN), At(casefile_id=casefile.casefile_id), "send")


async def test_a_nested_call_meets_the_same_rules(house: House, anna: Principal):
    casefile = await ben_in(house, anna, "secret")
    ben = await house.caller(BEN)

    outcome = await house.run(ben, At(casefile_id=casefile.casefile_id), "nest", tool_name="send")

    assert from_json(outcome.outputs or b"")["type"] == "policy_denies"
    assert [f["error_type"] for f in await house.facts(outcome.session_id) if f["kind"] == "denied"] == [
        "policy_denies"
    ]


# Tags change


@pytest.mark.parametrize("carried", [True, False])
async def test_a_tag_holds_from_the_next_call_on(house: House, anna: Principal, carried: bool):
    casefile = await ben_in(house, anna)
    ben = await house.caller(BEN, *([casefile.casefile_id] if carried else []))
    at = At(casefile_id=casefile.casefile_id)
    await house.run(ben, at, "send")

    await house.update(anna, casefile.casefile_id, tags=["SECRET"])
    with pytest.raises(PolicyDenies):
        await house.run(ben, at, "send")
    await house.update(anna, casefile.casefile_id, tags=[])

    await house.run(ben, at, "send")


async def test_a_tag_that_comes_between_the_check_and_the_start_is_not_overlooked(
    house: House, anna: Principal
):
    casefile = await ben_in(house, anna)
    ben = await house.caller(BEN, casefile.casefile_id)
    at = At(await house.session(ben, casefile.casefile_id))
    await house.run(ben, at, "send")

    async def tagged(commit: Commit) -> None:
        await house.update(anna, casefile.casefile_id, tags=["secret"])

    house.commits.meanwhile(tagged)
    with pytest.raises(PolicyDenies):
        await house.run(ben, at, "send")

    assert (await house.kinds(at.session_id))[-1] == "denied"


async def test_tags_are_read_once_and_then_remembered(house: House, anna: Principal):
    casefile = await ben_in(house, anna, "rent")
    ben = await house.caller(BEN, casefile.casefile_id)
    at = At(await house.session(ben, casefile.casefile_id))
    await house.run(ben, at, "send")
    before = house.freshness.counters.store

    for _ in range(5):
        _, started = await house.executor.execute(house.call(ben, at, "send"))
        assert isinstance(started, Started)
        assert started.context.access.source == "token"
        await started.running.ended

    assert house.freshness.counters.store == before


async def test_without_rules_about_tags_nobody_reads_them(directory: Path):
    async with ruled(directory, rules=[RULES[2]]) as house:
        anna = await house.caller(ANNA)
        casefile = await ben_in(house, anna)
        ben = await house.caller(BEN, casefile.casefile_id)
        at = At(await house.session(ben, casefile.casefile_id))
        before = house.freshness.counters.store

        await house.run(ben, at, "send")

        assert house.freshness.counters.store == before


async def test_the_same_tags_in_another_order_change_no_permission(house: House, anna: Principal):
    casefile = await ben_in(house, anna, "a", "b")
    before = (await house.storage.accounts.head()).number

    await house.update(anna, casefile.casefile_id, tags=["b", "a"])

    assert (await house.storage.accounts.head()).number == before


async def test_a_tag_stops_what_it_would_not_have_let_in(house: House, anna: Principal):
    casefile = await ben_in(house, anna)
    ben = await house.caller(BEN)
    at = At(casefile_id=casefile.casefile_id)
    asleep = await house.start(ben, at, "sleepy")
    rights = Rights(house.runner, house.storage.casefiles, house.live, house.clock, is_shared=True)

    async def stopped(started: Started) -> str:
        outcome = await asyncio.wait_for(started.running.ended, 10)
        return outcome.failure.type if outcome.failure else "none"

    async with rights.judging.running():
        hushed = await house.start(ben, at, "sends_slowly")
        await house.update(anna, casefile.casefile_id, tags=["secret"])

        assert await stopped(hushed) == "rights_lost"
    assert not asleep.running.ended.done(), "what only reads goes on"


# Taint


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("send", ["sent"]),
        ("note_add=x send", ["doc", "sent"]),
        ("echo send", [None, "approval_needed"]),
        ("echo shred", [None, "approval_needed"]),
        ("fail send", ["operation_raised", "approval_needed"]),
        ("no_such_tool send", ["arguments_invalid", "sent"]),
        ("echo note_add=x echo", [None, "doc", None]),
        ("send send", ["sent", "approval_needed"]),
        ("remembers send", ["approval_needed"]),
        ("remembers echo note_add=x", [None, "doc"]),
    ],
)
async def test_what_an_agent_has_read_may_not_send_anything_out(
    house: House, anna: Principal, prompt: str, told: list[Any]
):
    casefile = await house.casefile(anna)

    got = await agent(house, anna, casefile.casefile_id, prompt)

    assert ["doc" if "document_id" in str(one) or str(one).startswith("doc_") else one for one in got] == told


async def test_a_tool_that_the_agent_calls_is_tainted_like_it(house: House, anna: Principal):
    casefile = await house.casefile(anna)

    _, inside = await agent(house, anna, casefile.casefile_id, "echo nest=send")

    assert inside["type"] == "approval_needed"


async def test_the_record_tells_which_calls_were_tainted(house: House, anna: Principal):
    casefile = await house.casefile(anna)

    session_id = await house.session(anna, casefile.casefile_id)
    await agent(house, anna, casefile.casefile_id, "echo send nest=echo", session_id=session_id)

    facts = [f for f in await house.facts(session_id) if "operation_name" in f]
    assert [(f["operation_name"], f["kind"], f.get("tainted")) for f in facts] == [
        ("obedient", "started", None),
        ("echo", "started", None),
        ("echo", "succeeded", None),
        ("send", "denied", 1),
        ("nest", "started", 1),
        ("echo", "started", 1),
        ("echo", "succeeded", 1),
        ("nest", "succeeded", 1),
        ("obedient", "succeeded", 1),
    ]


async def test_a_persons_own_calls_are_not_tainted(house: House, anna: Principal):
    casefile = await house.casefile(anna)
    at = At(casefile_id=casefile.casefile_id)
    await house.run(anna, at, "echo")
    await agent(house, anna, casefile.casefile_id, "echo")

    outcome = await house.run(anna, at, "send")

    assert outcome.status == "completed"


async def test_a_deployment_may_let_agents_send(directory: Path):
    async with ruled(directory, careful=False) as house:
        anna = await house.caller(ANNA)
        casefile = await house.casefile(anna)

        assert await agent(house, anna, casefile.casefile_id, "echo send") == [None, "sent"]


# Explained


@pytest.fixture
def check(house: House) -> Callable[..., Awaitable[Verdict]]:
    async def ask(caller: Principal, casefile_id: str, tool: str, **more: Any) -> Verdict:
        parameters = {"text": "x"} if tool == "note_add" else {}
        call = ToolCall(operation_type="tool", tool_name=tool, parameters=parameters)
        return await house.explain.check(
            caller, CheckPermission(casefile_id=casefile_id, operation=call, **more)
        )

    return ask


Check = Callable[..., Awaitable[Verdict]]


def said(verdict: Verdict) -> tuple[bool, str | None, str | None, bool, str | None]:
    return verdict.allowed, verdict.check, verdict.needed_role, verdict.needs_approval, verdict.rule


async def test_a_check_names_the_rule_and_what_would_do(house: House, anna: Principal, check: Check):
    casefile = await ben_in(house, anna, "secret", "hr")
    ben = await house.caller(BEN)

    assert said(await check(ben, casefile.casefile_id, "send")) == (False, "what", None, False, "secret")
    assert said(await check(ben, casefile.casefile_id, "dig")) == (False, "what", "admin", False, "no-dig")
    assert said(await check(ben, casefile.casefile_id, "note_add")) == (
        False,
        "what",
        "editor",
        True,
        "four-eyes",
    )
    assert said(await check(ben, casefile.casefile_id, "shred")) == (False, "what", "admin", False, None)


async def test_a_check_asks_as_an_agent_would(house: House, anna: Principal, check: Check):
    casefile = await ben_in(house, anna)
    ben = await house.caller(BEN)

    assert said(await check(ben, casefile.casefile_id, "send")) == (True, None, "editor", False, None)
    assert said(await check(ben, casefile.casefile_id, "send", tainted=True)) == (
        False,
        "what",
        "editor",
        True,
        None,
    )


async def test_an_admin_asks_about_another_by_the_casefiles_tags(house: House, anna: Principal, check: Check):
    casefile = await ben_in(house, anna, "secret")

    assert said(await check(anna, casefile.casefile_id, "send", user_id=BEN))[4] == "secret"


async def test_a_public_reader_is_told_of_no_rule(house: House, anna: Principal, check: Check):
    casefile = await house.casefile(anna, tags=["secret"], public_role="viewer")

    verdict = await check(await house.caller(CARA), casefile.casefile_id, "send")

    assert said(verdict) == (False, "what", None, False, None)
    assert "secret" not in verdict.reason
