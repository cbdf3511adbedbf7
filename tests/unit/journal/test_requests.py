import asyncio
from datetime import timedelta

import pytest

from casekeeper.errors import RequestIdReused
from casekeeper.journal.commits import Commit
from casekeeper.journal.requests import KEPT, AlreadyClaimed, Ask, Body, ReleaseClaim
from tests.unit.support import House

BODY = Body.of_json(b'{"title":"A"}')
FIRST = Ask("sam@example.com", "/v1/casefiles/create", "req_1", BODY, is_repeatable=True)
ONCE = Ask("sam@example.com", "/v1/casefiles/create", "req_1", BODY)


class Maker:
    """Makes things in the store and counts how often."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.made: list[str] = []

    async def make(self, ask: Ask) -> str:
        name = f"thing_{len(self.made)}"
        claim = self.house.requests.claim(ask, name)
        await self.house.commits.commit(Commit(conditions=claim, records=claim))
        self.made.append(name)
        return name

    async def once(self, ask: Ask) -> tuple[str, bool]:
        return await self.house.requests.once(ask, lambda: self.make(ask), self.again)

    async def again(self, name: str) -> str:
        return f"again {name}"


@pytest.fixture
def maker(house: House) -> Maker:
    return Maker(house)


async def test_a_first_request_makes(maker: Maker):
    assert await maker.once(FIRST) == ("thing_0", False)


async def test_a_repeat_answers_from_what_was_made(maker: Maker):
    await maker.once(FIRST)

    assert await maker.once(FIRST) == ("again thing_0", True)


async def test_a_repeat_makes_nothing(maker: Maker):
    await maker.once(FIRST)
    await maker.once(FIRST)

    assert maker.made == ["thing_0"]


async def test_the_same_id_with_another_body_is_refused(maker: Maker):
    await maker.once(FIRST)

    with pytest.raises(RequestIdReused):
        await maker.once(
            Ask(
                FIRST.user_id,
                FIRST.route,
                FIRST.request_id,
                Body.of_json(b'{"title":"B"}'),
                is_repeatable=True,
            )
        )


@pytest.mark.parametrize(
    "other",
    [
        Ask("ben@example.com", FIRST.route, "req_1", BODY, is_repeatable=True),
        Ask(FIRST.user_id, "/v1/sessions/create", "req_1", BODY, is_repeatable=True),
        Ask(FIRST.user_id, FIRST.route, "req_2", BODY, is_repeatable=True),
    ],
    ids=["another user", "another route", "another id"],
)
async def test_an_id_counts_for_its_user_and_route_only(maker: Maker, other: Ask):
    await maker.once(FIRST)

    assert await maker.once(other) == ("thing_1", False)


async def test_a_request_whose_id_the_server_made_is_never_a_repeat(maker: Maker):
    await maker.once(ONCE)

    assert await maker.once(ONCE) == ("thing_1", False)


async def test_twenty_at_once_make_one(maker: Maker):
    answers = await asyncio.gather(*(maker.once(FIRST) for _ in range(20)))

    assert len(maker.made) == 1
    assert sorted(repeated for _, repeated in answers) == [False] + [True] * 19


async def test_a_claim_ends_after_a_day(maker: Maker):
    await maker.once(FIRST)
    maker.house.clock.now += KEPT

    assert await maker.once(FIRST) == ("thing_1", False)


async def test_a_claim_holds_until_its_day_is_over(maker: Maker):
    await maker.once(FIRST)
    maker.house.clock.now += KEPT - timedelta(microseconds=1)

    assert (await maker.once(FIRST))[1]


async def test_an_operations_claim_holds_however_long_it_runs(house: House):
    claim = house.requests.claim(FIRST, "evt_1", is_operation=True)
    await house.commits.commit(Commit(conditions=claim, records=claim))
    house.clock.advance(days=400)

    assert await house.requests.find(FIRST) == "evt_1"


async def test_an_operations_day_begins_when_it_ends(house: House):
    claim = house.requests.claim(FIRST, "evt_1", is_operation=True)
    await house.commits.commit(Commit(conditions=claim, records=claim))
    house.clock.advance(days=3)
    await house.commits.commit(Commit(records=(ReleaseClaim("evt_1", house.clock() + KEPT),)))

    house.clock.advance(hours=23)
    held = await house.requests.find(FIRST)
    house.clock.advance(hours=1)

    assert (held, await house.requests.find(FIRST)) == ("evt_1", None)


async def test_a_race_that_is_lost_to_a_claim_that_ends_at_once_is_told(maker: Maker):
    async def overtaken() -> str:
        await maker.make(FIRST)
        try:
            return await maker.make(FIRST)
        finally:
            maker.house.clock.now += KEPT

    with pytest.raises(AlreadyClaimed):
        await maker.house.requests.once(FIRST, overtaken, maker.again)


def test_keys_do_not_run_together():
    one = Ask("a@b.c", "/x", "y", is_repeatable=True)
    other = Ask("a@b.c", "/", "xy", is_repeatable=True)

    assert one.key != other.key
