"""One run of all figures: `uv run python -m benchmarks [--rounds N] [--seconds S] [--quick]`."""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Row, Sample, Series, figure, ratio, ratio_by_cpu, table
from benchmarks.importing import importing
from benchmarks.load import MARK, Job, Result
from benchmarks.machinery import Api, Load, Running, free_port, http, serving, start_product, wait_for
from benchmarks.nested import nested
from benchmarks.permissions import permissions
from benchmarks.searching import searching
from benchmarks.stores import stores
from benchmarks.streams import streams
from benchmarks.telling import telling
from benchmarks.waiting import waiting

OPERATION: dict[str, Any] = {"operation_type": "tool", "tool_name": "noop", "parameters": {}}
AGENT = {"operation_type": "agent", "agent_name": "offline-researcher", "prompt": "What was invoiced in May?"}
SIZES = (10, 1_000, 10_000)
PARTS = (
    "corridor",
    "growth",
    "mission",
    "start",
    "search",
    "import",
    "stores",
    "nested",
    "permissions",
    "streams",
    "waiting",
)
_REQUEST_ID = f"bench-{MARK.decode()}"


class Bench:
    """One run: two servers side by side, one load process, rounds that visit everything in turn."""

    def __init__(self, ours: Running, theirs: Running, load: Load, rounds: int, seconds: float) -> None:
        self.ours, self.theirs, self.load = ours, theirs, load
        self.rounds, self.seconds = rounds, seconds
        self.api = Api(ours.port)
        self.series: dict[str, Series] = {}
        self.api.log_in(ours.said["user"], ours.said["password"], [])
        self.casefile = self.api.call("/v1/casefiles/create", {"title": "Benchmark"})["casefile_id"]
        self.listed = self.api.call("/v1/casefiles/create", {"title": "A thousand sessions"})["casefile_id"]
        self.log_in()

    def log_in(self) -> None:
        """A token for the next minutes; the slow path is measured by nobody here."""
        said = self.ours.said
        self.api.log_in(said["user"], said["password"], [self.casefile, self.listed])

    def session(self, casefile_id: str) -> str:
        """A new session."""
        return self.api.call("/v1/sessions/create", {"casefile_id": casefile_id})["session_id"]

    def execute(self, session_id: str, *, request_id: str = "") -> str:
        """A call of the tool that does nothing."""
        payload = {"casefile_id": self.casefile, "session_id": session_id, "operation": OPERATION}
        return http(self.ours.port, "/v1/sessions/execute", payload, self.api.token, request_id)

    def get(self, session_id: str) -> str:
        """A page of ten operations."""
        payload = {"session_id": session_id, "events": {"limit": 10}}
        return http(self.ours.port, "/v1/sessions/get", payload, self.api.token)

    def post(self, path: str, **payload: object) -> str:
        """Any other call."""
        return http(self.ours.port, path, dict(payload), self.api.token)

    def baseline(self, path: str) -> str:
        """The baseline's call, as large as an execute."""
        payload = {
            "casefile_id": self.casefile,
            "session_id": "ts_261123_host6c3a_ef814a",
            "operation": OPERATION,
        }
        return http(self.theirs.port, path, payload)

    def measure(self, name: str, requests: list[str], clients: int, *, rotate: bool = False) -> None:
        """One slice, added to the series of this name."""
        is_baseline = name.startswith("baseline")
        server = self.theirs if is_baseline else self.ours
        job = Job(server.port, requests, clients, self.seconds, rotate=rotate, label=name)
        before = server.cpu_seconds()
        result = self.load.run(job)
        # The load process counts answers after its warm-up only; processor time is spread over both.
        share = job.seconds / (job.seconds + job.warm_seconds)
        cpu_us = (server.cpu_seconds() - before) * share / max(1, result.done) * 1e6
        sample = Sample(result.rate, result.percentile_ms(0.5), result.percentile_ms(0.99), cpu_us)
        self.series.setdefault(f"{name} @{clients}", Series()).samples.append(sample)

    def fill(self, requests: list[str], count: int, clients: int = 16) -> Result:
        """Send so many calls, in turn."""
        return self.load.run(Job(self.ours.port, requests, clients, count=count, rotate=True, label="fill"))


def corridor(bench: Bench) -> list[Row]:
    """Create, execute, get and list against the baselines."""
    sessions = [bench.session(bench.casefile) for _ in range(16)]
    ten = bench.session(bench.casefile)
    bench.fill([bench.execute(ten)], 10, 1)
    bench.fill([bench.post("/v1/sessions/create", casefile_id=bench.listed)], 1_000)
    for number in range(bench.rounds):
        bench.log_in()
        for clients in (1, 16):
            say(f"round {number + 1} of {bench.rounds}, {clients} clients")
            bench.measure("baseline echo", [bench.baseline("/echo")], clients)
            bench.measure("get, 10 events", [bench.get(ten)], clients)
            bench.measure(
                "list, 20 of 1,000",
                [bench.post("/v1/sessions/list", casefile_id=bench.listed, limit=20)],
                clients,
            )
            bench.measure("baseline insert", [bench.baseline("/insert")], clients)
            bench.measure("execute", [bench.execute(s) for s in sessions], clients)
            bench.measure(
                "execute, request_id", [bench.execute(s, request_id=_REQUEST_ID) for s in sessions], clients
            )
            bench.measure("create", [bench.post("/v1/sessions/create", casefile_id=bench.casefile)], clients)
    aims = {
        ("execute", 16): ("insert", 0.5),
        ("execute, request_id", 16): ("insert", 0.5),
        ("create", 16): ("insert", 0.6),
        ("create", 1): ("insert", 0.6),
        ("get, 10 events", 16): ("echo", 0.5),
        ("get, 10 events", 1): ("echo", 0.5),
    }
    rows: list[Row] = []
    for kind in ("echo", "insert"):
        for clients in (1, 16):
            name = f"baseline {kind} @{clients}"
            rows.append(Row(name, figure(bench.series[name])))
    for name in ("execute", "execute, request_id", "create", "get, 10 events", "list, 20 of 1,000"):
        for clients in (1, 16):
            against, aim = aims.get(
                (name, clients), ("insert" if name.startswith("execute") else "echo", None)
            )
            ours = bench.series[f"{name} @{clients}"]
            theirs = bench.series[f"baseline {against} @{clients}"]
            median, spread = ratio(ours, theirs)
            by_cpu = ratio_by_cpu(ours, theirs)
            rows.append(Row(f"{name} @{clients}", figure(ours), median, by_cpu, spread, against, aim))
    return rows


def growth(bench: Bench) -> list[Row]:
    """Get and execute in short and long sessions."""
    filled: dict[int, list[str]] = {}
    for size in SIZES:
        say(f"a session of {size} operations")
        # Executing makes a session longer: many short ones in turn stay short.
        filled[size] = [bench.session(bench.casefile) for _ in range(100 if size == 10 else 1)]
        bench.fill([bench.execute(s) for s in filled[size]], size * len(filled[size]))
    for _ in range(bench.rounds):
        bench.log_in()
        for size in SIZES:
            bench.measure(f"get in {size}", [bench.get(filled[size][0])], 1)
        for size in SIZES:
            bench.measure(f"execute in {size}", [bench.execute(s) for s in filled[size]], 1, rotate=True)
    rows: list[Row] = []
    for what in ("get", "execute"):
        for size in SIZES[1:]:
            ours = bench.series[f"{what} in {size} @1"]
            short = bench.series[f"{what} in 10 @1"]
            slower, spread = ratio(short, ours)
            name, by_cpu = f"{what}, session of {size:,}", ratio_by_cpu(short, ours)
            rows.append(Row(name, figure(ours), slower, by_cpu, spread, "10 (time)", 1.2, at_least=False))
    return rows


def mission(bench: Bench) -> list[Row]:
    """The mission's own rows: milliseconds for one client."""
    say("the mission's rows")
    bench.log_in()
    session = bench.session(bench.casefile)
    bench.fill([bench.execute(session)], 10, 1)
    note = {"operation_type": "tool", "tool_name": "note_add", "parameters": {"text": "Invoiced in May."}}
    calls = {
        "create": bench.post("/v1/sessions/create", casefile_id=bench.casefile),
        "get": bench.get(session),
        "tool (note_add)": bench.post("/v1/sessions/execute", session_id=session, operation=note),
        "agent (offline-researcher)": bench.post("/v1/sessions/execute", session_id=session, operation=AGENT),
    }
    limits = {"create": 10.0, "get": 5.0, "tool (note_add)": 100.0}
    rows: list[Row] = []
    for name, request in calls.items():
        try:
            result = bench.load.run(Job(bench.ours.port, [request], 1, count=200, label=name))
        except RuntimeError as error:
            rows.append(Row(f"mission: {name}", f"not measured: {str(error)[:60]}"))
            continue
        p50, p99 = result.percentile_ms(0.5), result.percentile_ms(0.99)
        text = f"p50 {p50:.2f} ms  p99 {p99:.2f} ms"
        aim = limits.get(name)
        rows.append(
            Row(f"mission: {name}", text, against="ms" if aim else "", aim=aim, at_least=False, measured=p50)
        )
    return rows


def starting(data: Path, rounds: int) -> list[Row]:
    """From the start of the process to its first answers, and what it holds when idle."""
    say("starts")
    live: list[float] = []
    known: list[float] = []
    idle: list[float] = []
    port = free_port()
    running = start_product(data, port)
    first = wait_for(port, running.started_at)
    assert running.process.stdout is not None
    login, api = json.loads(running.process.stdout.readline()), Api(port)
    api.log_in(login["user_id"], login["password"], [])
    running.stop()
    for _ in range(rounds):
        running = start_product(data, port)
        live.append(wait_for(port, running.started_at))
        known.append(wait_for(port, running.started_at, api.request("/v1/sessions/list", {})))
        idle.append(running.rss_mib())
        running.stop()
    text = f"livez {statistics.median(live):.2f} s, authenticated {statistics.median(known):.2f} s"
    return [
        Row(
            "start to first answer",
            text,
            spread=(min(known), max(known)),
            against="s",
            aim=1.2,
            at_least=False,
            measured=statistics.median(known),
        ),
        Row("first start of a new directory", f"livez {first:.2f} s"),
        Row(
            "idle memory",
            f"{statistics.median(idle):.0f} MiB resident",
            spread=(min(idle), max(idle)),
            against="MiB",
            aim=120,
            at_least=False,
            measured=statistics.median(idle),
        ),
    ]


def say(text: str) -> None:
    """Progress, apart from the figures."""
    print(text, file=sys.stderr, flush=True)


def served(folder: Path, asked: argparse.Namespace) -> list[Row]:
    """What is measured over HTTP, against the baselines."""

    def wanted(part: str) -> bool:
        return asked.only in (None, part)

    rows: list[Row] = []
    load = Load()
    try:
        with (
            serving("casekeeper", folder / "ours") as ours,
            serving("baselines", folder / "theirs") as theirs,
        ):
            bench = Bench(ours, theirs, load, asked.rounds, asked.seconds)
            if wanted("corridor"):
                rows += corridor(bench)
            if wanted("growth"):
                rows += growth(bench)
            if wanted("mission"):
                rows += mission(bench)
            if not asked.only:
                rows.append(Row("memory at the end", f"{ours.rss_mib():.0f} MiB resident"))
    finally:
        load.close()
    return rows


def main() -> int:
    """Measure, print, and say by the exit code whether all aims are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.6, help="per slice")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    asked = parser.parse_args()

    def wanted(part: str) -> bool:
        return asked.only in (None, part)

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        if wanted("start"):
            rows += starting(Path(folder, "starts"), max(3, asked.rounds))
        if wanted("search"):
            say("search")
            rows += searching(Path(folder, "search"), asked.rounds)
        if wanted("stores"):
            say("stores")
            rows += stores(Path(folder, "stores"), asked.rounds, asked.seconds)
        if wanted("nested"):
            say("nested calls")
            rows += nested(Path(folder, "nested"), asked.rounds)
        if wanted("streams"):
            say("streams")
            rows += streams(Path(folder, "streams"))
        if wanted("permissions"):
            say("permissions")
            rows += permissions(Path(folder, "permissions"), asked.seconds * asked.rounds)
            rows += telling(Path(folder, "telling"))
        if wanted("waiting"):
            say("waiting")
            rows += waiting(Path(folder, "waiting"))
        if wanted("import"):
            say("import")
            load = Load()
            try:
                rows += importing(Path(folder), load)
            finally:
                load.close()
        if asked.only in (None, "corridor", "growth", "mission"):
            rows += served(Path(folder), asked)
    print(table(rows))
    missed = [row.name for row in rows if row.is_met is False]
    print(f"\naims missed: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
