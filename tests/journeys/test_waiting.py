"""Operations that wait, on every store: their servers are killed, stopped, held up; each goes on elsewhere, once."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.support import Json, soaking
from tests.journeys.waiting import PATIENCE_S, SHARED_STORES, STORES, Site, open_site
from tests.journeys.waiting_record import broken, record_of
from tests.journeys.waiting_tools import RAN

pytestmark = pytest.mark.timeout(7200 if soaking() else 240)

KILLS = 100 if soaking() else 10
CLIENTS = 5
ROWS = 200 if soaking() else 40
# Where a job can lose its process: see `waiting_tools`.
POINTS = ("before-posting", "after-posting", "parking", "going-on", "ending")


@pytest.fixture(params=STORES)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Site]:
    """A store, and no server yet."""
    async with open_site(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture(params=SHARED_STORES)
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Site]:
    """A store on which two servers may be at work."""
    async with open_site(request.param, tmp_path) as opened:
        yield opened


async def state(site: Site, event_id: str) -> tuple[str, list[str]]:
    """How an operation stands, and what it waits for."""
    told = await site.answered("owner", "/v1/operations/get", {"event_id": event_id})
    return told["status"], [one["kind"] for one in told["payload"]["waiting_for"]]


def outputs_of(event_id: str) -> list[str]:
    """What a job says when all of its calls have succeeded."""
    return [f"{event_id}-{step}" if step % 3 < 2 else "rested" for step in range(6)]


# Killed


async def test_what_waits_goes_on_in_another_process_when_its_time_comes_or_it_is_woken(site: Site) -> None:
    first = await site.start()
    for_word = (await site.run("waits"))["event_id"]
    until = (await site.run("waits", {"ms": 1500}))["event_id"]
    await site.kill(first)
    second = await site.start()

    by_time = await site.ended(until)
    meanwhile = await state(site, for_word)
    await site.wake(for_word)
    by_word = await site.ended(for_word)

    went_on = {"attempt": 2, "process": second.pid, "snapshot": "waited"}
    assert (by_time["outputs"], by_word["outputs"]) == (went_on, went_on)
    assert meanwhile == ("pending", ["signal"])
    await site.end()
    assert broken(await record_of(site)) == {}


async def test_what_one_process_wakes_goes_on_though_the_other_that_had_it_is_lost(shared: Site) -> None:
    one, other = await shared.fill()
    waits, soon = [(await shared.run("waits", at=one))["event_id"] for _ in range(2)]

    await shared.wake(soon, at=other)
    told = await shared.ended(soon)
    await shared.kill(one)
    await shared.wake(waits, at=other)
    ended = await shared.ended(waits)

    assert told["outputs"]["attempt"] == 2
    assert ended["outputs"] == {"attempt": 2, "process": other.pid, "snapshot": "waited"}
    await shared.end()
    assert broken(await record_of(shared)) == {}


async def test_a_job_that_loses_its_process_at_any_point_goes_on_from_there(site: Site) -> None:
    site.ask_to_die(*POINTS)
    async with site.kept_up():
        started = [await site.run("job", request_id=f"job-{number}") for number in range(4)]
        ended = [await site.ended(one["event_id"]) for one in started]
    await site.end()

    assert [one["outputs"] for one in ended] == [outputs_of(one["event_id"]) for one in started]
    assert list(site.marks.glob("die-*")) == []
    assert broken(await record_of(site)) == {}


async def test_what_cannot_wait_is_interrupted_after_what_is_inside_it(site: Site) -> None:
    servers = await site.fill()
    made = await site.answered("owner", "/v1/sessions/create", {"casefile_id": site.casefile_id})
    session = {"session_id": made["payload"]["session_id"]}
    inner: list[tuple[str, Json]] = [
        ("posts", {"key": "x", "pause_ms": 600_000}),
        ("waits", {}),
        ("naps", {"ms": 600_000}),
    ]
    for number in range(10):
        for name, parameters in inner:
            call = {
                "name": name,
                "parameters": {**parameters, "key": f"{number}"} if name == "posts" else parameters,
            }
            await site.run("impatient", call, mode="background", at=servers[number % len(servers)], **session)
    async with asyncio.timeout(PATIENCE_S):
        while len((await site.answered("owner", "/v1/sessions/get", session))["payload"]["open"]) < 60:
            await asyncio.sleep(0.05)

    for server in list(servers):
        await site.kill(server)
    await site.fill()
    async with asyncio.timeout(PATIENCE_S):
        while (await site.answered("owner", "/v1/sessions/get", session))["payload"]["open"]:
            await asyncio.sleep(0.05)
    await site.end()

    record = await record_of(site)
    ends = Counter((facts[0]["operation_name"], facts[0]["kind"]) for facts in record.ends.values())
    assert ends == {
        ("impatient", "interrupted"): 30,
        ("posts", "interrupted"): 10,
        ("waits", "cancelled"): 10,
        ("naps", "cancelled"): 10,
    }
    assert broken(record) == {}


@dataclass
class Load:
    """Clients that run jobs until they are told to stop, and what they were told."""

    site: Site
    told: dict[str, Json] = field(default_factory=dict[str, Json])
    stopped: bool = False

    async def client(self, number: int, dice: random.Random) -> None:
        """Runs one job after the other; each is asked for again until there is an answer."""
        turn = 0
        while not self.stopped:
            request_id, parameters = (
                f"client-{number}-{turn}",
                {"pause_ms": dice.choice([0, 5, 20]), "nap_ms": 10},
            )
            told = await self.site.run("job", parameters, request_id=request_id)
            self.told[request_id] = await self.site.ended(told["event_id"])
            turn += 1

    async def more(self, count: int) -> None:
        """Returns when so many more jobs have ended."""
        wanted = len(self.told) + count
        async with asyncio.timeout(PATIENCE_S):
            while len(self.told) < wanted:
                await asyncio.sleep(0.02)

    async def work(self, dice: random.Random) -> None:
        """Returns when all clients have been told to stop, and have."""
        await asyncio.gather(
            *(self.client(number, random.Random(dice.random())) for number in range(CLIENTS))
        )


async def aftermath(site: Site, load: Load) -> dict[str, Any]:
    """What is wrong when the dust has settled."""
    await site.end()
    unlike = [one["error"] for one in load.told.values() if one["outputs"] != outputs_of(one["event_id"])]
    assert unlike == []
    return broken(await record_of(site, load.told))


async def test_kill_nine_at_random_moments_makes_nothing_happen_twice_or_not_at_all(site: Site) -> None:
    # SEED repeats a run's choices; what the machine does in between stays its own.
    seed = int(os.environ.get("SEED", 0)) or random.SystemRandom().randrange(1, 10**9)  # noqa: TID251
    print(f"seed {seed}")  # noqa: T201 - pytest shows it with a failure
    dice, load = random.Random(seed), Load(site)
    async with site.kept_up():
        working = asyncio.create_task(load.work(dice))
        for kills in range(KILLS):
            await asyncio.sleep(dice.uniform(0.0, 0.6))
            if kills % 4 == 3:
                await load.more(CLIENTS)
            if site.kind == "postgresql" and kills % 10 == 2:
                await site.cut()
            elif site.servers:
                dice.choice(site.servers).kill()
        load.stopped = True
        await working

    assert await aftermath(site, load) == {}


async def test_two_processes_that_take_up_the_same_rows_at_once_run_each_of_them_once(shared: Site) -> None:
    servers = await shared.fill()
    parked = await asyncio.gather(*(shared.run("waits", at=servers[number % 2]) for number in range(ROWS)))
    ids = [one["event_id"] for one in parked]

    # Both look for what is due every second, so both know by then at which moment they have to look again.
    await shared.wake(*ids, in_ms=2500)
    ran = await shared.traced(RAN, 2 * ROWS)
    ends = [(await shared.ended(event_id))["outputs"] for event_id in ids]

    assert [one["attempt"] for one in ends] == [2] * ROWS
    assert Counter(event_id for event_id, *_ in ran) == dict.fromkeys(ids, 2)
    await shared.end()
    assert broken(await record_of(shared)) == {}
