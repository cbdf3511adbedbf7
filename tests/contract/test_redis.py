"""What Redis brings to several processes, and that they lose no more than that with it."""

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis.asyncio

from casekeeper.acl import Effect
from casekeeper.acl_feed import Change, Pushes
from casekeeper.errors import RateLimited
from casekeeper.execution.rate_limits import Count, Limits, Rates
from casekeeper.journal.events import Fact, Kind, Payload, Sealed
from casekeeper.journal.feed import LiveFeed
from casekeeper.operations.context import MDSContext
from casekeeper.operations.tools import tool
from casekeeper.storage.bus.redis_bus import RedisBus
from tests.fakes.redis import Redis, redis_url, running_redis
from tests.support import NOON, SteppableClock

pytestmark = pytest.mark.timeout(90)

_driver: Any = redis.asyncio


def sealed_in(session_id: str) -> Sealed:
    fact = Fact(
        casefile_id="cf_1",
        session_id=session_id,
        event_id="evt_1",
        kind=Kind.OPENED,
        actor="usr_1",
        started_at=NOON,
        payload=Payload.of(b"{}"),
    )
    return Sealed(fact, 1, b"")


@tool(effects={Effect.READ})
async def work(call: MDSContext) -> None:
    """Something to be counted."""


@dataclass
class Worker:
    """What one process has of it."""

    limits: Limits
    helper: RedisBus
    live: LiveFeed
    pushes: Pushes
    heard: list[Change] = field(default_factory=list[Change])

    async def spent(self, tries: int, *, user: str = "anna", at_once: int = 20) -> int:
        """How many of so many tries get through."""
        left = iter(range(tries))

        async def caller() -> int:
            got = 0
            for _ in left:
                try:
                    await self.limits.spend(user, "cf_1", work)
                    got += 1
                except RateLimited:
                    await asyncio.sleep(0.002)
                await asyncio.sleep(0)
            return got

        return sum(await asyncio.gather(*(caller() for _ in range(at_once))))

    async def until(self, *, up: bool, settled: bool = False) -> None:
        """Return when Redis is there, or known to be away."""
        async with asyncio.timeout(30):
            while self.helper.is_up != up or (settled and not self.helper.is_settled):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def workers(
    url: str,
    count: int,
    *rates: Any,
    clock: SteppableClock | None = None,
    epoch: str = "e",
    patience_s: float | None = 10,
) -> AsyncGenerator[list[Worker]]:
    """So many processes on one store, as far as Redis goes.

    `patience_s`: after how long they do without it; None is what servers do, and does not wait for it at the start either. A
    busy machine may be slow to answer, which is no matter of most tests.
    """
    waits = () if patience_s is None else (patience_s, patience_s)
    clock = clock or SteppableClock(NOON + timedelta(seconds=20))
    async with AsyncExitStack() as stack:
        made: list[Worker] = []
        for number in range(count):
            live, pushes = LiveFeed(), Pushes()
            helper = RedisBus(url, f"worker-{number}", live, pushes, *waits)
            limits = Limits(Rates(*rates), clock, processes=count, shared=helper)
            worker = Worker(limits, helper, live, pushes)
            pushes.listen(worker.heard.extend)
            await stack.enter_async_context(helper.running(epoch, limits.known))
            made.append(worker)
        for worker in made if waits else ():
            await worker.until(up=True, settled=True)
        yield made


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    with redis_url() as address:
        yield address


@pytest.fixture
def own() -> Generator[Redis]:
    with running_redis() as server:
        yield server


@pytest.fixture
def epoch(request: pytest.FixtureRequest) -> str:
    """A store that no other test has."""
    return f"{request.node.name}-{id(request)}"


async def everybody(team: Sequence[Worker], tries: int, **more: Any) -> int:
    """How many get through at all of them together."""
    return sum(await asyncio.gather(*(worker.spent(tries, **more) for worker in team)))


@pytest.mark.parametrize("amount", [1, 10, 149, 600])
async def test_all_together_keep_a_limit_exactly(url: str, epoch: str, amount: int):
    async with workers(url, 3, amount, epoch=epoch) as team:
        assert await everybody(team, 300) == amount


async def test_one_alone_may_take_all(url: str, epoch: str):
    async with workers(url, 3, 600, epoch=epoch) as [one, *others]:
        assert await one.spent(1000) == 600
        assert await everybody(others, 100) == 0


async def test_a_refusal_by_one_limit_takes_nothing_from_another(url: str, epoch: str):
    async with workers(url, 2, 20, 5, epoch=epoch) as [one, other]:
        assert await one.spent(50) == 5
        assert await other.spent(20) == 0
        quotas = await other.limits.spend("anna", "cf_2", work)

        assert [(q.name, q.left) for q in quotas] == [("user", 14), ("casefile", 4)]


async def test_what_redis_forgets_while_it_is_used_is_told_with_the_next_operation(url: str, epoch: str):
    async with workers(url, 2, 100, epoch=epoch) as [one, other]:
        assert await one.spent(60) == 60
        async with _driver.from_url(url) as operator:
            for key in await operator.keys(f"casekeeper:{epoch}:*"):
                await operator.delete(key)
        assert await one.spent(1) == 1

        assert await other.spent(100) == 39


async def test_the_minute_slides_for_all(url: str, epoch: str):
    clock = SteppableClock(NOON + timedelta(seconds=30))
    async with workers(url, 2, 98, clock=clock, epoch=epoch) as team:
        taken = [await everybody(team, 100)]
        for pause_s in (60, 180):
            clock.step(seconds=pause_s)
            taken.append(await everybody(team, 100))

    assert taken == [98, 49, 98]


async def test_other_stores_and_other_users_share_nothing(url: str, epoch: str):
    async with workers(url, 1, 10, epoch=epoch) as [one], workers(url, 1, 10, epoch=epoch + "2") as [two]:
        taken = [await one.spent(20), await two.spent(20), await one.spent(20, user="ben")]

    assert taken == [10, 10, 10]


async def test_names_of_users_stay_out_of_redis(url: str, epoch: str):
    async with workers(url, 1, 10, epoch=epoch) as [one]:
        await one.spent(20, user="anna@example.com")
        async with _driver.from_url(url) as operator:
            keys = await operator.keys(f"casekeeper:{epoch}:*")

    assert keys
    assert not any(b"anna" in key for key in keys)


async def test_losing_redis_under_load_refuses_nobody_and_lets_nobody_exceed(own: Redis):
    clock = SteppableClock(NOON + timedelta(seconds=20))
    async with workers(own.url, 2, 2000, clock=clock) as team:
        got = await everybody(team, 300)
        load = asyncio.ensure_future(everybody(team, 400))
        own.kill()
        got += await load
        for worker in team:
            await worker.until(up=False)
        # Each has a part of its own, and knows what the other had taken.
        got += await everybody(team, 3000)
        assert 0.95 * 2000 <= got <= 1.05 * 2000

        own.start()
        load = asyncio.ensure_future(everybody(team, 2000))
        for worker in team:
            await worker.until(up=True, settled=True)
        got += await load
        got += await everybody(team, 500)
        assert got <= 1.05 * 2000

        clock.step(minutes=3)
        assert 0.95 * 2000 <= await everybody(team, 3000) <= 1.05 * 2000


async def test_whoever_comes_after_a_loss_hears_of_what_was_before_it(own: Redis):
    async with workers(own.url, 1, 100) as [one]:
        assert await one.spent(80) == 80
        own.kill()
        await one.until(up=False)
        own.start()
        await one.until(up=True, settled=True)
        async with workers(own.url, 2, 100) as [same, late]:
            # It has the name of the first one, so it says nothing of its own.
            assert same.helper.is_up
            assert await late.spent(100) == 20


async def test_without_redis_each_has_its_part_from_the_start(own: Redis, caplog: pytest.LogCaptureFixture):
    own.kill()
    async with workers(own.url, 4, 100, patience_s=None) as team:
        assert not any(worker.helper.is_up for worker in team)
        assert await everybody(team, 100) == 100
        assert [r.levelno for r in caplog.records if r.name == "casekeeper.redis"] == [logging.WARNING] * 4
        own.start()
        for worker in team:
            await worker.until(up=True, settled=True)
        said = [r.getMessage() for r in caplog.records if r.name == "casekeeper.redis"]
        assert sum(line.endswith("is back") for line in said) == 4


async def test_a_redis_that_hangs_holds_nobody_up(own: Redis):
    async with workers(own.url, 2, 10, patience_s=None) as team:
        own.signal(signal.SIGSTOP)
        assert await everybody(team, 50) == 10
        for worker in team:
            await worker.until(up=False)
        own.signal(signal.SIGCONT)
        for worker in team:
            await worker.until(up=True)


async def test_a_wrong_password_is_told_of_and_stops_nobody(caplog: pytest.LogCaptureFixture):
    with running_redis("--requirepass", "right") as server:
        place = urlsplit(server.url).netloc
        async with workers(f"redis://:wrong-secret@{place}", 1, 10, patience_s=None) as [one]:
            assert not one.helper.is_up
            assert await one.spent(20) == 10
            [said] = [r.getMessage() for r in caplog.records if r.name == "casekeeper.redis"]
            assert place in said
            assert "wrong-secret" not in said
            async with _driver.from_url(f"redis://:right@{place}") as operator:
                await operator.config_set("requirepass", "wrong-secret")
            await one.until(up=True)


async def test_a_change_at_one_is_heard_at_the_others_once(url: str, epoch: str):
    async with workers(url, 3, epoch=epoch) as team:
        team[0].helper.push([Change(7, "cf_1", "anna"), Change(8, "*", "ben")])
        async with asyncio.timeout(10):
            while not all(worker.heard for worker in team):
                await asyncio.sleep(0.005)
        team[1].helper.push([Change(9, "cf_2", "*")])
        async with asyncio.timeout(10):
            while not all(len(worker.heard) >= 3 for worker in team):
                await asyncio.sleep(0.005)

        assert [[c.number for c in worker.heard] for worker in team] == [[7, 8, 9]] * 3


async def test_what_is_written_at_one_wakes_a_follower_at_another(url: str, epoch: str):
    async with workers(url, 2, epoch=epoch) as [one, other]:
        with other.live.watch("ts_1") as followed, other.live.watch("ts_2") as quiet:
            one.helper.announce([sealed_in("ts_1")])
            assert await followed.wait(30) == []
            assert await quiet.wait(0) is None


async def test_a_subscription_that_is_cut_comes_back(url: str, epoch: str):
    async with workers(url, 2, epoch=epoch) as [one, other]:
        async with _driver.from_url(url) as operator:
            await operator.client_kill_filter(_type="pubsub")
        async with asyncio.timeout(30):
            while not other.heard:
                one.helper.push([Change(1, "cf_1", "anna")])
                await asyncio.sleep(0.05)


async def test_what_is_no_news_is_passed_over(url: str, epoch: str):
    async with workers(url, 1, epoch=epoch) as [one]:
        async with _driver.from_url(url) as stranger:
            for word in (
                b"\xff",
                b"[]",
                b"{}",
                b'{"sender": "x", "sessions": [], "changes": [[1e999, "cf_1", "anna"]]}',
            ):
                assert await stranger.publish(f"casekeeper:{epoch}:news", word) == 1
            good = b'{"sender": "x", "sessions": [], "changes": [[3, "cf_1", "anna"]]}'
            await stranger.publish(f"casekeeper:{epoch}:news", good)
        async with asyncio.timeout(10):
            while not one.heard:
                await asyncio.sleep(0.005)

    assert one.heard == [Change(3, "cf_1", "anna")]


async def test_what_was_changed_just_before_the_end_is_still_told(url: str, epoch: str):
    async with workers(url, 1, epoch=epoch) as [one]:
        async with workers(url, 1, epoch=epoch) as [_]:
            pass
        leaving = RedisBus(url, "leaving", LiveFeed(), Pushes())
        async with leaving.running(epoch, list[Count]):
            leaving.push([Change(4, "cf_1", "anna")])
        async with asyncio.timeout(10):
            while not one.heard:
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("address", ["http://localhost", "localhost:6379", "redis://", "redis://host:port"])
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(ValueError):
        RedisBus(address, "worker", LiveFeed(), Pushes())
