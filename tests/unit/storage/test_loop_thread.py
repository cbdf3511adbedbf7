"""Work that goes on in a thread of its own."""

import asyncio
import threading
import time

import pytest

from casekeeper.storage.postgres.loop_thread import LoopThread


async def ticking(ticks: list[float]) -> None:
    """Note the time every few milliseconds."""
    while True:
        ticks.append(time.monotonic())
        await asyncio.sleep(0.005)


async def test_what_runs_there_goes_on_while_the_callers_loop_is_busy():
    own, ticks = LoopThread("test"), list[float]()
    work = asyncio.create_task(own.call(ticking(ticks)))
    async with asyncio.timeout(10):
        while not ticks:
            await asyncio.sleep(0.001)

    before = len(ticks)
    busy_until_s = time.monotonic() + 0.5
    while time.monotonic() < busy_until_s:
        pass
    meanwhile = len(ticks) - before
    work.cancel()
    await own.close()

    assert meanwhile > 3


async def test_an_error_comes_back_to_the_caller():
    own = LoopThread("test")
    with pytest.raises(TimeoutError):
        await own.call(asyncio.wait_for(asyncio.Event().wait(), 0.01))
    await own.close()


async def test_what_runs_there_is_cancelled_with_its_caller():
    own, ended = LoopThread("test"), threading.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(own.call(waits()), 0.05)

    assert await asyncio.to_thread(ended.wait, 10)
    await own.close()


async def test_closing_it_cancels_what_runs_and_ends_the_thread():
    own, ticks = LoopThread("ends with its test"), list[float]()
    work = asyncio.create_task(own.call(ticking(ticks)))
    async with asyncio.timeout(10):
        while not ticks:
            await asyncio.sleep(0.001)

    await own.close()
    await asyncio.wait([work])

    assert work.cancelled()
    assert "ends with its test" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(RuntimeError):
        await own.call(asyncio.sleep(0))
