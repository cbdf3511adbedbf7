"""A real issuer that checks PKCE, signs with any algorithm and changes its keys: npm's `oauth2-mock-server`.

It asks nobody for a password and keeps no codes for long: what a careful issuer refuses is tried against
`tests/fakes/oidc.py`, which in turn checks no PKCE and has one RSA key.
"""

import json
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.fakes.node import NodeMissing, free_port, modules, node, wait_for
from tests.support import unavailable

CLIENT = "casekeeper-console"

_PROGRAM = Path(__file__).with_suffix(".mjs")


@dataclass(frozen=True)
class KeyedIssuer:
    """The issuer; `url` is its exact name."""

    url: str
    process: "subprocess.Popen[bytes]"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """End it; with it go its keys and its codes."""
        self.process.kill()
        self.process.communicate(timeout=30)

    def key(self, kid: str, alg: str = "RS256") -> None:
        """Publish another key, or put it in the place of the one of this kid."""
        self._do(do="key", kid=kid, alg=alg)

    def token(self, kid: str = "k1", *, expires_in: int = 300, **claims: Any) -> str:
        """A token for Anna, signed with the key of this kid."""
        said = {"sub": "anna-1", "aud": CLIENT, **claims}
        return self._do(do="token", kid=kid, expires_in=expires_in, claims=said)

    def log_in(self, address: str, sub: str) -> str:
        """What a browser does at the issuer, which believes everybody. Returns where it is sent back to."""
        self._do(do="say", claims={"sub": sub})
        answer = httpx2.get(address)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def _do(self, **command: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def running_keyed_issuer(*algs: str, port: int = 0, first: int = 1) -> Generator[KeyedIssuer]:
    """An issuer of the tests' own on this port, or a free one, with a key of each algorithm: `k1`, `k2`, …"""
    try:
        port = port or free_port()
        library = (modules() / "oauth2-mock-server/dist/index.mjs").as_uri()
        process = subprocess.Popen(
            [node(), str(_PROGRAM), library, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        issuer = KeyedIssuer(f"http://127.0.0.1:{port}", process)
        try:
            wait_for(port, process, "oauth2-mock-server")
            for number, alg in enumerate(algs, first):
                issuer.key(f"k{number}", alg)
            yield issuer
        finally:
            issuer.stop()
    except NodeMissing as error:
        unavailable(f"an issuer that changes its keys ({error})")
