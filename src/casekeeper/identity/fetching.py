"""Asks issuers over HTTP: with a deadline, a size cap, and nothing that an answer could steer."""

import asyncio
import ssl

import httpx2

from casekeeper.identity.issuer_keys import FetchFailed

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
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._get(url)
        except (TimeoutError, OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise FetchFailed(f"{url} cannot be read") from error

    async def _get(self, url: str) -> bytes:
        if self._tls is None:
            # Reading the system's certificates takes some ten milliseconds.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        async with (
            httpx2.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False) as http,
            http.stream(
                "GET", url, headers={"Accept": "application/json", "Accept-Encoding": "identity"}
            ) as answer,
        ):
            if answer.status_code != _OK or "content-encoding" in answer.headers:
                raise FetchFailed(f"{url} answers with {answer.status_code}")
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > self._bytes_max:
                    raise FetchFailed(f"{url} answers with too much")
            return bytes(body)
