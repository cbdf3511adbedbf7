"""The steps of bare DBOS, in a process of their own: `python -m benchmarks.durable URL`.

For each line read it runs a workflow of so many steps that do nothing, one after the other, and prints how many seconds that
took, and how many of processor time.
"""

import asyncio
import importlib
import sys
import time
from typing import Any

import uvloop
from sqlalchemy import create_engine, event


def main() -> None:
    """Answer until nothing more is asked."""
    # No dependency of casekeeper's: whoever wants to compare installs it.
    it: Any = importlib.import_module("dbos")
    url = sys.argv[1]
    config: dict[str, Any] = {"name": "floor", "log_level": "ERROR", "system_database_url": url}
    if url.startswith("sqlite"):
        config["system_database_engine"] = _embedded(url)

    @it.DBOS.step(name="step")
    async def step(number: int) -> int:
        return number

    @it.DBOS.workflow(name="chain")
    async def chain(count: int) -> None:
        for number in range(count):
            await step(number)

    async def answer() -> None:
        it.DBOS(config=config)
        it.DBOS.launch()
        loop = asyncio.get_running_loop()
        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            began, cpu = time.perf_counter(), time.process_time()
            await (await it.DBOS.start_workflow_async(chain, int(line))).get_result()
            print(time.perf_counter() - began, time.process_time() - cpu, flush=True)
        it.DBOS.destroy()

    uvloop.run(answer())


def _embedded(url: str) -> Any:
    """As durable as the embedded store."""

    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    engine = create_engine(url)
    event.listen(engine, "connect", connected)
    return engine


if __name__ == "__main__":
    main()
