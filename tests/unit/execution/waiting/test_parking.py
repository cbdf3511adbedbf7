"""Parking, going on, and what callers are told."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from casekeeper.acl import Effect
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.errors import ArgumentsInvalid, FieldError, ModelUnavailable, StoreUnavailable
from casekeeper.execution.calls import Call, Started
from casekeeper.execution.outcomes import Outcome
from casekeeper.execution.service import Execute
from casekeeper.execution.status import GetOperation
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import OperationType
from casekeeper.journal.operations import (
    AT_ONCE,
    NOBODY,
    ParkOperation,
)
from casekeeper.operations.context import MDSContext, Parked
from casekeeper.operations.operation import (
    AgentCall,
    CatalogEntry,
    Finished,
    Operation,
    OperationScope,
    ToolCall,
)
from casekeeper.operations.tools import Tool
from casekeeper.sessions.manager import At
from casekeeper.sessions.session import CloseSession
from tests.unit.execution.waiting.stage import Stage
from tests.unit.execution.waiting.steps import ended_kind, parked, wake
from tests.unit.support import ANNA, NOW, House, open_house

# Parking and going on


async def test_what_parks_leaves_a_row_that_nobody_owns_and_no_fact(
    house: House, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses")

    row = await house.row(outcome.event_id)
    assert row is not None
    assert (row.state, row.owner, row.attempt, row.wake_at) == ("waiting", NOBODY, 1, None)
    assert house.runner.all() == []
    assert await house.kinds(outcome.session_id) == ["opened", "started"]


async def test_what_was_woken_goes_on_from_its_snapshot(
    house: House, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses")
    assert await house.wake() == []

    await wake(house, outcome.event_id)
    [ended] = await house.wake()

    assert (ended.status, ended.outputs) == ("completed", b'{"attempt":2,"snapshot":8}')
    assert await house.kinds(outcome.session_id) == ["opened", "started", "succeeded"]
    assert await house.row(outcome.event_id) is None


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_snapshot_of_any_size_is_kept_for_each_time_and_forgotten_at_the_end(
    house: House, anna: Principal, casefile: CasefileView, size: int
):
    outcome = await parked(house, anna, casefile, "pauses", times=2, size=size)
    await wake(house, outcome.event_id)
    [again] = await house.wake()
    await wake(house, outcome.event_id)
    [ended] = await house.wake()

    assert again.status == "pending"
    assert ended.outputs == b'{"attempt":3,"snapshot":%d}' % (size + 8)
    left = [path for path in (house.storage.directory / "blobs").rglob("*") if "snapshot" in path.name]
    assert left == []


async def test_what_waits_until_a_time_is_due_then(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    stage.until = NOW + timedelta(hours=2)
    outcome = await parked(house, anna, casefile, "pauses")

    house.clock.advance(hours=1)
    early = await house.wake()
    house.clock.advance(hours=1)
    [ended] = await house.wake()

    assert early == []
    assert (ended.event_id, ended.status) == (outcome.event_id, "completed")


async def test_waiting_counts_neither_against_the_deadline_nor_as_work(
    house: House, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses", timeout=timedelta(seconds=5))
    house.clock.advance(days=3)
    await wake(house, outcome.event_id)
    [ended] = await house.wake()
    closed, _ = await house.sessions.close_session(
        anna, CloseSession(session_id=outcome.session_id), house.ask(anna)
    )

    last = (await house.facts(outcome.session_id))[2]
    assert ended.status == "completed"
    assert (last["duration_ms"], last["waited_ms"]) == (3 * 86_400_000, 3 * 86_400_000)
    assert closed.statistics.busy_ms == 0


async def test_the_time_that_is_left_is_what_it_had_when_it_parked(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    await parked(house, anna, casefile, "pauses", timeout=timedelta(seconds=5))
    before = stage.contexts[0].deadline
    house.clock.advance(days=1)
    row = (await house.storage.events.open_of(casefile.casefile_id, None))[0].row
    await wake(house, row.event_id)
    await house.wake()

    assert before == NOW + timedelta(seconds=5)
    assert stage.contexts[1].deadline == NOW + timedelta(days=1, seconds=5)


async def test_a_word_that_comes_before_it_parks_is_not_lost(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "pauses")
    await wake(house, started.fact.event_id)
    await started.running.ended

    [ended] = await house.wake()

    assert ended.status == "completed"


async def test_two_that_go_on_with_it_at_once_run_it_once(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses")

    begun = await asyncio.gather(*(house.resume(outcome.event_id) for _ in range(5)))

    assert len([one for one in begun if one is not None]) == 1
    assert stage.runs["pauses"] == 2


async def test_what_runs_or_has_ended_is_not_taken_up(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    [opened] = await house.storage.events.opened([started.fact.event_id])

    assert await house.executor.resume(opened) is None
    stage.go.set()
    await started.running.ended
    outcome = await parked(house, anna, casefile, "pauses")
    [waiting] = await house.storage.events.opened([outcome.event_id])
    await house.stopping.operation(outcome.event_id, "enough")
    assert await house.executor.resume(waiting) is None
    assert stage.runs["works"] == 1


async def test_nothing_is_taken_up_while_the_server_stops(
    house: House, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses")
    await house.runner.drain(timedelta())

    assert await house.resume(outcome.event_id) is None
    assert (await house.row(outcome.event_id)) is not None


async def test_only_what_says_that_it_parks_may(house: House, anna: Principal, casefile: CasefileView):
    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "lies")

    assert outcome.failure is not None
    assert (outcome.status, outcome.failure.type) == ("failed", "operation_raised")


@pytest.mark.parametrize("size", [0, 10 * 2**20])
async def test_a_snapshot_that_cannot_be_kept_is_a_failure(
    house: House, anna: Principal, casefile: CasefileView, size: int
):
    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "unfit", size=size)

    assert outcome.failure is not None
    assert outcome.failure.type == "snapshot_unfit"


# What callers are told


async def test_execute_answers_that_it_waits_and_for_what_and_so_does_a_repeat(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    stage.until = NOW + timedelta(hours=2)
    operation = ToolCall(operation_type="tool", tool_name="pauses")
    command = Execute(casefile_id=casefile.casefile_id, operation=operation)
    ask = house.ask(anna, "req-1", route="execute")

    first, repeated = await house.sessions.execute_operation(anna, command, ask)
    async with asyncio.timeout(5):
        again, is_again = await house.sessions.execute_operation(anna, command, ask)
    seen = await house.operations.get(anna, GetOperation(event_id=first.event_id))

    told = [(one.kind, one.id, one.until) for one in first.waiting_for]
    assert told == [("signal", "go", stage.until)]
    assert (repeated, is_again) == (False, True)
    for answer in (first, again, seen):
        assert (answer.status, answer.success, answer.event_id) == ("pending", None, first.event_id)
        assert answer.waiting_for == first.waiting_for
    assert stage.runs["pauses"] == 1


async def test_a_repeat_after_its_end_answers_the_end(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    operation = ToolCall(operation_type="tool", tool_name="pauses")
    command = Execute(casefile_id=casefile.casefile_id, operation=operation)
    ask = house.ask(anna, "req-1", route="execute")
    first, _ = await house.sessions.execute_operation(anna, command, ask)
    await wake(house, first.event_id)
    await house.wake()

    again, repeated = await house.sessions.execute_operation(anna, command, ask)

    assert (again.status, again.event_id, repeated) == ("completed", first.event_id, True)
    # Kept for 24 hours after the end, like any other.
    house.clock.advance(hours=25)
    once_more, repeated = await house.sessions.execute_operation(anna, command, ask)
    assert not repeated
    assert once_more.event_id != first.event_id


async def test_the_session_shows_what_waits(house: House, anna: Principal, casefile: CasefileView):
    outcome = await parked(house, anna, casefile, "pauses")
    context = await house.manager.validate_and_get_session(anna, At(outcome.session_id))

    [shown] = await house.reading.open(context)

    assert (shown.event_id, shown.state) == (outcome.event_id, "waiting")
    assert [(one.kind, one.id) for one in shown.waiting_for] == [("signal", "go")]


async def test_a_stream_ends_where_the_operation_waits(house: House, anna: Principal, casefile: CasefileView):
    operation = ToolCall(operation_type="tool", tool_name="pauses")
    command = Execute(casefile_id=casefile.casefile_id, operation=operation)

    async with asyncio.timeout(5):
        items = [item async for item in house.sessions.stream_operation(anna, command, house.ask(anna))]

    assert [getattr(item, "kind", getattr(item, "status", None)) for item in items] == ["started", "pending"]


# What is missing


async def test_an_operation_that_is_not_here_waits_and_says_so(directory: Path, stage: Stage):
    async with open_house(directory, tools=stage.tools()) as house:
        anna = await house.caller(ANNA)
        casefile = await house.casefile(anna)
        outcome = await parked(house, anna, casefile, "pauses")
        await wake(house, outcome.event_id)
    async with open_house(directory) as house:
        anna = await house.caller(ANNA)

        assert await house.wake() == []

        seen = await house.operations.get(anna, GetOperation(event_id=outcome.event_id))
        assert (seen.status, [(one.kind, one.id) for one in seen.waiting_for]) == (
            "pending",
            [("operation", "tool/pauses")],
        )
    async with open_house(directory, tools=stage.tools()) as house:
        house.clock.advance(minutes=2)
        [ended] = await house.wake()
        assert ended.status == "completed"


async def test_a_snapshot_of_a_newer_version_waits_for_a_newer_server(directory: Path, stage: Stage):

    newer = [replace(one, snapshot_version=2) if one.name == "pauses" else one for one in stage.tools()]
    async with open_house(directory, tools=newer) as house:
        anna = await house.caller(ANNA)
        outcome = await parked(house, anna, await house.casefile(anna), "pauses")
        await wake(house, outcome.event_id)
    async with open_house(directory, tools=stage.tools()) as house:
        assert await house.wake() == []
        row = await house.row(outcome.event_id)
        assert row is not None
        assert row.held is not None
        assert [one.kind for one in row.held.waiting_for] == ["operation"]
    async with open_house(directory, tools=newer) as house:
        house.clock.advance(minutes=2)
        [ended] = await house.wake()
        assert ended.status == "completed"
        assert stage.contexts[-1].resumed is not None
        assert stage.contexts[-1].resumed.version == 2


async def test_a_snapshot_that_is_lost_is_a_failure(house: House, anna: Principal, casefile: CasefileView):
    outcome = await parked(house, anna, casefile, "pauses", size=100_000)
    await house.storage.blobs.remove(casefile.casefile_id, f"snapshot_{outcome.event_id}_1")
    await wake(house, outcome.event_id)

    assert await house.wake() == []

    assert await ended_kind(house, outcome) == ("failed", "snapshot_lost")


class Changing:
    """A source whose one operation is, or is not, what it was."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.error: Exception | None = None

    type: OperationType = "agent"
    names: Collection[str] = ()

    async def find(self, name: str, scope: OperationScope) -> Operation | None:
        return Moody(self) if name == "moody" else None

    async def catalogue(self, scope: OperationScope) -> Sequence[Operation]:
        return [Moody(self)]


@dataclass
class Moody:
    """An agent that parks once, and whose parameters do not always fit."""

    source: Changing
    type: OperationType = "agent"
    name: str = "moody"
    effects: frozenset[Effect] = frozenset({Effect.READ})
    timeout: timedelta = timedelta(seconds=60)
    limit: int | None = None
    parks: bool = True
    snapshot_version: int = 1

    def parse(self, call: Any) -> Any:
        if self.source.error is not None:
            raise self.source.error
        return call

    async def run(self, context: MDSContext, parameters: Any) -> Finished:
        if context.resumed is None:
            await context.invoke(ToolCall(operation_type="tool", tool_name="echo"), key="a")
            raise Parked
        return Finished(parameters.prompt)

    def entry(self) -> CatalogEntry:
        raise AssertionError("nobody asks for the catalogue here")


@asynccontextmanager
async def moody(directory: Path, stage: Stage) -> AsyncGenerator[tuple[House, Changing, Outcome]]:
    """An agent of which a run waits, woken."""
    source = Changing(stage.tools()[0])
    async with open_house(directory, tools=stage.tools(), agents=[source]) as house:
        anna = await house.caller(ANNA)
        casefile = await house.casefile(anna)
        operation = AgentCall(operation_type="agent", agent_name="moody", prompt="hello")
        call = Call(anna, At(casefile_id=casefile.casefile_id), operation, house.ask(anna))
        _, started = await house.executor.execute(call)
        assert isinstance(started, Started)
        outcome = await started.running.ended
        await wake(house, outcome.event_id)
        yield house, source, outcome


async def test_an_agent_goes_on_with_what_it_was_asked_and_tainted_by_what_it_read(
    directory: Path, stage: Stage
):
    async with moody(directory, stage) as (house, _, _):
        [ended] = await house.wake()

    assert (ended.status, ended.outputs, ended.is_tainted) == ("completed", b'"hello"', True)


async def test_what_cannot_run_at_present_waits_until_it_can(directory: Path, stage: Stage):
    async with moody(directory, stage) as (house, source, outcome):
        source.error = ModelUnavailable("No key.")
        assert await house.wake() == []
        row = await house.row(outcome.event_id)
        assert row is not None
        assert row.held is not None
        assert [(one.kind, one.id) for one in row.held.waiting_for] == [("operation", "agent/moody")]
        source.error = None
        house.clock.advance(minutes=2)
        [ended] = await house.wake()

    assert ended.status == "completed"


async def test_what_was_asked_and_fits_no_more_is_a_failure(directory: Path, stage: Stage):
    async with moody(directory, stage) as (house, source, outcome):
        source.error = ArgumentsInvalid(errors=(FieldError("payload.operation.prompt", "is too long now"),))

        assert await house.wake() == []

        assert await ended_kind(house, outcome) == ("failed", "arguments_invalid")


async def test_an_outage_of_what_parameters_need_leaves_it_due(directory: Path, stage: Stage):
    async with moody(directory, stage) as (house, source, outcome):
        source.error = StoreUnavailable("The store cannot be reached.")
        with pytest.raises(StoreUnavailable):
            await house.resume(outcome.event_id)
        source.error = None

        [ended] = await house.wake()

    assert ended.status == "completed"


async def test_after_a_crash_the_children_on_the_record_tell_what_it_has_read(directory: Path, stage: Stage):
    async with moody(directory, stage) as (house, _, outcome):
        [opened] = await house.storage.events.opened([outcome.event_id])
        held = opened.row.held
        assert held is not None
        # As a process leaves it that is lost before it can write down what it has read.
        lost = replace(held, is_tainted=False, crashes=1)
        park = ParkOperation(opened.row.ref, lost, AT_ONCE)
        await house.commits.commit(Commit((), (opened.row.ownership,), (park,)))

        [ended] = await house.wake()

    assert ended.is_tainted
