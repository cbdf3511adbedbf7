"""An object store of the tests' own, on a free port of loopback, gone when they are done.

It is moto's S3, in a process of its own. Google Cloud Storage speaks the same XML in other words; no emulator that can be
had here answers it, so what the client for Google sends is answered by S3 as well.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.support import unavailable

# moto looks at no signature, but wants to see one.
_SIGNED = (
    "AWS4-HMAC-SHA256 Credential=test/20260301/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
)
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
"""The environment in which a client finds its way in."""


@dataclass(frozen=True)
class Objects:
    """A server; `host` is `127.0.0.1:port`."""

    host: str

    def make(self, bucket: str) -> None:
        """Make a bucket."""
        self._ask("PUT", bucket).raise_for_status()

    def address(self, scheme: str, place: str, host: str = "") -> str:
        """The address of `bucket/prefix`, at another host if it is to be reached by that."""
        return f"{scheme}://{place}?endpoint_url=http://{host or self.host}"

    def delete(self, bucket: str, key: str) -> None:
        """Take an object away."""
        self._ask("DELETE", f"{bucket}/{key}").raise_for_status()

    def keys(self, bucket: str) -> list[str]:
        """All objects of a bucket."""
        return _between(self._ask("GET", f"{bucket}?list-type=2"), "Key")

    def unfinished(self, bucket: str) -> list[str]:
        """The keys of uploads in parts that have neither ended nor been aborted."""
        return _between(self._ask("GET", f"{bucket}?uploads"), "Key")

    def _ask(self, method: str, path: str) -> httpx2.Response:
        return httpx2.request(
            method, f"http://{self.host}/{path}", headers={"authorization": _SIGNED}, timeout=10
        )


def _between(answer: httpx2.Response, tag: str) -> list[str]:
    parts = answer.raise_for_status().text.split(f"<{tag}>")[1:]
    return [part.partition("<")[0] for part in parts]


@contextmanager
def running_objects() -> Generator[Objects]:
    """A server of our own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", "tests.fakes.objects", str(port)]
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=Path(__file__).parents[2])
    try:
        for _ in range(600):
            try:
                httpx2.get(f"http://127.0.0.1:{port}/", timeout=1)
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        else:
            unavailable("an object store that starts")
        yield Objects(f"127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait(30)


def _serve(port: int) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    moto: Any = DomainDispatcherApplication(create_backend_app)

    def answer(environ: Mapping[str, Any], start: Any) -> Any:
        signed = str(environ.get("HTTP_AUTHORIZATION", "")).startswith("AWS4")
        return moto(environ if signed else {**environ, "HTTP_AUTHORIZATION": _SIGNED}, start)

    run_simple("127.0.0.1", port, answer, threaded=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
