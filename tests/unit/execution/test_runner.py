import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from casekeeper.errors import CasekeeperError, DocumentNotFound, RoleTooLow, StoreUnavailable
from casekeeper.execution.runner import Ending, Runner, Running
from casekeeper.journal.events import Fact, Kind, Payload
from casekeeper.operations.context import NestedFailed, Parked, RightsLost
from casekeeper.operations.operation import Finished

NOW = datetime(2025, 10, 23, 12, tzinfo=UTC)
LONG = timedelta(seconds=30)
SOON = timedelta(milliseconds=20)
NONE = timedelta()

Work = Callable[[], Awaitable[Finished]]


def running(event_id: str = "evt_1", user_id: str = "sam@example.com", casefile_id: str = "cf_1") -> Running:
    fact = Fact(
        casefile_id=casefile_id,
        session_id="ts_1",
        event_id=event_id,
        kind=Kind.STARTED,
        actor="usr_1",
        started_at=NOW,
        payload=Payload.of(b"{}"),
    )
    return Running(fact, user_id, asyncio.get_running_loop().create_future())


def raises(error: BaseException) -> Work:
    async def work() -> Finished:
        raise error

    return work


async def sleeps() -> Finished:
    await asyncio.sleep(60)
    return Finished(None)


async def told(ending: Ending) -> tuple[str, str, bool]:
    assert ending.failure is not None
    return ending.kind.value, ending.failure.type, ending.failure.retryable


async def ending_of(runner: Runner, one: Running, work: Work, within: timedelta = LONG) -> Ending:
    ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    async def end(ending: Ending | Parked) -> None:
        assert isinstance(ending, Ending)
        ended.set_result(ending)

    runner.adopt(one, asyncio.create_task(runner.run(one, work, within, end)))
    return await asyncio.wait_for(ended, 10)


async def run(work: Work, within: timedelta = LONG, grace: timedelta = LONG) -> Ending:
    return await ending_of(Runner(grace), running(), work, within)


async def test_what_comes_back_is_kept():
    async def work() -> Finished:
        return Finished({"a": 1}, usage={"requests": 2})

    ending = await run(work)

    assert (ending.kind, ending.failure, ending.finished) == (
        Kind.SUCCEEDED,
        None,
        Finished({"a": 1}, usage={"requests": 2}),
    )


class Speechless(Exception):
    """An error that cannot even be put into words."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (RuntimeError("it broke"), ("failed", "operation_raised", False)),
        (RightsLost(), ("denied", "rights_lost", False)),
        (RoleTooLow("editor", "viewer"), ("denied", "role_too_low", False)),
        (DocumentNotFound("doc_1"), ("failed", "document_not_found", False)),
        (StoreUnavailable(), ("failed", "store_unavailable", True)),
        (CasekeeperError("x"), ("failed", "error", False)),
        (NestedFailed("role_too_low", "no"), ("failed", "role_too_low", False)),
        (NestedFailed("down", "later", retryable=True), ("failed", "down", True)),
        (TimeoutError("slow"), ("failed", "operation_timeout", True)),
        (SystemExit(1), ("failed", "operation_raised", False)),
        (KeyboardInterrupt(), ("failed", "operation_raised", False)),
        (GeneratorExit(), ("failed", "operation_raised", False)),
        (BaseExceptionGroup("many", [ValueError("a"), SystemExit(1)]), ("failed", "operation_raised", False)),
        (asyncio.CancelledError("itself"), ("failed", "operation_raised", False)),
        (Speechless(), ("failed", "operation_raised", False)),
        (StopAsyncIteration(), ("failed", "operation_raised", False)),
        (MemoryError(), ("failed", "operation_raised", False)),
        (RecursionError(), ("failed", "operation_raised", False)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_whatever_a_tool_raises_is_an_ending(error: BaseException, wanted: tuple[str, str, bool]):
    assert await told(await run(raises(error))) == wanted


async def test_an_error_says_what_it_is():
    ending = await run(raises(ZeroDivisionError("division by zero")))

    assert ending.failure is not None
    assert ending.failure.message == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("text", ["\ud800", "\udfff and \x00", "é" * 5000])
async def test_whatever_an_error_says_can_be_recorded(text: str):
    ending = await run(raises(RuntimeError(text)))

    assert ending.failure is not None
    assert Payload.of_fields(error={"message": ending.failure.message}).size <= 12_100


async def test_a_run_ends_at_its_deadline():
    assert await told(await run(sleeps, within=SOON)) == ("timed_out", "deadline_exceeded", True)


@pytest.mark.parametrize("within", [timedelta(0), timedelta(seconds=-5)])
async def test_a_deadline_that_has_passed_ends_the_run_at_once(within: timedelta):
    assert (await run(sleeps, within=within)).kind is Kind.TIMED_OUT


async def test_a_run_is_stopped_from_outside():
    one, runner = running(), Runner()
    task = asyncio.create_task(ending_of(runner, one, sleeps))
    await asyncio.sleep(0.01)

    one.stop(Kind.CANCELLED, "cancelled", "Enough.")

    assert await told(await asyncio.wait_for(task, 5)) == ("cancelled", "cancelled", False)


async def test_a_run_that_is_stopped_before_it_begins_does_nothing():
    began = False

    async def work() -> Finished:
        nonlocal began
        began = True
        return Finished(None)

    one = running()
    one.stop(Kind.CANCELLED, "cancelled", "Enough.")
    ending = await ending_of(Runner(), one, work)

    assert (ending.kind, began) == (Kind.CANCELLED, False)


async def test_the_first_reason_counts():
    one = running()
    task = asyncio.create_task(ending_of(Runner(), one, sleeps))
    await asyncio.sleep(0.01)

    one.stop(Kind.CANCELLED, "rights_lost", "Revoked.")
    one.stop(Kind.INTERRUPTED, "server_stopped", "Stopped.")

    assert await told(await asyncio.wait_for(task, 5)) == ("cancelled", "rights_lost", False)


async def test_an_error_while_cleaning_up_does_not_hide_the_stop():
    async def work() -> Finished:
        try:
            await asyncio.sleep(60)
        finally:
            raise RuntimeError("while cleaning up")

    assert (await run(work, within=SOON)).kind is Kind.TIMED_OUT


async def test_a_stopped_run_may_clean_up():
    cleaned = False

    async def work() -> Finished:
        nonlocal cleaned
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            cleaned = True
            raise
        return Finished(None)

    await run(work, within=SOON)

    assert cleaned


async def test_a_run_that_swallows_its_end_did_not_succeed():
    async def deaf() -> Finished:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return Finished("as if nothing had been")

    assert await told(await run(deaf, within=SOON)) == ("timed_out", "deadline_exceeded", True)


async def test_a_run_that_ignores_its_end_is_left_to_itself():
    release = asyncio.Event()

    async def stubborn() -> Finished:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        raise RuntimeError("nobody hears this")

    runner = Runner(grace=SOON)
    ending = await ending_of(runner, running(), stubborn, SOON)
    release.set()
    await runner.drain(LONG)

    assert await told(ending) == ("timed_out", "deadline_exceeded", True)


async def test_a_run_that_gives_in_late_is_forgotten_too():
    async def slow_to_end() -> Finished:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
        return Finished(None)

    runner = Runner(grace=SOON)
    ending = await ending_of(runner, running(), slow_to_end, SOON)

    await asyncio.wait_for(runner.drain(NONE), 5)

    assert ending.kind is Kind.TIMED_OUT


# What runs in this process


def live(runner: Runner, one: Running) -> None:
    """Begin a life as the executor does: run, then tell the end."""

    async def end(ending: Ending | Parked) -> None:
        one.ended.set_result(ending)

    begin(runner, one, runner.run(one, sleeps, LONG, end))


def begin(runner: Runner, one: Running, life: Coroutine[Any, Any, None]) -> None:
    runner.adopt(one, asyncio.create_task(life))


async def test_what_has_begun_is_found_until_it_ends():
    runner, one = Runner(), running()
    live(runner, one)
    found = runner.find("evt_1")

    one.stop(Kind.CANCELLED, "cancelled", "Enough.")
    await one.ended
    await asyncio.sleep(0)

    assert found is one
    assert runner.find("evt_1") is None


@pytest.mark.parametrize(
    ("who", "stopped"),
    [
        ({"user_id": "sam@example.com"}, ["evt_1", "evt_2"]),
        ({"casefile_id": "cf_1"}, ["evt_1", "evt_3"]),
        ({"user_id": "sam@example.com", "casefile_id": "cf_1"}, ["evt_1"]),
        ({"user_id": "nobody@example.com"}, []),
    ],
)
async def test_a_stop_ends_what_runs_for_this_user_in_this_casefile(who: dict[str, str], stopped: list[str]):
    runner = Runner()
    runs = [
        running("evt_1"),
        running("evt_2", casefile_id="cf_2"),
        running("evt_3", user_id="ben@example.com"),
    ]
    for one in runs:
        live(runner, one)

    runner.stop("Revoked.", **who)
    await runner.drain(NONE)

    kinds = {one.fact.event_id: one.ended.result().failure.type for one in runs}
    assert {event_id for event_id, type_ in kinds.items() if type_ == "rights_lost"} == set(stopped)


async def test_a_stopping_server_ends_everything_and_says_why():
    runner, one = Runner(), running()
    live(runner, one)

    await runner.drain(NONE)

    assert runner.is_ending
    assert await told(one.ended.result()) == ("interrupted", "server_stopped", True)


async def test_what_runs_when_a_server_stops_gets_its_time():
    runner, one, release = Runner(), running(), asyncio.Event()

    async def work() -> Finished:
        await release.wait()
        return Finished("whole")

    ending = asyncio.create_task(ending_of(runner, one, work))
    await asyncio.sleep(0)
    draining = asyncio.create_task(runner.drain(LONG))
    await asyncio.sleep(0)
    stands = (runner.is_draining, runner.is_ending)
    release.set()
    await draining

    assert stands == (True, False)
    assert (await ending).finished == Finished("whole")


async def test_a_second_stop_waits_for_nothing_again():
    runner, one = Runner(), running()
    await runner.drain(NONE)
    live(runner, one)

    await asyncio.wait_for(runner.drain(LONG), 5)

    assert await told(one.ended.result()) == ("interrupted", "server_stopped", True)


async def test_a_server_with_nothing_to_do_stops_at_once():
    await asyncio.wait_for(Runner().drain(LONG), 1)


async def test_a_server_waits_for_the_stubborn_no_longer_than_it_said():
    release = asyncio.Event()
    runner, one = Runner(grace=SOON), running()

    async def stuck() -> None:
        await release.wait()
        one.ended.set_result(None)

    begin(runner, one, stuck())
    await asyncio.wait_for(runner.drain(SOON), 5)
    waited = one.ended.done()
    release.set()
    await one.ended

    assert not waited


async def test_who_waits_for_an_operation_learns_that_its_end_could_not_be_told():
    runner, one = Runner(), running()

    async def unlucky() -> None:
        raise StoreUnavailable

    begin(runner, one, unlucky())

    with pytest.raises(StoreUnavailable):
        await one.ended


async def test_an_error_after_the_end_was_told_changes_nothing():
    runner, one = Runner(), running()

    async def late() -> None:
        one.ended.set_result("told")
        raise StoreUnavailable

    begin(runner, one, late())
    await runner.drain(LONG)

    assert await one.ended == "told"
