from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.acl import Effect
from casekeeper.clock import utc_now
from casekeeper.errors import RateLimited
from casekeeper.execution.rate_limits import Limits, Rates
from casekeeper.operations.context import MDSContext
from casekeeper.operations.tools import Tool, tool
from tests.support import NOON, SteppableClock


@tool(effects={Effect.READ})
async def free(call: MDSContext) -> None:
    """Have no limit of its own."""


@tool(effects={Effect.READ}, limit=2)
async def scarce(call: MDSContext) -> None:
    """Have one."""


async def spend(
    limits: Limits, times: int, user: str = "anna", casefile: str = "cf_1", operation: Tool = free
) -> None:
    for _ in range(times):
        await limits.spend(user, casefile, operation)


async def refusal(limits: Limits, operation: Tool = free) -> RateLimited | None:
    try:
        await limits.spend("anna", "cf_1", operation)
    except RateLimited as limited:
        return limited
    return None


async def room(limits: Limits, operation: Tool = free) -> int:
    """How many operations go through until one is refused."""
    count = 0
    while await refusal(limits, operation) is None:
        count += 1
    return count


async def test_what_is_within_the_limit_goes_through():
    await spend(Limits(Rates(3, 3), utc_now), 3)


@pytest.mark.parametrize(
    ("rates", "policy"),
    [
        (Rates(user=3), "3 a minute per user"),
        (Rates(casefile=3), "3 a minute per casefile"),
        (Rates(tool=3), "3 a minute per tool"),
    ],
)
async def test_one_more_is_refused_and_the_policy_named(rates: Rates, policy: str):
    limits = Limits(rates, utc_now)
    await spend(limits, 3)

    with pytest.raises(RateLimited) as limited:
        await limits.spend("anna", "cf_1", free)

    assert limited.value.policy == policy


async def test_a_refusal_says_when_to_come_back():
    limits = Limits(Rates(1), utc_now)
    await spend(limits, 1)

    with pytest.raises(RateLimited) as limited:
        await limits.spend("anna", "cf_1", free)

    assert 1 <= limited.value.retry_after_s <= 60
    assert limited.value.retry_at - utc_now() <= timedelta(seconds=limited.value.retry_after_s)


async def test_users_do_not_spend_each_others_limit():
    limits = Limits(Rates(1), utc_now)
    await spend(limits, 1, user="anna")

    await spend(limits, 1, user="ben")


async def test_casefiles_do_not_spend_each_others_limit():
    limits = Limits(Rates(casefile=1), utc_now)
    await spend(limits, 1, casefile="cf_1")

    await spend(limits, 1, casefile="cf_2")


async def test_a_user_named_like_a_casefile_shares_nothing_with_it():
    limits = Limits(Rates(1, 1), utc_now)
    await spend(limits, 1, user="x", casefile="y")

    await spend(limits, 1, user="y", casefile="x")


async def test_everybody_spends_the_limit_of_a_tool():
    limits = Limits(Rates(), utc_now)
    await spend(limits, 1, user="anna", casefile="cf_1", operation=scarce)
    await spend(limits, 1, user="ben", casefile="cf_2", operation=scarce)

    assert await refusal(limits, scarce)
    await spend(limits, 5)


@pytest.mark.parametrize(
    ("rates", "rooms"),
    [
        (Rates(tool=1), (1, 2)),
        (Rates(tool=1, tools={"scarce": 3}), (1, 3)),
        (Rates(tools={"free": 4, "scarce": 1}), (4, 1)),
    ],
)
async def test_the_nearest_limit_of_a_tool_counts(rates: Rates, rooms: tuple[int, int]):
    limits = Limits(rates, utc_now)

    assert (await room(limits, free), await room(limits, scarce)) == rooms


async def test_what_one_limit_refuses_is_not_counted_by_another():
    limits = Limits(Rates(user=3, casefile=1), utc_now)
    await spend(limits, 1)
    for _ in range(5):
        assert await refusal(limits)

    await spend(limits, 1, casefile="cf_2")
    await spend(limits, 1, casefile="cf_3")


async def test_zero_means_no_limit():
    limits = Limits(Rates(tools={"scarce": 0}), utc_now)
    await spend(limits, 1000, operation=scarce)


async def test_the_answer_tells_where_each_limit_stands():
    clock = SteppableClock(NOON + timedelta(seconds=20))
    limits = Limits(Rates(10, 5), clock)
    await spend(limits, 2, casefile="cf_2")

    quotas = await limits.spend("anna", "cf_1", scarce)

    assert [(q.name, q.amount, q.left) for q in quotas] == [
        ("user", 10, 7),
        ("casefile", 5, 4),
        ("tool", 2, 1),
    ]
    assert all(39 <= q.reset_s <= 41 for q in quotas)


async def test_what_is_said_to_be_left_goes_through_and_no_more():
    clock = SteppableClock(NOON + timedelta(seconds=0.5))
    limits = Limits(Rates(60), clock)
    await spend(limits, 60)
    clock.step(seconds=83)
    [quota] = await limits.spend("anna", "cf_1", free)

    assert quota.left > 0
    assert await room(limits) == quota.left


async def test_a_process_without_word_of_the_others_takes_its_part():
    limits = Limits(Rates(user=12, casefile=3), utc_now, processes=4)

    # Of three none would be left for each; one is always.
    assert [await room(limits), await room(limits, scarce)] == [1, 0]
    await spend(limits, 1, casefile="cf_2")
    await spend(limits, 1, casefile="cf_3")
    assert await refusal(limits)


async def test_the_minute_slides():
    clock = SteppableClock(NOON + timedelta(seconds=0.5))
    limits = Limits(Rates(60), clock)

    # Nearly all of the last minute is still inside; half of it is when half of this one has passed.
    rooms = [await room(limits)]
    for pause_s in (60, 30, 30, 120):
        clock.step(seconds=pause_s)
        rooms.append(await room(limits))

    assert rooms == [60, 1, 30, 30, 60]


async def test_a_key_that_was_away_starts_from_nothing():
    clock = SteppableClock()
    limits = Limits(Rates(2), clock)
    await spend(limits, 2)
    clock.step(minutes=1, seconds=59)
    await spend(limits, 1, user="ben")
    clock.step(minutes=1)

    await spend(limits, 2)


@given(
    amount=st.integers(1, 20),
    steps=st.lists(st.tuples(st.floats(0, 45), st.integers(0, 12)), max_size=40),
)
async def test_no_minute_takes_much_more_than_its_limit_and_who_waits_gets_in(
    amount: int, steps: list[tuple[float, int]]
):
    clock = SteppableClock()
    limits = Limits(Rates(amount), clock)
    taken: list[datetime] = []
    for pause_s, tries in steps:
        clock.step(seconds=pause_s)
        for _ in range(tries):
            if refused := await refusal(limits):
                waited = SteppableClock(refused.retry_at)
                assert clock.now < waited.now <= clock.now + timedelta(minutes=1)
            else:
                taken.append(clock.now)
    # Two fixed windows may let through what fell on the border of both: never twice the limit.
    for start in taken:
        assert sum(start <= at < start + timedelta(minutes=1) for at in taken) < 2 * amount + 1


async def test_whoever_comes_back_when_told_gets_in():
    clock = SteppableClock(NOON + timedelta(seconds=0.5))
    limits = Limits(Rates(10), clock)
    for pause_s in (0, 7, 31, 59, 60, 61):
        clock.step(seconds=pause_s)
        await room(limits)
        refused = await refusal(limits)
        assert refused is not None
        clock.now = refused.retry_at
        assert await refusal(limits) is None
