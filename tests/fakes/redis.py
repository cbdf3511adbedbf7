"""A Redis of the tests' own, on a free port of loopback, gone when they are done.

`TEST_REDIS_URL` names one to use instead, where a test does not stop it.
"""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.fakes.certificates import Certificates
from tests.support import unavailable


class Redis:
    """A server of our own; it keeps nothing on disk, so that killing it loses all."""

    def __init__(self, port: int, command: Sequence[str], tls: Certificates | None = None) -> None:
        self.url = f"redis{'s' if tls else ''}://127.0.0.1:{port}/0"
        self._port = port
        self._tls = ssl.create_default_context(cafile=tls.authority) if tls else None
        self._command = command
        self._process: subprocess.Popen[Any] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self._command, stdout=quiet, stderr=quiet)
        for _ in range(1000):
            try:
                with self._connected() as asking:
                    asking.sendall(b"PING\r\n")
                    # It may want a password first: that is an answer, too.
                    if asking.recv(100).startswith((b"+PONG", b"-NOAUTH")):
                        return
            except OSError:
                time.sleep(0.02)
            if self._process.poll() is not None:
                break
        unavailable("a Redis that starts")

    def _connected(self) -> socket.socket:
        bare = socket.create_connection(("127.0.0.1", self._port), 1)
        return self._tls.wrap_socket(bare, server_hostname="127.0.0.1") if self._tls else bare

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)


@contextmanager
def running_redis(*options: str, tls: Certificates | None = None) -> Generator[Redis]:
    """A server of our own, which may be stopped; with certificates it speaks TLS and nothing else."""
    program = shutil.which("redis-server")
    if program is None:
        unavailable("redis-server (Debian's package redis-server brings it)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *options]
    if tls is None:
        settings += ["--port", str(port)]
    else:
        settings += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
        settings += ["--tls-cert-file", str(tls.certificate), "--tls-key-file", str(tls.key)]
        settings += ["--tls-ca-cert-file", str(tls.authority)]
    server = Redis(port, [program, *settings], tls)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def redis_url() -> Generator[str]:
    """The address of a server, the one that the environment names or one of our own."""
    if url := os.environ.get("TEST_REDIS_URL"):  # noqa: TID251 - not a setting of casekeeper
        yield url
        return
    with running_redis() as server:
        yield server.url
