"""A browser as far as a server can tell: it keeps cookies, follows where it is sent, and says which page asks."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import httpx2

from casekeeper.asgi import create_app
from casekeeper.server import Server

ORIGIN = "https://casekeeper.test"
PAGE = {"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN}
COOKIE = "__Host-casekeeper"


class LogsIn(Protocol):
    """An issuer where browsers log in."""

    def log_in(self, address: str, sub: str) -> str:
        """Say there who one is; returns where the browser is sent back to."""
        ...


class Browser:
    """One browser with its cookies."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    @classmethod
    @asynccontextmanager
    async def at(cls, server: Server) -> "AsyncGenerator[Browser]":
        """A fresh browser before this server."""
        app = create_app()
        app.state.server = server
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as http:
            yield cls(http)

    async def begin(self, **query: str) -> httpx2.Response:
        """Open the page that leads to the issuer."""
        return await self.http.get("/v1/auth/login", params=query)

    async def sent_back(self, provider: LogsIn, sub: str, **query: str) -> str:
        """Begin a login and say at the issuer who one is; returns the address with the code."""
        begun = await self.begin(**query)
        assert begun.status_code == 303, begun.text
        return provider.log_in(begun.headers["location"], sub)

    async def log_in(self, provider: LogsIn, sub: str, **query: str) -> httpx2.Response:
        """All of a login at the issuer."""
        return await self.http.get(await self.sent_back(provider, sub, **query))

    async def by_password(self, user_id: str, password: str, **headers: str) -> httpx2.Response:
        """Log in with a password, as the page of a console does."""
        payload = {"user_id": user_id, "password": password}
        return await self.http.post(
            "/v1/auth/session", json={"payload": payload}, headers={**PAGE, **headers}
        )

    async def who(self) -> httpx2.Response:
        """Who is logged in."""
        return await self.http.get("/v1/auth/session", headers=PAGE)

    async def post(self, path: str, payload: Any, **headers: str) -> httpx2.Response:
        """What a page of the server sends; a header given as "" is left out."""
        sent = {**PAGE, **{k.replace("_", "-"): v for k, v in headers.items()}}
        return await self.http.post(
            path, json={"payload": payload}, headers={k: v for k, v in sent.items() if v}
        )

    @property
    def cookies(self) -> dict[str, str]:
        """What it keeps."""
        return {cookie.name: cookie.value or "" for cookie in self.http.cookies.jar}


def query_of(address: str) -> dict[str, str]:
    """The query of an address, each name once."""
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
