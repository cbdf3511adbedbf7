import asyncio
from datetime import UTC, datetime

from casekeeper.journal.events import Fact, Kind, Payload, Sealed
from casekeeper.journal.feed import Delta, LiveFeed

NOW = datetime(2025, 10, 23, 12, tzinfo=UTC)


def sealed(session_id: str) -> Sealed:
    fact = Fact(
        casefile_id="cf_251023_5acf44",
        session_id=session_id,
        event_id="evt_1",
        kind=Kind.OPENED,
        actor="usr_1",
        started_at=NOW,
        payload=Payload.of(b"{}"),
    )
    return Sealed(fact, 1, b"")


async def test_a_fact_wakes_the_followers_of_its_session():
    feed = LiveFeed()
    with feed.watch("one") as first, feed.watch("one") as second:
        feed.announce([sealed("one")])

        assert [await first.wait(1), await second.wait(1)] == [[], []]


async def test_a_fact_elsewhere_wakes_nobody():
    feed = LiveFeed()
    with feed.watch("one") as watch:
        feed.announce([sealed("two")])

        assert await watch.wait(0.01) is None


async def test_a_wake_up_before_the_waiting_is_not_lost():
    feed = LiveFeed()
    with feed.watch("one") as watch:
        waiting = asyncio.create_task(watch.wait(5))
        await asyncio.sleep(0)
        feed.announce([sealed("one"), sealed("one")])

        assert await waiting == []


async def test_a_wake_up_counts_once():
    feed = LiveFeed()
    with feed.watch("one") as watch:
        feed.announce([sealed("one")])
        await watch.wait(1)

        assert await watch.wait(0.01) is None


async def test_deltas_come_once_and_in_order():
    feed = LiveFeed()
    with feed.watch("one") as watch:
        for number in range(3):
            feed.delta("one", Delta("evt_1", number))

        assert await watch.wait(1) == [Delta("evt_1", number) for number in range(3)]
        assert await watch.wait(0.01) is None


async def test_deltas_of_another_session_do_not_come():
    feed = LiveFeed()
    with feed.watch("one") as watch:
        feed.delta("two", Delta("evt_1", 1))

        assert await watch.wait(0.01) is None


async def test_a_reader_far_behind_loses_the_oldest_deltas():
    feed = LiveFeed()
    with feed.watch("one") as watch:
        for number in range(1500):
            feed.delta("one", Delta("evt_1", number))

        kept = await watch.wait(1)

    assert kept is not None
    assert [delta.data for delta in kept] == list(range(500, 1500))


async def test_who_has_stopped_following_is_forgotten():
    feed = LiveFeed()
    with feed.watch("one") as first:
        with feed.watch("one"):
            pass
        feed.announce([sealed("one")])
        still = await first.wait(1)

    feed.announce([sealed("one")])
    feed.delta("one", Delta("evt_1", 1))
    assert still == []
    assert await first.wait(0.01) is None
