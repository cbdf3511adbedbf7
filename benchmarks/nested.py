"""What an operation inside another one costs, one after the other: two commits, the start and the end.

In turn with it the rows of one fact are added by the bare driver, a transaction for each (`floors`), and, where the package
is installed, steps of DBOS run that do nothing (`durable`).
"""

import asyncio
import importlib.util
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvloop
from tests.fakes.postgres import Postgres, running_postgres

from benchmarks.figures import Row, Sample, Series, ratio, ratio_by_cpu
from benchmarks.stores import postgres_floor, sqlite_floor
from casekeeper.acl import Effect
from casekeeper.casefiles.commands import CreateCasefile
from casekeeper.execution.service import Execute
from casekeeper.journal.requests import Ask
from casekeeper.operations.context import MDSContext
from casekeeper.operations.operation import ToolCall
from casekeeper.operations.tools import tool
from casekeeper.server import open_server
from casekeeper.settings import Settings

CALLS = 100
"""In a chain."""
_AIM = 1.5
"""How many steps of DBOS a nested call may take."""

Chain = Callable[[], Awaitable[tuple[float, float]]]
"""Runs a chain; seconds, and seconds of processor time."""


@tool(effects={Effect.READ}, limit=0)
async def noop(call: MDSContext) -> dict[str, bool]:
    """Does nothing."""
    return {"done": True}


@tool(effects={Effect.READ}, limit=0)
async def chain(call: MDSContext, count: int) -> int:
    """Calls it so many times, one after the other."""
    inner = ToolCall(operation_type="tool", tool_name="noop")
    for number in range(count):
        await call.invoke(inner, call_id=f"call_{number}")
    return count


def nested(folder: Path, rounds: int) -> list[Row]:
    """On both stores, in turn."""
    # Tests do without; here an acknowledgement is to mean that it is on disk.
    with running_postgres("fsync=on", on_disk=True) as server:
        return uvloop.run(_measured(server, folder, rounds))


async def _measured(postgres: Postgres, folder: Path, rounds: int) -> list[Row]:
    folder.mkdir()
    async with AsyncExitStack() as stack:
        ways: dict[str, Chain] = {}
        _, bare = await stack.enter_async_context(sqlite_floor(folder / "floor"))
        ways["SQLite, floor"] = _each(bare.add)
        _, bare = await stack.enter_async_context(postgres_floor(await postgres.make(), folder / "floors"))
        ways["PostgreSQL, floor"] = _each(bare.add)
        for name, store in (("SQLite", ""), ("PostgreSQL", await postgres.migrated())):
            ways[f"{name}, nested"] = await stack.enter_async_context(_calls(store, folder / name))
        if importlib.util.find_spec("dbos"):
            for name, url in (
                ("SQLite", f"sqlite:///{folder}/dbos.db"),
                ("PostgreSQL", await postgres.make()),
            ):
                ways[f"{name}, dbos"] = stack.enter_context(_steps(url))
        series = {name: Series() for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                took_s, cpu_s = await way()
                # The first round warms up.
                if number:
                    each_ms = took_s * 1000 / CALLS
                    series[name].samples.append(Sample(CALLS / took_s, each_ms, each_ms, cpu_s * 1e6 / CALLS))
    return [row for name in ("SQLite", "PostgreSQL") for row in _rows(name, series)]


def _rows(name: str, series: dict[str, Series]) -> list[Row]:
    calls, floor, dbos = (series.get(f"{name}, {kind}") for kind in ("nested", "floor", "dbos"))
    assert calls
    assert floor
    rows = [
        Row(f"{name}, a fact's rows, bare driver", _figure(floor)),
        Row(f"{name}, nested call", _figure(calls), *_slower(calls, floor), "floor (time)"),
    ]
    if dbos:
        aim = _AIM if name == "PostgreSQL" else None
        rows += [
            Row(f"{name}, step of bare DBOS", _figure(dbos)),
            Row(f"{name}, nested call", "", *_slower(calls, dbos), "DBOS (time)", aim, at_least=False),
        ]
    return rows


def _slower(ours: Series, theirs: Series) -> tuple[float, float, tuple[float, float]]:
    """How much more time it takes, and how much more processor time."""
    more, spread = ratio(theirs, ours)
    return more, ratio_by_cpu(theirs, ours), spread


def _figure(series: Series) -> str:
    wall_ms, cpu_ms = series.median(lambda s: s.p50_ms), series.median(lambda s: s.cpu_us) / 1000
    fastest = min(sample.p50_ms for sample in series.samples)
    return f"{wall_ms:.2f} ms (fastest round {fastest:.2f})  cpu {cpu_ms:.2f} ms"


def _each(add: Callable[[int], Awaitable[object]]) -> Chain:
    async def run() -> None:
        for _ in range(CALLS):
            await add(0)

    return lambda: _timed(run)


@asynccontextmanager
async def _calls(store: str, data: Path) -> AsyncGenerator[Chain]:
    """An operation that calls another again and again, on a server of its own."""
    settings = Settings(data=data, store=store, limit_user=0, limit_casefile=0)
    async with open_server(settings, tools=[noop, chain]) as server:
        token = (await server.identity.logins.mint_for(settings.operator)).access_token
        caller = await server.identity.authenticator.authenticate(token)
        made, _ = await server.casefiles.commands.create(
            caller, CreateCasefile(title="Nested"), Ask(caller.user_id, "bench", "bench-nested")
        )
        operation = ToolCall(operation_type="tool", tool_name="chain", parameters={"count": CALLS})
        command = Execute(casefile_id=made.casefile_id, operation=operation)

        async def run() -> None:
            ask = Ask(caller.user_id, "bench", secrets.token_hex(8))
            ended, _ = await server.execution.sessions.execute_operation(caller, command, ask)
            if not ended.success:
                raise RuntimeError(f"the chain ended otherwise: {ended}")

        yield lambda: _timed(run)


async def _timed(run: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    await run()
    return time.perf_counter() - began, time.process_time() - cpu


@contextmanager
def _steps(url: str) -> Generator[Chain]:
    """DBOS in a process of its own."""
    address = url.replace("postgresql:", "postgresql+psycopg:")
    command = [sys.executable, "-m", "benchmarks.durable", address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        said: Any = process.stdout
        asked: Any = process.stdin
        if said.readline().strip() != "ready":
            raise RuntimeError("DBOS does not start")

        async def run() -> tuple[float, float]:
            print(CALLS, file=asked, flush=True)
            took, cpu = (await asyncio.to_thread(said.readline)).split()
            return float(took), float(cpu)

        try:
            yield run
        finally:
            asked.close()
            process.wait()
