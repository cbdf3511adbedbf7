"""A stand-in for model providers: the npm package `@copilotkit/aimock`, answering from `models.json`.

It speaks Gemini's, OpenAI's and Anthropic's languages on a loopback port.
"""

import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.fakes.node import NodeMissing, free_port, modules, node, wait_for
from tests.support import unavailable

_FIXTURES = Path(__file__).parent / "models.json"
_END_WITH_ME = "data:text/javascript,process.stdin.resume().on('end',()=>process.exit())"


@contextmanager
def running_aimock() -> Generator[str]:
    """A running aimock's address, `http://127.0.0.1:{port}`; the process that was started ends with the context.

    Raises:
        NodeMissing: It cannot be installed or started here.
    """
    program = modules() / "@copilotkit/aimock/dist/cli.js"
    port = free_port()
    options = ["--port", str(port), "--host", "127.0.0.1", "--fixtures", str(_FIXTURES), "--strict"]
    process = subprocess.Popen(
        [node(), "--import", _END_WITH_ME, str(program), *options, "--log-level", "silent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, process, "aimock")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture(scope="session")
def aimock() -> Generator[str]:
    """The address of a running aimock; without npm a skip that says so, and in CI a failure."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(running_aimock())
        except NodeMissing as error:
            unavailable(f"aimock ({error})")
        yield url
