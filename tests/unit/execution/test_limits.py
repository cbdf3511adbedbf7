from datetime import timedelta

import pytest

from casekeeper.clock import utc_now
from casekeeper.errors import RateLimited
from casekeeper.execution.limits import Limits


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
