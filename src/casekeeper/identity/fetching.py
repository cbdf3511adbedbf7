"""Asks issuers over HTTP: with a deadline, a size cap, and nothing that an answer could steer."""

import asyncio
import ssl
from collections.abc import Mapping

import httpx2

from casekeeper.identity.published import FetchFailed

DEADLINE_S = 5.0
BYTES_MAX = 256 * 1024

_OK = 200


class Fetcher:
    """Fetches small documents. Makes its connections at first use, off the event loop."""

    def __init__(self, *, deadline_s: float = DEADLINE_S, bytes_max: int = BYTES_MAX) -> None:
        self._deadline_s = deadline_s
        self._bytes_max = bytes_max
        self._tls: ssl.SSLContext | None = None

    async def __call__(self, url: str) -> bytes:
        """The bytes there. Follows no redirect, uses no proxy of the environment, takes no compressed answer.

        Raises:
            FetchFailed: No answer in time, one that is no success, or one that is too large.
        """
        status, body = await self._ask("GET", url, None, {})
        if status != _OK:
            raise FetchFailed(f"{url} answers with {status}")
        return body

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and bytes of the answer to a form, whatever the status; else as `__call__`.

        Raises:
            FetchFailed: No answer in time, or one that is too large.
        """
        return await self._ask("POST", url, form, headers)

    async def _ask(
        self, method: str, url: str, form: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._answer(method, url, form, headers)
        except (TimeoutError, OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise FetchFailed(f"{url} cannot be read") from error

    async def _answer(
        self, method: str, url: str, form: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        if self._tls is None:
            # Reading the system's certificates takes some ten milliseconds.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        sent = {"Accept": "application/json", "Accept-Encoding": "identity", **headers}
        async with (
            httpx2.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False) as http,
            http.stream(method, url, data=dict(form) if form else None, headers=sent) as answer,
        ):
            if "content-encoding" in answer.headers:
                raise FetchFailed(f"{url} answers with a compressed body")
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > self._bytes_max:
                    raise FetchFailed(f"{url} answers with too much")
            return answer.status_code, bytes(body)
