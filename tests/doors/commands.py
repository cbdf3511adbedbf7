"""How the tests of the command line run commands and start servers."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casekeeper import client

SAMPLE = Path(str(client.__file__)).parents[1] / "reading" / "sample.mbox"
OPERATOR = "operator@localhost"


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed with `--json`."""
        return json.loads(self.out)


Cli = Callable[..., Ended]


@dataclass(frozen=True)
class Served:
    """A server in a process of its own."""

    url: str
    data: Path
    password: str | None
    process: "subprocess.Popen[str]"

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(15)


def serve(data: Path, *more: str) -> Served:
    """Start a server and wait until it says that it is ready."""
    command = [
        sys.executable,
        "-m",
        "casekeeper.cli",
        "serve",
        "--data",
        str(data),
        "--json",
        "--port",
        "0",
        *more,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    password = None
    for line in process.stdout:
        said = json.loads(line)
        password = said.get("password", password)
        if said["event"] == "ready":
            return Served(said["url"], data, password, process)
    raise AssertionError(process.communicate()[1])


def a_casefile(cli: Cli, data: Path, title: str = "Rent dispute") -> str:
    """Make a casefile; returns its id."""
    made = cli("casefile", "create", title, "--data", data)
    assert made.code == 0, made.err
    return made.out.strip()
