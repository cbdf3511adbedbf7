import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from casekeeper.acl import Effect, Role
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.errors import (
    ArgumentsInvalid,
    CasefileArchived,
    CasefileNotFound,
    RateLimited,
    RequestIdReused,
    RoleTooLow,
    SessionClosed,
    ShuttingDown,
    StoreUnavailable,
)
from casekeeper.execution.calls import Started
from casekeeper.execution.outcomes import Outcome
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Fact
from casekeeper.operations.context import MDSContext
from casekeeper.operations.tools import tool
from casekeeper.sessions.manager import At
from casekeeper.sessions.session import CloseSession
from tests.unit.support import ANNA, BEN, House, open_house


@pytest.fixture
async def anna(house: House) -> Principal:
    return await house.caller(ANNA)


@pytest.fixture
async def casefile(house: House, anna: Principal) -> CasefileView:
    """Anna's casefile, in which Ben is editor."""
    made = await house.casefile(anna)
    await house.account(BEN)
    await house.grant(anna, made.casefile_id, BEN, Role.EDITOR)
    return made


def happens(work: Callable[[], Awaitable[Any]]) -> Callable[[Commit], Awaitable[None]]:
    async def happen(_: Commit) -> None:
        await work()

    return happen


async def away(_: Commit) -> None:
    raise StoreUnavailable("The store is away.")


# The corridor


async def test_a_call_without_a_session_opens_one_and_runs_in_it(
    house: House, anna: Principal, casefile: CasefileView
):
    context, started = await house.executor.execute(
        house.call(anna, At(casefile_id=casefile.casefile_id), "echo", value=1)
    )
    assert isinstance(started, Started)
    outcome: Outcome = await started.running.ended

    assert context.is_new
    assert (outcome.status, outcome.outputs, outcome.failure) == ("completed", b"1", None)
    assert await house.kinds(outcome.session_id) == ["opened", "started", "succeeded"]


async def test_the_end_tells_the_whole_story(house: House, anna: Principal, casefile: CasefileView):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "echo", value="x")
    await started.running.ended

    opened, began, ended = await house.facts(started.fact.session_id)

    assert (opened["seq"], began["seq"], ended["seq"]) == (1, 2, 3)
    assert {
        name: ended[name] for name in ("event_id", "started_seq", "inputs", "outputs", "actor_user_id")
    } == {
        "event_id": began["event_id"],
        "started_seq": 2,
        "inputs": {"value": "x"},
        "outputs": "x",
        "actor_user_id": ANNA,
    }


async def test_a_follower_is_told_before_the_first_step(
    house: House, anna: Principal, casefile: CasefileView
):
    happened = list[str]()

    @tool(effects={Effect.READ})
    async def step(call: MDSContext) -> None:
        """Take a step."""
        happened.append("stepped")

    def told(fact: Fact) -> None:
        happened.append(fact.kind)

    house.tools.add(step)
    call = house.call(anna, At(casefile_id=casefile.casefile_id), "step")
    _, started = await house.executor.execute(replace(call, on_started=told))
    assert isinstance(started, Started)
    await started.running.ended

    assert happened == ["started", "stepped"]


async def test_the_next_call_uses_the_same_session(house: House, anna: Principal, casefile: CasefileView):
    place = At(casefile_id=casefile.casefile_id)

    first, second = await house.run(anna, place, "echo"), await house.run(anna, place, "echo")

    assert first.session_id == second.session_id


async def test_a_session_that_was_idle_too_long_is_not_used_again(
    house: House, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    first = await house.run(anna, place, "echo")
    house.clock.advance(hours=12, seconds=1)

    assert (await house.run(anna, place, "echo")).session_id != first.session_id


async def test_a_session_that_was_made_by_hand_is_never_picked_silently(
    house: House, anna: Principal, casefile: CasefileView
):
    made = await house.session(anna, casefile.casefile_id)

    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "echo")

    assert outcome.session_id != made


async def test_a_closed_session_takes_no_operation(house: House, anna: Principal, casefile: CasefileView):
    session_id = await house.session(anna, casefile.casefile_id)
    await house.sessions.close_session(anna, CloseSession(session_id=session_id), house.ask(anna))

    with pytest.raises(SessionClosed):
        await house.start(anna, At(session_id), "echo")


@pytest.mark.parametrize("tool", ["note_add", "send"])
async def test_an_archived_casefile_takes_no_change(
    house: House, anna: Principal, casefile: CasefileView, tool: str
):
    await house.update(anna, casefile.casefile_id, status="archived")

    with pytest.raises(CasefileArchived):
        await house.start(anna, At(casefile_id=casefile.casefile_id), tool, text="x")


async def test_an_archived_casefile_can_be_read(house: House, anna: Principal, casefile: CasefileView):
    await house.update(anna, casefile.casefile_id, status="archived")

    assert (await house.run(anna, At(casefile_id=casefile.casefile_id), "echo")).status == "completed"


async def test_a_server_that_stops_starts_nothing(house: House, anna: Principal, casefile: CasefileView):
    await house.runner.drain(timedelta(seconds=1))

    with pytest.raises(ShuttingDown):
        await house.start(anna, At(casefile_id=casefile.casefile_id), "echo")


async def test_what_runs_when_a_server_stops_may_still_call_others(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(
        anna, At(casefile_id=casefile.casefile_id), "sleepy", seconds=0.1, then="echo"
    )
    await house.runner.drain(timedelta(seconds=30))

    assert (await started.running.ended).status == "completed"
    kinds = await house.kinds(started.fact.session_id)
    assert kinds == ["opened", "started", "started", "succeeded", "succeeded"]


async def test_a_tool_that_raises_is_a_result(house: House, anna: Principal, casefile: CasefileView):
    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "fail", message="it broke")

    assert outcome.status == "failed"
    assert outcome.failure is not None
    assert (outcome.failure.type, "it broke" in outcome.failure.message) == ("operation_raised", True)
    assert await house.kinds(outcome.session_id) == ["opened", "started", "failed"]


async def test_the_caller_may_shorten_the_time(house: House, anna: Principal, casefile: CasefileView):
    outcome = await house.run(
        anna, At(casefile_id=casefile.casefile_id), "sleepy", timeout=timedelta(milliseconds=20)
    )

    assert outcome.failure is not None
    assert outcome.failure.type == "deadline_exceeded"


async def test_nobody_gives_a_tool_more_time_than_it_has(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(
        anna, At(casefile_id=casefile.casefile_id), "sleepy", timeout=timedelta(days=1)
    )

    assert started.deadline == house.clock() + timedelta(seconds=60)


# Denials


@pytest.mark.parametrize(
    ("tool", "role"), [("send", Role.VIEWER), ("note_add", Role.VIEWER), ("shred", Role.EDITOR)]
)
async def test_a_role_that_is_too_low_is_denied_in_the_callers_session(
    house: House, anna: Principal, casefile: CasefileView, tool: str, role: Role
):
    await house.grant(anna, casefile.casefile_id, BEN, role)
    ben = await house.caller(BEN)
    session_id = await house.session(ben, casefile.casefile_id)

    with pytest.raises(RoleTooLow):
        await house.start(ben, At(session_id), tool, text="secret")

    fact = (await house.facts(session_id))[-1]
    assert {name: fact.get(name) for name in ("kind", "operation_name", "error_type", "inputs")} == {
        "kind": "denied",
        "operation_name": tool,
        "error_type": "role_too_low",
        "inputs": {"text": "secret"},
    }


async def test_a_denial_without_a_session_goes_to_the_casefiles_record(
    house: House, anna: Principal, casefile: CasefileView
):
    await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)
    ben = await house.caller(BEN)

    with pytest.raises(RoleTooLow):
        await house.start(ben, At(casefile_id=casefile.casefile_id), "send", text="secret")

    fact = (await house.facts(casefile.record_session_id or ""))[-1]
    assert (fact["kind"], fact["operation_type"], fact["operation_name"], fact["inputs"]) == (
        "denied",
        "tool",
        "send",
        {"text": "secret"},
    )


@pytest.mark.parametrize(
    ("tool", "parameters", "field"),
    [
        ("no_such_tool", {}, "payload.operation.tool_name"),
        ("note_add", {}, "payload.operation.parameters.text"),
        ("note_add", {"text": "x", "colour": "red"}, "payload.operation.parameters.colour"),
    ],
)
async def test_a_call_that_does_not_fit_names_the_field_and_leaves_no_fact(
    house: House,
    anna: Principal,
    casefile: CasefileView,
    tool: str,
    parameters: dict[str, Any],
    field: str,
):
    session_id = await house.session(anna, casefile.casefile_id)

    with pytest.raises(ArgumentsInvalid) as invalid:
        await house.start(anna, At(session_id), tool, **parameters)

    assert [error.field for error in invalid.value.errors] == [field]
    assert await house.kinds(session_id) == ["opened"]


async def test_a_stranger_leaves_no_trace_in_a_chain(house: House, casefile: CasefileView):
    stranger = await house.caller("cara@example.com")

    with pytest.raises(CasefileNotFound):
        await house.start(stranger, At(casefile_id=casefile.casefile_id), "echo")

    assert "denied" not in await house.kinds(casefile.record_session_id)


# Repeats


async def test_a_repeat_gives_the_first_ones_event(house: House, anna: Principal, casefile: CasefileView):
    place = At(casefile_id=casefile.casefile_id)
    first = await house.run(anna, place, "echo", request_id="req")

    _, repeat = await house.executor.execute(house.call(anna, place, "echo", request_id="req"))

    assert repeat == first.event_id


async def test_twenty_equal_calls_at_once_run_once(house: House, anna: Principal, casefile: CasefileView):
    # A session that is there already, so that nothing but the claim tells the calls apart.
    place = At(await house.session(anna, casefile.casefile_id))

    answers = await asyncio.gather(
        *(
            house.executor.execute(house.call(anna, place, "note_add", request_id="req", text="x"))
            for _ in range(20)
        )
    )

    [started] = [answer for _, answer in answers if isinstance(answer, Started)]
    await started.running.ended
    assert {answer for _, answer in answers if isinstance(answer, str)} == {started.fact.event_id}
    assert (await house.kinds(started.fact.session_id)).count("started") == 1


async def test_a_claim_that_is_lost_at_the_last_moment_is_a_repeat(
    house: House, anna: Principal, casefile: CasefileView
):
    place = At(await house.session(anna, casefile.casefile_id))
    house.commits.meanwhile(happens(lambda: house.run(anna, place, "echo", request_id="req")))

    _, answer = await house.executor.execute(house.call(anna, place, "echo", request_id="req"))

    assert isinstance(answer, str)


async def test_an_id_that_was_used_for_another_call_is_refused(
    house: House, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    await house.run(anna, place, "echo", request_id="req")
    call = house.call(anna, place, "echo")
    other = house.ask(anna, "req", body=b'"other"', route="execute")

    with pytest.raises(RequestIdReused):
        await house.executor.execute(replace(call, ask=other))


async def test_a_repeat_after_losing_access_finds_nothing(
    house: House, anna: Principal, casefile: CasefileView
):
    ben, place = await house.caller(BEN), At(casefile_id=casefile.casefile_id)
    await house.run(ben, place, "echo", request_id="req")
    await house.revoke(anna, casefile.casefile_id, BEN)

    with pytest.raises(CasefileNotFound):
        await house.start(ben, place, "echo", request_id="req")


# Limits


async def test_a_spent_limit_starts_nothing(directory: Path):
    async with open_house(directory, limits=(2, 0)) as house:
        anna = await house.caller(ANNA)
        casefile = await house.casefile(anna)
        place = At(casefile_id=casefile.casefile_id)
        outcomes = [await house.run(anna, place, "echo") for _ in range(2)]

        with pytest.raises(RateLimited):
            await house.start(anna, place, "echo")

        assert (await house.kinds(outcomes[0].session_id)).count("started") == 2


async def test_a_repeat_costs_nothing(directory: Path):
    async with open_house(directory, limits=(1, 0)) as house:
        anna = await house.caller(ANNA)
        place = At(casefile_id=(await house.casefile(anna)).casefile_id)
        first = await house.run(anna, place, "echo", request_id="req")

        _, repeat = await house.executor.execute(house.call(anna, place, "echo", request_id="req"))

    assert repeat == first.event_id


async def test_a_refusal_costs_nothing(directory: Path):
    async with open_house(directory, limits=(1, 0)) as house:
        anna = await house.caller(ANNA)
        place = At(casefile_id=(await house.casefile(anna)).casefile_id)
        with pytest.raises(ArgumentsInvalid):
            await house.start(anna, place, "note_add")

        assert (await house.run(anna, place, "echo")).status == "completed"


async def test_a_lost_race_costs_once(directory: Path):
    async with open_house(directory, limits=(1, 0)) as house:
        anna, ben = await house.caller(ANNA), await house.caller(BEN)
        casefile = await house.casefile(anna)
        await house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR)
        rival = happens(lambda: house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER))
        house.commits.meanwhile(rival)

        assert (await house.run(ben, At(casefile_id=casefile.casefile_id), "echo")).status == "completed"
