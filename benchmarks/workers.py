"""One worker and two on PostgreSQL, over HTTP: what an operation costs in processor time, and how many there are a second."""

import asyncio
import json
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.postgres import Postgres

from benchmarks.figures import Row, Sample, Series, figure, ratio
from benchmarks.load import Job
from benchmarks.machinery import (
    Api,
    Load,
    Running,
    cpu_seconds,
    family,
    free_port,
    http,
    start_product,
    wait_for,
)

_CLIENTS = 32
"""For each worker."""
_MORE = 1.1
"""How much more processor time an operation may cost with two."""
_OPERATION: dict[str, Any] = {"operation_type": "tool", "tool_name": "casefile_summary", "parameters": {}}


@dataclass
class _Site:
    """A server with its workers, and calls that take turns at its sessions."""

    running: Running
    requests: list[str]
    series: Series

    def cpu_seconds(self) -> float:
        return sum(cpu_seconds(pid) for pid in family(self.running.process.pid))


def workers(postgres: Postgres, folder: Path, rounds: int, seconds: float) -> list[Row]:
    """Both on databases of the same server, measured in turn. The load takes processor time of its own, and so does PostgreSQL."""
    load = Load()
    try:
        with ExitStack() as stack:
            sites = {n: stack.enter_context(_site(postgres, folder / f"workers{n}", n)) for n in (1, 2)}
            for _ in range(rounds):
                for site in sites.values():
                    _measure(site, load, max(seconds, 1.0))
    finally:
        load.close()
    one, two = sites[1].series, sites[2].series
    faster, spread = ratio(two, one)
    cost = two.median(lambda s: s.cpu_us) / one.median(lambda s: s.cpu_us)
    return [
        Row(f"PostgreSQL, execute @{_CLIENTS}, one worker", figure(one)),
        Row(f"PostgreSQL, execute @{2 * _CLIENTS}, two workers", figure(two), faster, None, spread, "one"),
        Row(
            "processor time of an operation at two workers",
            "",
            cost,
            against="one",
            aim=_MORE,
            at_least=False,
        ),
    ]


@contextmanager
def _site(postgres: Postgres, data: Path, count: int) -> Generator[_Site]:
    store = asyncio.run(postgres.migrated())
    running = start_product(
        data, free_port(), "--workers", str(count), store=store, limit_user="0", limit_casefile="0"
    )
    try:
        wait_for(running.port, running.started_at)
        assert running.process.stdout is not None
        login, api = json.loads(running.process.stdout.readline()), Api(running.port)
        api.log_in(login["user_id"], login["password"], [])
        casefiles = [
            api.call("/v1/casefiles/create", {"title": "Benchmark"})["casefile_id"] for _ in range(8)
        ]
        api.log_in(login["user_id"], login["password"], casefiles)
        requests: list[str] = []
        for number in range(count * _CLIENTS):
            session = api.call("/v1/sessions/create", {"casefile_id": casefiles[number % len(casefiles)]})
            payload = {"session_id": session["session_id"], "operation": _OPERATION}
            requests.append(http(running.port, "/v1/sessions/execute", payload, api.token))
        yield _Site(running, requests, Series())
    finally:
        running.stop()


def _measure(site: _Site, load: Load, seconds: float) -> None:
    job = Job(site.running.port, site.requests, len(site.requests), seconds, label="workers")
    before = site.cpu_seconds()
    result = load.run(job)
    # Answers are counted after the warm-up only; processor time is spread over both.
    share = job.seconds / (job.seconds + job.warm_seconds)
    cpu_us = (site.cpu_seconds() - before) * share / max(1, result.done) * 1e6
    site.series.samples.append(
        Sample(result.rate, result.percentile_ms(0.5), result.percentile_ms(0.99), cpu_us)
    )
