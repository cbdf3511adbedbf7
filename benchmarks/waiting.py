"""What ten thousand operations that wait cost a server that has nothing else to do, on SQLite and PostgreSQL."""

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from tests.contract.shelf import Shelf
from tests.fakes.postgres import running_postgres

from benchmarks.figures import Row
from benchmarks.machinery import cpu_seconds, free_port, start_product, wait_for
from casekeeper.clock import utc_now
from casekeeper.journal.commits import Commit
from casekeeper.journal.operations import NOBODY, Held, OpenOperation, Snapshot, WaitingFor
from casekeeper.storage.opening import open_storage

ROWS = 10_000
IDLE_S = 30.0
# What a start leaves behind is done by then.
_SETTLED_S = 5.0
_AT_ONCE = 500
_SNAPSHOT = '{"step":"%s"}' % ("x" * 1_000)


@dataclass(frozen=True)
class _Idle:
    """A server at rest: of a processor, in per cent; resident, in MiB."""

    cpu: float
    rss_mib: float


def waiting(folder: Path) -> list[Row]:
    """The same server with and without them; each waits for an approval that lapses within days, so each has its time."""
    rows = _compared("SQLite", folder / "sqlite", "")
    with running_postgres() as server:
        store = asyncio.run(server.migrated())
        return rows + _compared("PostgreSQL", folder / "postgres", store)


def _compared(name: str, data: Path, store: str) -> list[Row]:
    # The first start makes keys and tables.
    _idle(data, store, 0)
    without = _idle(data, store, IDLE_S)
    asyncio.run(_fill(data, store))
    filled = _idle(data, store, IDLE_S)
    cpu, rss_mib = filled.cpu - without.cpu, filled.rss_mib - without.rss_mib
    return [
        Row(
            f"{name}, {ROWS:,} waiting, processor",
            f"{cpu:+.2f} % of a core  ({without.cpu:.2f} % without)",
            against="%",
            aim=1,
            at_least=False,
            measured=cpu,
        ),
        Row(
            f"{name}, {ROWS:,} waiting, memory",
            f"{rss_mib:+.1f} MiB  ({without.rss_mib:.0f} MiB without)",
            against="MiB",
            aim=10,
            at_least=False,
            measured=rss_mib,
        ),
    ]


def _idle(data: Path, store: str, seconds: float) -> _Idle:
    running = start_product(data, free_port(), store=store)
    try:
        wait_for(running.port, running.started_at)
        if not seconds:
            return _Idle(0, 0)
        time.sleep(_SETTLED_S)
        before, began = cpu_seconds(running.process.pid), time.perf_counter()
        time.sleep(seconds)
        used, took = cpu_seconds(running.process.pid) - before, time.perf_counter() - began
        return _Idle(100 * used / took, running.rss_mib())
    finally:
        running.stop()


async def _fill(data: Path, store: str) -> None:
    async with open_storage(store, data, lambda _: None) as storage:
        shelf = await Shelf.filled(storage)
        for start in range(0, ROWS, _AT_ONCE):
            commits = (_waits(shelf, number) for number in range(start, start + _AT_ONCE))
            await asyncio.gather(*(storage.commits.commit(commit) for commit in commits))


def _waits(shelf: Shelf, number: int) -> Commit:
    """An operation that waits for an approval."""
    now = utc_now()
    until = now + timedelta(hours=1, seconds=20 * number)
    commit = shelf.opening(shelf.started("gmail_send"), owner=NOBODY)
    [row] = [record for record in commit.records if isinstance(record, OpenOperation)]
    held = Held(
        depth=0,
        left=timedelta(seconds=60),
        since=now,
        waiting_for=(WaitingFor("approval", f"apr_{number}", until),),
        snapshot=Snapshot(1, _SNAPSHOT),
    )
    return replace(commit, records=(replace(row, state="waiting", wake_at=until, held=held),))
