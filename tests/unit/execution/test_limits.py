from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.clock import utc_now
from casekeeper.errors import RateLimited
from casekeeper.execution.limits import Limits
from tests.support import NOON, SteppableClock


def spend(limits: Limits, times: int, user: str = "anna", casefile: str = "cf_1") -> None:
    for _ in range(times):
        limits.spend(user, casefile)


def test_what_is_within_the_limit_goes_through():
    spend(Limits(3, 3, utc_now), 3)


@pytest.mark.parametrize(
    ("per_user", "per_casefile", "policy"), [(3, 0, "3 a minute per user"), (0, 3, "3 a minute per casefile")]
)
def test_one_more_is_refused_and_the_policy_named(per_user: int, per_casefile: int, policy: str):
    limits = Limits(per_user, per_casefile, utc_now)
    spend(limits, 3)

    with pytest.raises(RateLimited) as limited:
        limits.spend("anna", "cf_1")

    assert limited.value.policy == policy


def test_a_refusal_says_when_to_come_back():
    limits = Limits(1, 0, utc_now)
    spend(limits, 1)

    with pytest.raises(RateLimited) as limited:
        limits.spend("anna", "cf_1")

    assert 1 <= limited.value.retry_after_s <= 60
    assert limited.value.retry_at - utc_now() <= timedelta(seconds=limited.value.retry_after_s)


def test_users_do_not_spend_each_others_limit():
    limits = Limits(1, 0, utc_now)
    spend(limits, 1, user="anna")

    spend(limits, 1, user="ben")


def test_casefiles_do_not_spend_each_others_limit():
    limits = Limits(0, 1, utc_now)
    spend(limits, 1, casefile="cf_1")

    spend(limits, 1, casefile="cf_2")


def test_a_user_named_like_a_casefile_shares_nothing_with_it():
    limits = Limits(1, 1, utc_now)
    spend(limits, 1, user="x", casefile="y")

    spend(limits, 1, user="y", casefile="x")


def test_zero_means_no_limit():
    spend(Limits(0, 0, utc_now), 1000)


def refusal(limits: Limits) -> RateLimited | None:
    try:
        limits.spend("anna", "cf_1")
    except RateLimited as limited:
        return limited
    return None


def room(limits: Limits) -> int:
    """How many operations go through until one is refused."""
    count = 0
    while refusal(limits) is None:
        count += 1
    return count


def test_the_minute_slides():
    clock = SteppableClock(NOON + timedelta(seconds=0.5))
    limits = Limits(60, 0, clock)

    # Nearly all of the last minute is still inside; half of it is when half of this one has passed.
    rooms = [room(limits)]
    for pause_s in (60, 30, 30, 120):
        clock.step(seconds=pause_s)
        rooms.append(room(limits))

    assert rooms == [60, 1, 30, 30, 60]


def test_a_key_that_was_away_starts_from_nothing():
    clock = SteppableClock()
    limits = Limits(2, 0, clock)
    spend(limits, 2)
    clock.step(minutes=1, seconds=59)
    spend(limits, 1, user="ben")
    clock.step(minutes=1)

    spend(limits, 2)


@given(
    amount=st.integers(1, 20),
    steps=st.lists(st.tuples(st.floats(0, 45), st.integers(0, 12)), max_size=40),
)
def test_no_minute_takes_much_more_than_its_limit_and_who_waits_gets_in(
    amount: int, steps: list[tuple[float, int]]
):
    clock = SteppableClock()
    limits = Limits(amount, 0, clock)
    taken: list[datetime] = []
    for pause_s, tries in steps:
        clock.step(seconds=pause_s)
        for _ in range(tries):
            if refused := refusal(limits):
                waited = SteppableClock(refused.retry_at)
                assert clock.now < waited.now <= clock.now + timedelta(minutes=1)
            else:
                taken.append(clock.now)
    # Two fixed windows may let through what fell on the border of both: never twice the limit.
    for start in taken:
        assert sum(start <= at < start + timedelta(minutes=1) for at in taken) < 2 * amount + 1


def test_whoever_comes_back_when_told_gets_in():
    clock = SteppableClock(NOON + timedelta(seconds=0.5))
    limits = Limits(10, 0, clock)
    for pause_s in (0, 7, 31, 59, 60, 61):
        clock.step(seconds=pause_s)
        room(limits)
        refused = refusal(limits)
        assert refused is not None
        clock.now = refused.retry_at
        assert refusal(limits) is None
