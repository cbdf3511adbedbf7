"""Where it rains: three servers on one PostgreSQL and one Redis, two of them with a wall clock two hours off, and faults."""

import asyncio
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests.fakes.postgres import running_postgres, selected
from tests.fakes.redis import Redis, running_redis
from tests.journeys import skewed
from tests.journeys.deployed import Deployed, deployed
from tests.journeys.rain_record import OPTION

CLOCKS_OFF_S = (0, 7200, -7200)
_PAUSE_S = 1.0
# By then connections that were cut have been made again.
_MENDED_S = 3.0
_LISTENS = "query ILIKE 'LISTEN %'"
_CUT = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'casekeeper' AND datname = current_database()"""


@dataclass
class Site:
    """The servers and what they share."""

    workers: Sequence[Deployed]
    store: str
    redis: Redis
    logs: Sequence[Path]

    def said(self) -> list[str]:
        """What the servers have logged."""
        return [line for log in self.logs for line in log.read_text().splitlines()]


@asynccontextmanager
async def open_site(directory: Path, plant: str = "") -> AsyncGenerator[Site]:
    """Three workers; `plant` names a fault of ours that is planted in each (see `rain_plants.py`)."""
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(running_postgres(OPTION))
        redis = stack.enter_context(running_redis())
        store = await postgres.migrated()
        settings = {
            "store": store,
            "redis": redis.url,
            "blobs": "database",
            "limit_user": "0",
            "limit_casefile": "0",
            "processes": str(len(CLOCKS_OFF_S)),
        }
        logs = [directory / f"{number}.log" for number in range(len(CLOCKS_OFF_S))]

        async def start(number: int) -> Deployed:
            program = ("-m", skewed.__name__, str(CLOCKS_OFF_S[number]), plant)
            one = deployed(directory / str(number), program=program, log=logs[number], **settings)
            return await stack.enter_async_context(one)

        first = await start(0)
        others = range(1, len(CLOCKS_OFF_S))
        for number in others:
            (directory / str(number)).mkdir()
            shutil.copytree(first.data / "keys", directory / str(number) / "keys")
            shutil.copy(first.data / "password", directory / str(number))
        yield Site([first, *[await start(number) for number in others]], store, redis, logs)


@dataclass
class Storm:
    """Faults, one after the other, all of them before any comes again."""

    site: Site
    rng: random.Random
    calm_s: tuple[float, float]
    told: Counter[str] = field(default_factory=Counter[str])
    excuses: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    def excuses_refusal(self, sent: float, answered: float) -> bool:
        """Whether a 503 may have come of a fault: only the store's absence is one."""
        return any(begin < answered and sent < end for begin, end in self.excuses)

    def __post_init__(self) -> None:
        self._faults = [
            self.redis_restarted,
            self.pubsub_killed,
            self.listeners_cut,
            self.worker_stopped,
            self.store_connections_cut,
        ]
        self.kinds = len(self._faults)

    async def rage(self) -> None:
        """Until cancelled."""
        while True:
            self.rng.shuffle(self._faults)
            for fault in self._faults:
                await asyncio.sleep(self.rng.uniform(*self.calm_s))
                self.told[fault.__name__.replace("_", " ")] += 1
                await fault()

    async def redis_restarted(self) -> None:
        """Redis dies, and comes back empty."""
        self.site.redis.kill()
        await asyncio.sleep(self.rng.uniform(0.2, 1.5))
        await asyncio.to_thread(self.site.redis.start)

    async def pubsub_killed(self) -> None:
        """Redis throws out all who listen."""
        host, port = "127.0.0.1", int(self.site.redis.url.rpartition(":")[2].partition("/")[0])
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"CLIENT KILL TYPE pubsub\r\n")
        await reader.readline()
        writer.close()

    async def listeners_cut(self) -> None:
        """PostgreSQL throws out all who listen."""
        await selected(self.site.store, f"{_CUT} AND {_LISTENS}")

    async def store_connections_cut(self) -> None:
        """PostgreSQL throws out everybody; what was under way is answered 503."""
        began = monotonic()
        self.excuses.append((began, began + _MENDED_S))
        await selected(self.site.store, _CUT)
        self.excuses[-1] = (began, monotonic() + _MENDED_S)

    async def worker_stopped(self) -> None:
        """A worker stands still for a second."""
        worker = self.rng.choice(self.site.workers)
        os.kill(worker.process.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(_PAUSE_S)
        finally:
            os.kill(worker.process.pid, signal.SIGCONT)
