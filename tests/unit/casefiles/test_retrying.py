"""What was overtaken is decided anew, with the permission of the moment, but not for ever."""

from dataclasses import dataclass, field

import pytest

from casekeeper.casefiles.casefile import FenceBroken
from casekeeper.casefiles.retrying import retried
from casekeeper.errors import SessionBusy, StoreUnavailable
from casekeeper.journal.commits import IdTaken
from casekeeper.operations.context import RightsLost


@dataclass
class Attempts:
    """Attempts that fail so at first, and then succeed."""

    failures: list[Exception]
    again: list[bool] = field(default_factory=list[bool])

    async def __call__(self, again: bool) -> str:
        self.again.append(again)
        if self.failures:
            raise self.failures.pop(0)
        return "made"


async def test_what_is_not_overtaken_is_made_once_and_believes_what_is_cached():
    attempts = Attempts([])

    assert await retried(attempts) == "made"
    assert attempts.again == [False]


async def test_from_a_broken_fence_on_the_permission_is_looked_up_again_after_other_races_too():
    attempts = Attempts([IdTaken(), FenceBroken(), IdTaken()])

    assert await retried(attempts, races=(IdTaken,)) == "made"
    assert attempts.again == [False, False, True, True]


async def test_an_error_that_is_no_race_of_this_attempt_is_raised_at_once():
    attempts = Attempts([IdTaken(), FenceBroken()])

    with pytest.raises(IdTaken):
        await retried(attempts)
    assert attempts.again == [False]


async def test_who_is_overtaken_each_time_hears_that_a_retry_is_safe():
    attempts = Attempts([FenceBroken() for _ in range(9)])

    with pytest.raises(StoreUnavailable, match="again and again"):
        await retried(attempts)
    assert len(attempts.again) == 8


async def test_who_loses_a_race_to_a_refusal_each_time_hears_the_refusal():
    busy = SessionBusy(("te_1",))

    with pytest.raises(SessionBusy) as raised:
        await retried(Attempts([busy] * 3), races=(SessionBusy,), tries=3)
    assert raised.value is busy


async def test_what_it_means_to_be_overtaken_each_time_can_be_said_otherwise():
    with pytest.raises(RightsLost):
        await retried(Attempts([FenceBroken()]), tries=1, otherwise=RightsLost)
