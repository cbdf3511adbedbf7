"""A Firestore emulator of the tests' own, on a free port of loopback, gone when they are done.

`FIRESTORE_EMULATOR_HOST` names one to use instead. Each test has a project of its own, so that nothing is left over.
"""

import atexit
import functools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import httpx2

from tests.support import unavailable

_MAIN = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"


class Emulator:
    """An emulator; one of our own can be killed and started again, and then holds what it is given, or nothing."""

    def __init__(self, host: str, command: list[str] | None = None) -> None:
        self.host = host
        self._command = command
        self._process: subprocess.Popen[Any] | None = None

    def address(self) -> str:
        """The store's address in a project that nobody else has."""
        return f"firestore://test-{secrets.token_hex(6)}?emulator={self.host}"

    def start(self, exported: Path | None = None) -> None:
        """Start the emulator of our own, with what was exported from an earlier one, and wait until it answers."""
        assert self._command is not None
        quiet = subprocess.DEVNULL
        given = [] if exported is None else [f"--seed_from_export={exported}"]
        self._process = subprocess.Popen([*self._command, *given], stdout=quiet, stderr=quiet)
        for _ in range(600):
            try:
                if httpx2.get(f"http://{self.host}/", timeout=1).status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.05)
        unavailable("a Firestore emulator that starts")

    def export(self, address: str, directory: Path) -> Path:
        """Write all that a project holds into a directory that exists; returns the file to start from."""
        project, name = urlsplit(address).netloc, secrets.token_hex(6)
        asked = {
            "database": f"projects/{project}/databases/(default)",
            "export_directory": str(directory),
            "export_name": name,
        }
        url = f"http://{self.host}/emulator/v1/projects/{project}:export"
        httpx2.post(url, json=asked, timeout=60).raise_for_status()
        return directory / name / f"{name}.overall_export_metadata"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)


@contextmanager
def running_emulator() -> Generator[Emulator]:
    """An emulator, the one that the environment names or one of our own."""
    if host := os.environ.get("FIRESTORE_EMULATOR_HOST"):  # noqa: TID251 - not a setting of casekeeper
        yield Emulator(host)
        return
    java, jar = shutil.which("java"), _jar()
    if java is None or jar is None:
        unavailable("the Firestore emulator (install it and Java, or set FIRESTORE_EMULATOR_HOST)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Started for a minute, not for days: the quick compiler and a small heap are right.
    options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"]
    start = ["start", "--host=127.0.0.1", f"--port={port}"]
    emulator = Emulator(f"127.0.0.1:{port}", [java, *options, "-cp", str(jar), _MAIN, *start])
    emulator.start()
    try:
        yield emulator
    finally:
        emulator.kill()


@functools.cache
def shared_emulator() -> Emulator:
    """One emulator for all tests of a process; it ends with it."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running_emulator())


def documents_in(address: str, collection: str, *names: str) -> list[tuple[str, ...]]:
    """These fields, which are texts, of every document of a collection, in the order in which they were made."""
    parts = urlsplit(address)
    root = f"http://{parts.query.removeprefix('emulator=')}/v1/projects/{parts.netloc}/databases/(default)"
    asked = {
        "from": [{"collectionId": collection, "allDescendants": True}],
        "select": {"fields": [{"fieldPath": name} for name in names]},
    }
    # Not httpx2, whose clients read the machine's certificates first: that takes longer than the query.
    body = json.dumps({"structuredQuery": asked}).encode()
    asking = Request(f"{root}/documents:runQuery", body, {"content-type": "application/json"})
    with urlopen(asking, timeout=30) as answer:
        answers = json.load(answer)
    found = [answer["document"] for answer in answers if "document" in answer]
    # Facts of one commit have one time, and names that sort as they were written.
    found.sort(key=lambda document: (document["createTime"], document["name"]))
    return [tuple(document["fields"][name]["stringValue"] for name in names) for document in found]


def _jar() -> Path | None:
    """The emulator beside the Cloud SDK's command."""
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        return None
    folder = Path(gcloud).resolve().parents[1] / "platform" / "cloud-firestore-emulator"
    return next(iter(folder.glob("*.jar")), None)
