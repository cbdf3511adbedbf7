"""A real OpenID Connect issuer (PyPI `oidc-provider-mock`) in a process of its own, on a free port of loopback."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

from tests.support import unavailable

CLIENT, SECRET = "casekeeper-console", "not much of a secret"


@dataclass(frozen=True)
class Provider:
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
        self.process.wait(30)

    def user(self, sub: str, **claims: Any) -> None:
        """Make a user, or change what their tokens say."""
        httpx2.put(f"{self.url}/users/{sub}", json=claims).raise_for_status()

    def log_in(self, address: str, sub: str) -> str:
        """What a browser does at the issuer: say who one is. Returns where it is sent back to."""
        answer = httpx2.post(address, data={"sub": sub})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def id_token(self, sub: str, client: str = CLIENT) -> str:
        """An ID token, by the code flow."""
        back = "http://127.0.0.1/back"
        query = httpx2.QueryParams(
            {
                "response_type": "code",
                "client_id": client,
                "redirect_uri": back,
                "scope": "openid email profile",
            }
        )
        sent = self.log_in(f"{self.url}/oauth2/authorize?{query}", sub)
        code = parse_qs(urlsplit(sent).query)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back}
        answer = httpx2.post(f"{self.url}/oauth2/token", data=form, auth=(client, SECRET))
        assert answer.status_code == 200, answer.text
        return answer.json()["id_token"]


@contextmanager
def running_provider(port: int = 0) -> Generator[Provider]:
    """An issuer of the tests' own, on this port, or a free one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = port or free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    provider = Provider(f"http://127.0.0.1:{port}", process)
    try:
        for _ in range(600):
            try:
                found = json.loads(httpx2.get(f"{provider.url}/.well-known/openid-configuration").content)
                assert found["issuer"] == provider.url
                break
            except httpx2.TransportError:
                time.sleep(0.1)
        else:
            unavailable("an OpenID Connect issuer that starts")
        yield provider
    finally:
        provider.stop()
