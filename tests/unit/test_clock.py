from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.clock import from_us, rfc3339, to_us, utc_now

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
