"""Server and load processes, held to one processor each where the system allows it."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import Job, Result

SERVER_CPU, LOAD_CPU = 0, 1
_ROOT = Path(__file__).parent.parent


def _pinned(cpu: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {cpu})


@dataclass
class Running:
    """A server under way."""

    process: "subprocess.Popen[str]"
    port: int
    said: dict[str, Any]
    started_at: float

    def stop(self) -> None:
        """End it as an operator would."""
        self.process.terminate()
        self.process.wait(30)
        if self.process.stdout:
            self.process.stdout.close()

    def cpu_seconds(self) -> float:
        """The processor time that it has used, in the kernel and outside."""
        return cpu_seconds(self.process.pid)

    def rss_mib(self) -> float:
        """Its resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024


def cpu_seconds(pid: int) -> float:
    """The processor time of a process, and of those that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in below for one in family(int(child)))]


def start(kind: str, data: Path, port: int = 0) -> Running:
    """Start a server process and wait until it says its port."""
    started_at = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.serve", kind, "--data", str(data), "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=_ROOT, preexec_fn=lambda: _pinned(SERVER_CPU)
    )
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    return Running(process, said["port"], said, started_at)


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_product(data: Path, port: int, *options: str, **settings: str) -> Running:
    """Start `casekeeper serve` as a user does; `settings` are environment variables without their prefix."""
    started_at = time.perf_counter()
    program = Path(sys.executable).with_name("casekeeper")
    command = [str(program), "serve", "--data", str(data), "--port", str(port), "--json", *options]
    named = {f"CASEKEEPER_{name.upper()}": value for name, value in settings.items()}
    environment = {**os.environ, **named}  # noqa: TID251 - what the new process reads
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT, env=environment)
    return Running(process, port, {}, started_at)


@contextmanager
def serving(kind: str, data: Path) -> Generator[Running]:
    """A server that answers, stopped at the end."""
    running = start(kind, data)
    try:
        wait_for(running.port, running.started_at)
        yield running
    finally:
        running.stop()


def wait_for(port: int, started_at: float, request: urllib.request.Request | None = None) -> float:
    """Ask until there is an answer; returns the seconds since the start."""
    wanted = request or urllib.request.Request(f"http://127.0.0.1:{port}/livez")
    for _ in range(20_000):
        try:
            with urllib.request.urlopen(wanted, timeout=10) as answer:
                answer.read()
            return time.perf_counter() - started_at
        except OSError:
            time.sleep(0.002)
    raise TimeoutError("the server does not answer")


class Load:
    """A load process that takes jobs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            preexec_fn=lambda: _pinned(LOAD_CPU),
        )

    def run(self, job: Job) -> Result:
        """Do a job.

        Raises:
            RuntimeError: Answers were no successes: such a figure would mean nothing.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        result = Result(**json.loads(self._process.stdout.readline()))
        if result.errors:
            raise RuntimeError(f"{job.label}: {result.errors} errors, the first: {result.first_error}")
        return result

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


class Api:
    """Calls of casekeeper, one at a time, to prepare what is measured."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.token = ""

    def request(self, path: str, payload: dict[str, Any]) -> urllib.request.Request:
        """A call in its envelope."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        body = json.dumps({"payload": payload}).encode()
        return urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers, method="POST")

    def call(self, path: str, payload: dict[str, Any]) -> dict[str, Any]:
        """The payload of the answer."""
        with urllib.request.urlopen(self.request(path, payload), timeout=60) as answer:
            return json.load(answer)["payload"]

    def log_in(self, user: str, password: str, casefile_ids: list[str]) -> None:
        """A fresh token that carries these casefiles' scopes."""
        self.token = ""
        login = {"user_id": user, "password": password, "casefile_ids": casefile_ids}
        self.token = self.call("/v1/auth/token", login)["access_token"]


def http(port: int, path: str, payload: dict[str, Any], token: str = "", request_id: str = "") -> str:
    """The bytes of a call, as latin-1 text."""
    body = json.dumps({**({"request_id": request_id} if request_id else {}), "payload": payload})
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *([f"authorization: Bearer {token}"] if token else []),
        "",
        body,
    ]
    return "\r\n".join(lines)
