"""A process goes by the clock of the store that it shares."""

import asyncio
import logging
from datetime import datetime, timedelta

import pytest

from casekeeper.clock import AgreedClock, utc_now
from casekeeper.errors import StoreUnavailable
from casekeeper.storage.clocks import agree


class Store:
    """Another machine's clock; `answers` are the seconds by which it is ahead, one for each question, None: it is away."""

    def __init__(self, *answers: int | None) -> None:
        self.answers = list(answers)
        self.asked = asyncio.Event()

    async def now(self) -> datetime:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if len(self.answers) == 1:
            self.asked.set()
        if answer is None:
            raise StoreUnavailable("It is away.")
        return utc_now() + timedelta(seconds=answer)


def ahead(clock: AgreedClock) -> int:
    """By how many minutes, about."""
    return round((clock() - utc_now()).total_seconds() / 60)


@pytest.mark.parametrize(("seconds", "told"), [(7200, "behind"), (-7200, "ahead of")])
async def test_a_machine_whose_clock_is_off_says_so_and_goes_by_the_stores(
    seconds: int, told: str, caplog: pytest.LogCaptureFixture
):
    clock = AgreedClock()
    with caplog.at_level(logging.WARNING):
        await agree(clock, Store(seconds).now)

    assert ahead(clock) == seconds // 60

    assert f"{told} the store's, which counts" in caplog.text


async def test_a_clock_that_is_right_is_no_news(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        await agree(AgreedClock(), Store(0).now)

    assert not caplog.text


async def test_a_store_that_is_away_for_a_while_is_asked_again():
    clock, store = AgreedClock(), Store(60, None, None, 600)
    asking = await agree(clock, store.now, timedelta(milliseconds=1))
    async with asking.running():
        async with asyncio.timeout(5):
            await store.asked.wait()
            while ahead(clock) != 10:
                await asyncio.sleep(0.001)


async def test_without_any_answer_nothing_begins():
    with pytest.raises(StoreUnavailable):
        await agree(AgreedClock(), Store(None).now)
