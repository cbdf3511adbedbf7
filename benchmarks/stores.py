"""The stores themselves, without a server: appends against the least that their driver can do, and reads that must not grow.

In turn with each store the same number of producers adds the same rows to the same tables by hand-made group commit on the
bare driver (`floors`). No baseline is made for Firestore: an emulator says nothing about it.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import asyncpg
from tests.contract.shelf import OWNER, Shelf
from tests.fakes.postgres import running_postgres

from benchmarks.figures import Row, Sample, Series, figure, ratio, ratio_by_cpu
from benchmarks.floors import Copies, PostgresFloor, SqliteFloor
from benchmarks.workers import workers
from casekeeper.clock import utc_now
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.sessions.reading import EventPage
from casekeeper.storage.opening import open_storage
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.postgres.opening import migrate_postgres

_PRODUCERS = 64
_EVENTS = (10, 1_000, 10_000)
_CASEFILES = (3, 100, 1_000)
_READS = 200
# Of the floor on PostgreSQL.
_WRITERS = 2
_AIMS = {"SQLite": 0.6, "PostgreSQL": 0.5}
# It comes without types.
_driver: Any = asyncpg

Add = Callable[[int], Awaitable[object]]
Settle = Callable[[], Awaitable[None]]


def stores(folder: Path, rounds: int, seconds: float) -> list[Row]:
    """SQLite and PostgreSQL."""
    rows = asyncio.run(_sqlite(folder, rounds, seconds))
    # Tests do without; here an acknowledgement is to mean that it is on disk.
    with running_postgres("fsync=on", on_disk=True) as server:
        rows += asyncio.run(_postgres(server.url, folder, rounds, seconds))
        return rows + workers(server, folder, rounds, seconds)


async def _sqlite(folder: Path, rounds: int, seconds: float) -> list[Row]:
    async with sqlite_floor(folder) as (shelf, floor):
        return await _measured("SQLite", shelf, floor.add, rounds, seconds)


@asynccontextmanager
async def sqlite_floor(folder: Path) -> AsyncGenerator[tuple[Shelf, SqliteFloor]]:
    """A store in this folder, which is made, and the bare driver beside it."""
    folder.mkdir()
    async with _shelf("", folder / "data") as shelf:
        path = folder / "data" / "casekeeper.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            copies = await _copies(shelf, lambda sql: _done([dict(row) for row in connection.execute(sql)]))
        floor = SqliteFloor(path, copies)
        try:
            yield shelf, floor
        finally:
            floor.close()


async def _postgres(url: str, folder: Path, rounds: int, seconds: float) -> list[Row]:
    async with postgres_floor(url, folder) as (shelf, floor):

        async def settle() -> None:
            # What autovacuum does within a minute; without it the planner knows nothing of tables that were just filled.
            connection = await _driver.connect(url)
            await connection.execute("VACUUM ANALYZE")
            await connection.close()

        return await _measured("PostgreSQL", shelf, floor.add, rounds, seconds, settle)


@asynccontextmanager
async def postgres_floor(url: str, folder: Path) -> AsyncGenerator[tuple[Shelf, PostgresFloor]]:
    """A store in this database, and the bare driver beside it."""
    await migrate_postgres(url, StoreLimits())
    connections: list[Any] = [await _driver.connect(url) for _ in range(_WRITERS)]
    try:
        async with _shelf(url, folder / "postgres") as shelf:
            yield shelf, PostgresFloor(connections, await _copies(shelf, connections[0].fetch))
    finally:
        for connection in connections:
            await connection.close()


async def _copies(shelf: Shelf, read: Callable[[str], Awaitable[list[Any]]]) -> Copies:
    """The rows of a fact like those that are appended, for sessions of the floor's own."""
    sessions = [(await shelf.session()).session_id for _ in range(_PRODUCERS)]
    await shelf.commit(Commit((shelf.fact(Kind.DENIED),)))
    event, payload = [
        dict((await read(f"SELECT * FROM {table} WHERE session_id = '{shelf.session_id}' ORDER BY seq"))[-1])
        for table in ("events", "payloads")
    ]
    return Copies(event, payload, sessions)


@asynccontextmanager
async def _shelf(address: str, data: Path) -> AsyncGenerator[Shelf]:
    async with open_storage(address, data, lambda _: None) as storage:
        yield await Shelf.filled(storage)


async def _nothing() -> None:
    pass


async def _done(rows: list[Any]) -> list[Any]:
    return rows


async def _measured(
    name: str,
    shelf: Shelf,
    raw: Add,
    rounds: int,
    seconds: float,
    settle: Settle = _nothing,
) -> list[Row]:
    sessions = [(await shelf.session()).session_id for _ in range(_PRODUCERS)]

    async def append(number: int) -> None:
        await shelf.commit(Commit((shelf.fact(Kind.DENIED, sessions[number]),)))

    async def operate(number: int) -> None:
        await shelf.operation(session_id=sessions[number])

    series = {what: Series() for what in ("raw", "append", "operate")}
    for _ in range(rounds):
        for what, add in (("raw", raw), ("append", append), ("operate", operate)):
            series[what].samples.append(await _slice(add, _PRODUCERS, seconds))
    one, spread = ratio(series["append"], series["raw"])
    by_cpu = ratio_by_cpu(series["append"], series["raw"])
    rows = [
        Row(f"{name}, the same rows, bare driver @{_PRODUCERS}", figure(series["raw"])),
        Row(
            f"{name}, appends @{_PRODUCERS}",
            figure(series["append"]),
            one,
            by_cpu,
            spread,
            "bare",
            _AIMS[name],
        ),
    ]
    two, spread = ratio(series["operate"], series["raw"])
    rows.append(
        Row(
            f"{name}, start and end @{_PRODUCERS}",
            figure(series["operate"]),
            two,
            spread=spread,
            against="bare",
        )
    )
    return [*rows, *await _events(name, shelf, settle), *await _casefiles(name, shelf, settle)]


async def _slice(add: Add, producers: int, seconds: float) -> Sample:
    """How fast so many producers add, each waiting for its own."""
    took: list[float] = []
    ends = time.perf_counter() + seconds

    async def produce(number: int) -> None:
        while (before := time.perf_counter()) < ends:
            await add(number)
            took.append(time.perf_counter() - before)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(produce(number) for number in range(producers)))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return _sample(took, seconds, cpu)


async def _events(name: str, shelf: Shelf, settle: Settle) -> list[Row]:
    """A page of ten facts out of short and long sessions."""
    filled = {size: (await shelf.session()).session_id for size in _EVENTS}
    for size, session_id in filled.items():
        for start in range(1, size, 1_000):
            some = [shelf.fact(Kind.DENIED, session_id) for _ in range(min(1_000, size - start))]
            await asyncio.gather(*(shelf.commit(Commit((fact,))) for fact in some))
    await settle()
    page = EventPage.model_validate({"view": "journal"})

    async def read(size: int) -> object:
        return await shelf.storage.events.facts(filled[size], page, None, 10)

    return await _growth(f"{name}, get in {{:,}} events", read, _EVENTS)


async def _casefiles(name: str, shelf: Shelf, settle: Settle) -> list[Row]:
    """A page of three out of few and many casefiles."""
    many = iter(range(100_000))
    have = 1

    async def fill(size: int) -> None:
        nonlocal have
        for _ in range(size - have):
            await shelf.casefile(f"cf_260301_{next(many):06x}")
        have = size
        await settle()

    async def read(size: int) -> object:
        return await shelf.storage.casefiles.casefiles_of(OWNER, utc_now(), None, None, 3)

    return await _growth(f"{name}, list of {{:,}} casefiles", read, _CASEFILES, fill)


async def _growth(
    name: str, read: Add, sizes: tuple[int, ...], fill: Callable[[int], Awaitable[None]] | None = None
) -> list[Row]:
    rows: list[Row] = []
    small: float | None = None
    for size in sizes:
        if fill:
            await fill(size)
        took: list[float] = []
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(_READS):
            before = time.perf_counter()
            await read(size)
            took.append(time.perf_counter() - before)
        sample = _sample(took, time.perf_counter() - began, time.process_time() - cpu)
        told = figure(Series([sample]))
        if small is None:
            small = sample.p50_ms
            rows.append(Row(name.format(size), told))
        else:
            more = sample.p50_ms / small
            rows.append(
                Row(name.format(size), told, more, against=f"{sizes[0]} (time)", aim=2.0, at_least=False)
            )
    return rows


def _sample(took: list[float], seconds: float, cpu: float) -> Sample:
    took.sort()
    p50, p99 = (took[min(len(took) - 1, int(part * len(took)))] * 1000 for part in (0.5, 0.99))
    return Sample(len(took) / seconds, p50, p99, cpu / len(took) * 1e6)
