"""Waiting operations and the processes that come and go, and operations inside them."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from dirty_equals import IsPartialDict

from casekeeper.casefiles.casefile import CasefileView
from casekeeper.documents.document import NewDocument
from casekeeper.errors import ShuttingDown
from casekeeper.execution.recovery import CRASHES_MAX, Recovery
from casekeeper.execution.status import CancelOperation
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.journal.operations import (
    AT_ONCE,
    AskToStop,
    CloseOperation,
    OperationEnded,
    OperationIsOpen,
    operation_of,
)
from casekeeper.operations.context import NestedFailed, Parked
from casekeeper.operations.operation import ToolCall
from casekeeper.sessions.manager import At
from tests.unit.execution.waiting.stage import Stage
from tests.unit.execution.waiting.steps import ended_kind, parked, until, waiting_inside, wake
from tests.unit.support import ANNA, House, open_house

# Processes that are lost


def recovery(house: House) -> Recovery:
    return Recovery(house.storage.events, house.detached, owner="the next process")


async def test_what_parks_goes_on_in_another_process_when_its_own_is_lost(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    await until(lambda: stage.runs["works"] == 1)

    assert await recovery(house).run() == 1
    successor = await house.resume(started.fact.event_id)
    assert successor is not None
    stage.go.set()
    ended = await successor.running.ended

    # The first run was only taken for lost: it is stopped, and what it says does not count.
    zombie = await started.running.ended
    assert ended.outputs == b"2"
    assert zombie.status == "running"
    assert await house.kinds(started.fact.session_id) == ["opened", "started", "succeeded"]


async def test_what_waits_is_no_orphan(house: House, anna: Principal, casefile: CasefileView):
    outcome = await parked(house, anna, casefile, "pauses")

    assert await recovery(house).run() == 0
    assert await house.row(outcome.event_id) is not None


async def test_what_ends_process_after_process_is_closed(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    for _ in range(CRASHES_MAX):
        await recovery(house).run()
        assert await house.resume(started.fact.event_id) is not None

    await recovery(house).run()

    assert (await house.kinds(started.fact.session_id))[-1] == "interrupted"


async def test_a_zombie_starts_writes_and_ends_nothing(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    await until(lambda: stage.runs["works"] == 1)
    zombie = house.context_of(started)
    await recovery(house).run()
    successor = await house.resume(started.fact.event_id)
    assert successor is not None
    before = await house.kinds(started.fact.session_id)

    with pytest.raises(NestedFailed) as refused:
        await zombie.invoke(ToolCall(operation_type="tool", tool_name="posts"))
    await zombie.note_refusal(name="x", inputs={}, error_type="t", message="m", call_id="c")
    with pytest.raises(OperationEnded):
        await zombie.documents.add(
            [NewDocument(kind="note", title="n", raw=b"n", sha256="00", source="test")]
        )
    assert refused.value.type == "cancelled"
    assert await house.kinds(started.fact.session_id) == before
    assert stage.sent == []
    stage.go.set()
    await successor.running.ended


async def test_a_server_that_stops_lets_what_parks_go_on_elsewhere(directory: Path, stage: Stage):
    async with open_house(directory, tools=stage.tools()) as house:
        anna = await house.caller(ANNA)
        casefile = await house.casefile(anna)
        started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
        plain = await house.start(anna, At(session_id=started.fact.session_id), "sleepy")
        await until(lambda: stage.runs["works"] == 1)
        await house.runner.drain(timedelta())
        assert (await started.running.ended).status == "pending"
        assert (await plain.running.ended).status == "failed"
    async with open_house(directory, tools=stage.tools()) as house:
        stage.go.set()
        [ended] = await house.wake()
        assert ended.outputs == b"2"
        assert await house.kinds(started.fact.session_id) == [
            "opened",
            "started",
            "started",
            "interrupted",
            "succeeded",
        ]


async def test_a_stop_that_was_asked_for_elsewhere_while_it_parked_ends_it(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):

    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "pauses")
    ref = operation_of(started.fact)
    await house.commits.commit(Commit((), (OperationIsOpen(ref),), (AskToStop(ref, "enough"),)))
    outcome = await started.running.ended

    assert await house.wake() == []
    assert await ended_kind(house, outcome) == ("cancelled", "cancelled")


async def test_what_is_asked_to_stop_while_it_waits_is_due_at_once(
    house: House, anna: Principal, casefile: CasefileView
):

    outcome = await parked(house, anna, casefile, "pauses")
    row = await house.row(outcome.event_id)
    assert row is not None
    await house.commits.commit(Commit((), (OperationIsOpen(row.ref),), (AskToStop(row.ref, "enough"),)))

    assert (await house.row(outcome.event_id)).wake_at == AT_ONCE  # pyright: ignore[reportOptionalMemberAccess]
    assert await house.wake() == []
    assert await ended_kind(house, outcome) == ("cancelled", "cancelled")


# Operations inside operations


async def test_what_waits_inside_lets_the_one_around_it_wait_too_and_wakes_it(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    outcome = await house.run(anna, place, "follows", steps=["posts", "pauses", "posts"])
    [inner] = [
        one.row for one in await house.storage.events.open_of(casefile.casefile_id, None) if one.row.parent
    ]

    await wake(house, inner.event_id)
    ends = await house.wake()

    assert [(one.kind, one.id) for one in outcome.waiting_for] == [("signal", "go")]
    assert [end.status for end in ends] == ["completed", "completed"]
    assert len(stage.sent) == 2
    assert stage.runs["follows"] == 2
    kinds = [(f["operation_name"], f["kind"]) for f in (await house.facts(outcome.session_id))[1:]]
    assert kinds == [
        ("follows", "started"),
        ("posts", "started"),
        ("posts", "succeeded"),
        ("pauses", "started"),
        ("pauses", "succeeded"),
        ("posts", "started"),
        ("posts", "succeeded"),
        ("follows", "succeeded"),
    ]


async def test_a_call_with_a_key_answers_what_became_of_the_first(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    outcome = await house.run(anna, place, "follows", steps=["breaks", "nothing_like_it", "pauses"])
    [inner] = [
        one.row for one in await house.storage.events.open_of(casefile.casefile_id, None) if one.row.parent
    ]
    house.clock.advance(days=400)
    await wake(house, outcome.event_id)
    again = await house.wake()
    await wake(house, inner.event_id)
    ends = await house.wake()

    assert [end.status for end in again] == ["pending"]
    assert ends[-1].outputs == b'["operation_raised","arguments_invalid",{"attempt":2,"snapshot":8}]'
    assert len(stage.sent) == 1
    denied = [f for f in await house.facts(outcome.session_id) if f["kind"] == "denied"]
    assert len(denied) == 1


async def test_a_key_that_belongs_to_another_call_is_refused(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    call = house.context_of(started)
    first = await call.invoke(ToolCall(operation_type="tool", tool_name="posts"), key="a")
    again = await call.invoke(ToolCall(operation_type="tool", tool_name="posts"), key="a", call_id="other")

    errors: list[str] = []
    for key in ("a", "", "x" * 201):
        with pytest.raises(NestedFailed) as refused:
            await call.invoke(ToolCall(operation_type="tool", tool_name="echo"), key=key)
        errors.append(refused.value.type)

    assert first == again
    assert errors == ["key_reused", "key_unfit", "key_unfit"]
    stage.go.set()
    await started.running.ended


async def test_twenty_calls_with_one_key_at_once_run_once(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    call = house.context_of(started)

    posts = ToolCall(operation_type="tool", tool_name="posts")
    answers = await asyncio.gather(*(call.invoke(posts, key="a") for _ in range(20)))

    assert len(set(answers)) == len(stage.sent) == 1
    stage.go.set()
    await started.running.ended


async def test_what_cannot_wait_itself_waits_for_the_end_of_what_does(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "impatient", key="k")
    inner = await waiting_inside(house, casefile)
    await wake(house, inner)
    await house.wake()

    outcome = await asyncio.wait_for(started.running.ended, 5)

    assert outcome.outputs == b'{"attempt":2,"snapshot":8}'


async def test_a_deadline_ends_what_waits_inside(house: House, anna: Principal, casefile: CasefileView):
    place, timeout = At(casefile_id=casefile.casefile_id), timedelta(seconds=0.3)
    started = await house.start(anna, place, "impatient", timeout=timeout)

    outcome = await asyncio.wait_for(started.running.ended, 5)

    assert outcome.failure is not None
    assert outcome.failure.type == "deadline_exceeded"
    kinds = [(f["operation_name"], f["kind"]) for f in (await house.facts(outcome.session_id))[3:]]
    assert kinds == [("pauses", "cancelled"), ("impatient", "timed_out")]


async def test_cancelling_what_waits_ends_what_is_inside_it_first(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    outcome = await house.run(anna, place, "follows", steps=["follows", "pauses"])
    assert outcome.status == "failed" or outcome.status == "pending"
    outcome = await house.run(anna, place, "follows", steps=["pauses"])

    await house.operations.cancel(anna, CancelOperation(event_id=outcome.event_id))

    kinds = [(f["operation_name"], f["kind"]) for f in (await house.facts(outcome.session_id))[-2:]]
    assert kinds == [("pauses", "cancelled"), ("follows", "cancelled")]


async def test_what_a_broken_store_left_inside_what_has_ended_ends_when_it_would_go_on(
    house: House, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    outcome = await house.run(anna, place, "follows", steps=["pauses"])
    inner = await waiting_inside(house, casefile)

    [around] = await house.storage.events.opened([outcome.event_id])
    ref = around.row.ref
    await house.commits.commit(Commit((), (around.row.ownership,), (CloseOperation(ref),)))
    await wake(house, inner)

    assert await house.wake() == []
    assert (await house.facts(outcome.session_id))[-1] == IsPartialDict(event_id=inner, kind="cancelled")


async def test_a_server_that_stops_lets_nothing_new_begin_inside_what_parks(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    call = house.context_of(started)
    assert not call.is_stopping()
    house.runner.is_leaving = house.runner.is_draining = True

    with pytest.raises(Parked):
        await call.invoke(ToolCall(operation_type="tool", tool_name="posts"))
    with pytest.raises(ShuttingDown):
        await house.start(anna, At(casefile_id=casefile.casefile_id), "echo")
    assert call.is_stopping()
    assert stage.sent == []
    stage.go.set()
    await started.running.ended
