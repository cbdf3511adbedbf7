"""Work in the background: again and again, through outages, and no longer than its context."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from casekeeper.background import Every, each, in_background, running
from casekeeper.errors import StoreUnavailable

NEVER, SHORT = timedelta(days=1), timedelta(milliseconds=1)


class Counted:
    """Work that is counted, and may go wrong or say when it is due again."""

    def __init__(self, *results: timedelta | Exception | None) -> None:
        self.results = list(results)
        self.times = 0
        self._done = asyncio.Condition()

    async def __call__(self) -> timedelta | None:
        self.times += 1
        async with self._done:
            self._done.notify_all()
        result = self.results.pop(0) if self.results else None
        if isinstance(result, Exception):
            raise result
        return result

    async def reached(self, times: int) -> None:
        async with asyncio.timeout(5), self._done:
            await self._done.wait_for(lambda: self.times >= times)


async def test_work_is_done_at_once_and_after_each_period():
    work = Counted()
    async with Every(SHORT, work, name="counting").running():
        await work.reached(3)


async def test_without_at_once_a_period_passes_first():
    work = Counted()
    async with Every(NEVER, work, name="counting", at_once=False).running():
        await asyncio.sleep(0.02)

    assert work.times == 0


async def test_what_wakes_it_is_followed_at_once_also_while_it_works():
    woken, work = asyncio.Event(), Counted()

    async def wakes_itself() -> None:
        await work()
        if work.times == 2:
            woken.set()

    async with Every(NEVER, wakes_itself, name="counting", woken=woken).running():
        await work.reached(1)
        woken.set()
        await work.reached(3)
        await asyncio.sleep(0.02)

    assert work.times == 3


async def test_work_says_when_it_is_due_again_but_not_later_than_the_period():
    sooner, later = Counted(timedelta(milliseconds=5)), Counted(NEVER)
    async with running(
        Every(NEVER, sooner, name="sooner than the period"), Every(SHORT, later, name="later than the period")
    ):
        await sooner.reached(2)
        await later.reached(3)


async def test_each_outage_is_logged_once_and_work_goes_on_after_it(caplog: pytest.LogCaptureFixture):
    down = StoreUnavailable("The store cannot be reached.")
    work = Counted(down, down, None, down, down)

    async with Every(SHORT, work, name="counting").running():
        await work.reached(6)

    assert [record.message for record in caplog.records] == [
        "counting: The store cannot be reached; trying again"
    ] * 2


async def test_during_an_outage_it_is_tried_again_before_a_long_period_ends():
    work = Counted(StoreUnavailable())
    began = asyncio.get_running_loop().time()

    async with Every(NEVER, work, name="counting").running():
        await work.reached(2)

    assert 0.9 < asyncio.get_running_loop().time() - began < 3


async def test_an_error_that_nobody_expects_ends_it_and_is_logged_as_critical(
    caplog: pytest.LogCaptureFixture,
):
    work = Counted(RuntimeError("a bug"))

    async with Every(SHORT, work, name="counting").running():
        await asyncio.sleep(0.05)

    assert work.times == 1
    [record] = caplog.records
    assert (record.levelno, record.message) == (
        logging.CRITICAL,
        "counting has stopped; restart the server",
    )


async def test_nothing_is_left_running_when_the_context_ends():
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True

    async with in_background(work(), "waiting"):
        await asyncio.sleep(0)

    assert ended


async def test_one_that_is_held_up_holds_up_no_other():
    calls = list[str]()

    def named(name: str, *, fails: bool = False) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            calls.append(name)
            if fails:
                raise StoreUnavailable(f"{name} failed")

        return work

    with pytest.raises(StoreUnavailable, match="third failed"):
        await each(named("first", fails=True), named("second"), named("third", fails=True), named("fourth"))

    assert calls == ["first", "second", "third", "fourth"]
