from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.clock import AgreedClock, from_us, rfc3339, to_us, utc_now

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
INSTANTS = st.datetimes(timezones=st.just(UTC))


def test_now_is_aware_and_in_utc():
    assert utc_now().utcoffset() == timedelta(0)


@given(INSTANTS)
def test_an_instant_survives_the_store(instant: datetime):
    assert from_us(to_us(instant)) == instant


@given(INSTANTS, INSTANTS)
def test_microseconds_keep_the_order(one: datetime, other: datetime):
    assert (to_us(one) < to_us(other)) == (one < other)


# The record holds what our own clock said; strftime does not pad years before 1000.
@given(INSTANTS.filter(lambda instant: instant.year >= 1000))
def test_what_the_record_writes_is_read_back_to_the_microsecond(instant: datetime):
    assert datetime.fromisoformat(rfc3339(instant)) == instant


def test_the_record_writes_utc_with_six_digits_whatever_the_zone():
    instant = datetime(2025, 10, 23, 14, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))

    assert rfc3339(instant) == "2025-10-23T12:00:00.000005Z"


def test_an_instant_before_1970_is_rounded_down_like_any_other():
    assert to_us(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1


def test_an_instant_without_a_zone_is_refused():
    with pytest.raises(TypeError, match="offset-naive"):
        to_us(datetime(2025, 10, 23))  # noqa: DTZ001


class Store:
    """Another machine, whose clock says noon when ours has run for no time at all; `way` is how long a message takes."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.way = 0.0

    def monotonic(self) -> float:
        return 1000 + self.elapsed

    async def now(self) -> datetime:
        self.elapsed += self.way
        now = NOON + timedelta(seconds=self.elapsed)
        self.elapsed += self.way
        return now


async def test_until_it_has_asked_a_clock_is_the_machines():
    before = utc_now()
    assert before <= AgreedClock()() <= utc_now()


async def test_an_agreed_clock_goes_with_the_stores():
    store = Store()
    clock = AgreedClock(monotonic=store.monotonic)
    await clock.ask(store.now)
    store.elapsed += 3600

    assert clock() == NOON + timedelta(hours=1)


async def test_a_slow_answer_moves_an_agreed_clock_no_further_than_it_proves():
    store = Store()
    clock = AgreedClock(monotonic=store.monotonic)
    await clock.ask(store.now)
    store.way = 5
    await clock.ask(store.now)

    assert clock() == NOON + timedelta(seconds=10)


async def test_an_agreed_clock_follows_when_the_stores_is_set():
    store = Store()
    clock = AgreedClock(monotonic=store.monotonic)
    await clock.ask(store.now)

    async def set_back() -> datetime:
        return await store.now() - timedelta(hours=2)

    await clock.ask(set_back)

    assert clock() == NOON - timedelta(hours=2)
