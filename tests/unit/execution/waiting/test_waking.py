"""The waker: what is due goes on, by a hint at once, by time, and after whatever went wrong."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from casekeeper.casefiles.casefile import CasefileView
from casekeeper.errors import StoreUnavailable
from casekeeper.execution.calls import Started
from casekeeper.execution.waking import Takes, Waker
from casekeeper.identity.principal import Principal
from casekeeper.journal.operations import OpenedOperation, OpenOperations
from casekeeper.sessions.manager import At
from tests.unit.execution.waiting.stage import Stage
from tests.unit.execution.waiting.steps import parked, until, waiting_inside, wake
from tests.unit.support import NOW, House

LONG, SHORT = timedelta(hours=1), timedelta(milliseconds=20)


@asynccontextmanager
async def waking(
    house: House, every: timedelta, takes: Takes | None = None, store: OpenOperations | None = None
) -> AsyncGenerator[Waker]:
    """A waker at work."""
    reads, taking = store or house.storage.events, takes or house.executor
    waker = Waker(reads, taking, house.runner, house.clock, house.due, every)
    async with waker.looking.running():
        yield waker


async def ended(house: House, event_id: str) -> None:
    async with asyncio.timeout(5):
        while await house.row(event_id) is not None:
            await asyncio.sleep(0.005)


async def test_a_hint_is_followed_at_once(house: House, anna: Principal, casefile: CasefileView):
    async with waking(house, LONG) as waker:
        outcome = await parked(house, anna, casefile, "pauses")
        await wake(house, outcome.event_id)
        waker.hint()

        await ended(house, outcome.event_id)


async def test_without_a_hint_it_is_noticed_at_the_next_look(
    house: House, anna: Principal, casefile: CasefileView
):
    async with waking(house, SHORT):
        outcome = await parked(house, anna, casefile, "pauses")
        await wake(house, outcome.event_id)

        await ended(house, outcome.event_id)


async def test_it_looks_again_when_the_next_is_due_and_not_later(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    stage.until = NOW + timedelta(milliseconds=50)
    async with waking(house, LONG) as waker:
        outcome = await parked(house, anna, casefile, "pauses")
        waker.hint()
        await asyncio.sleep(0.02)
        house.clock.advance(seconds=1)

        await ended(house, outcome.event_id)


async def test_the_end_of_what_was_waited_for_inside_is_a_hint(
    house: House, anna: Principal, casefile: CasefileView
):
    async with waking(house, LONG) as waker:
        outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "follows", steps=["pauses"])
        await wake(house, await waiting_inside(house, casefile))
        waker.hint()

        await ended(house, outcome.event_id)


async def test_a_server_that_leaves_takes_nothing_up(house: House, anna: Principal, casefile: CasefileView):
    house.runner.is_leaving = True
    async with waking(house, SHORT):
        outcome = await parked(house, anna, casefile, "pauses")
        await wake(house, outcome.event_id)
        await asyncio.sleep(0.1)

        assert await house.row(outcome.event_id) is not None


@dataclass
class Stumbling:
    """Takes up what it is told to, but goes wrong first."""

    behind: Takes
    errors: list[Exception] = field(default_factory=list[Exception])
    tries: int = 0

    async def resume(self, opened: OpenedOperation) -> Started | None:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return await self.behind.resume(opened)


async def test_an_outage_while_something_is_taken_up_is_tried_again(
    house: House, anna: Principal, casefile: CasefileView
):
    takes = Stumbling(house.executor, [StoreUnavailable("The store cannot be reached.")])
    async with waking(house, SHORT, takes):
        outcome = await parked(house, anna, casefile, "pauses")
        await wake(house, outcome.event_id)

        await ended(house, outcome.event_id)


async def test_what_cannot_be_taken_up_for_no_known_reason_holds_up_no_other(
    house: House, anna: Principal, casefile: CasefileView, caplog: pytest.LogCaptureFixture
):
    takes = Stumbling(house.executor, [RuntimeError("a bug")])
    async with waking(house, SHORT, takes):
        first = await parked(house, anna, casefile, "pauses")
        await wake(house, first.event_id)
        await until(lambda: takes.tries == 1)
        second = await parked(house, anna, casefile, "pauses")
        await wake(house, second.event_id)
        await ended(house, second.event_id)
        await asyncio.sleep(0.1)

    assert await house.row(first.event_id) is not None
    assert takes.tries == 2
    assert [record.message for record in caplog.records if record.name == "casekeeper.waking"] == [
        f"the waiting operation {first.event_id} cannot be resumed"
    ]


@dataclass
class Unreachable:
    """A store that cannot be read at first."""

    due: Callable[[int], "asyncio.Future[Sequence[OpenedOperation]]"]


async def test_an_outage_is_logged_once_and_what_is_due_goes_on_after_it(
    house: House, anna: Principal, casefile: CasefileView, caplog: pytest.LogCaptureFixture
):
    outcome = await parked(house, anna, casefile, "pauses")
    await wake(house, outcome.event_id)
    failures = 3

    async def due(limit: int) -> Sequence[OpenedOperation]:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise StoreUnavailable("The store cannot be reached.")
        return await house.storage.events.due(limit)

    store: OpenOperations = Unreachable(due)  # pyright: ignore[reportAssignmentType, reportArgumentType] - all that a waker reads
    async with waking(house, SHORT, store=store):
        await ended(house, outcome.event_id)

    assert [record.message for record in caplog.records if record.name == "casekeeper.background"] == [
        "taking up what is due: The store cannot be reached; trying again"
    ]


async def test_no_more_are_under_way_at_a_time_than_do_well(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    for _ in range(120):
        outcome = await parked(house, anna, casefile, "pauses_then_works")
        await wake(house, outcome.event_id)
    async with waking(house, SHORT):
        await until(lambda: stage.runs["works_on"] == 100)
        await asyncio.sleep(0.1)
        assert stage.runs["works_on"] == 100
        stage.go.set()
        await until(lambda: stage.runs["works_on"] == 120)
