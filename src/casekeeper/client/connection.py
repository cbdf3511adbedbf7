"""One client's way to the server: the envelope, tokens, and tries that are safe to repeat."""

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2
from pydantic_core import from_json

from casekeeper.client.errors import (
    ApiError,
    Conflict,
    Limited,
    ServerFault,
    Unauthenticated,
    Unavailable,
    error_of_response,
    unreachable,
)
from casekeeper.client.payloads import command_of, result_of
from casekeeper.client.tokens import HeldToken, TokenHolder, TokenSource
from casekeeper.values import value
from casekeeper.verbs import VERBS

if TYPE_CHECKING:
    from casekeeper.identity.logins import TokenSet

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# A missing key for a model does not appear while one waits.
_LASTING = {"model_unavailable"}
_STILL_RUNNING = "still_running"


@value
class Retry:
    """How often and how patiently a call is tried again.

    Attributes:
        tries: How often at most, the first try counted. Waiting for an operation that still runs is no try.
        first_wait: Upper bound of the first wait; it doubles with each try, and chance picks within it.
        longest_wait: A server that asks for more patience than this is not waited for.
    """

    tries: int = 5
    first_wait: timedelta = timedelta(milliseconds=200)
    longest_wait: timedelta = timedelta(seconds=60)

    def wait_s(self, tried: int) -> float:
        """Seconds before the next try; by chance, so that many clients do not come back at once."""
        most = min(self.first_wait.total_seconds() * 2 ** (tried - 1), self.longest_wait.total_seconds())
        return random.uniform(most / 2, most)  # noqa: S311 - nothing secret hangs on it


class Connection:
    """Sends calls. Safe for concurrent use within one event loop."""

    def __init__(
        self,
        url: str,
        *,
        token: str | TokenSource | None,
        credentials: dict[str, str] | None,
        retry: Retry,
        timeout: timedelta,
        transport: httpx2.AsyncBaseTransport | None,
    ) -> None:
        self.url = url.rstrip("/")
        self.retry = retry
        self.tokens = TokenHolder(
            token=token,
            credentials=credentials,
            log_in=self._ask_open("auth/token"),
            refresh=self._ask_open("auth/refresh"),
        )
        # A connection that is answered at all is not cut: how long an operation takes is the server's business,
        # and a call that outlives the timeout is taken up again under its request_id.
        self.http = httpx2.AsyncClient(
            base_url=self.url,
            transport=transport,
            timeout=httpx2.Timeout(timeout.total_seconds(), connect=10.0, pool=None),
            # A proxy cannot reach this machine's loopback for us.
            trust_env=urlsplit(self.url).hostname not in _LOOPBACK,
            headers={"User-Agent": "casekeeper-python"},
        )

    async def ask(self, name: str, fields: Mapping[str, Any], request_id: str | None = None) -> Any:
        """The result of the verb of this name.

        Raises:
            ApiError: The branch says why there is none.
        """
        verb = VERBS[name]
        body: dict[str, Any] = {"payload": command_of(verb, fields)}
        if verb.changes:
            body["request_id"] = request_id or new_request_id()
        payload = await self.payload(lambda: self.http.build_request("POST", verb.path, json=body))
        return result_of(verb, payload)

    async def payload(self, make: Callable[[], httpx2.Request], *, repeatable: bool = True) -> Any:
        """The payload inside the envelope of an answer, as JSON."""
        response = await self.send(make, repeatable=repeatable)
        return _json(response)["payload"]

    async def json(self, path: str) -> Any:
        """A GET whose answer has no envelope."""
        return _json(await self.send(lambda: self.http.build_request("GET", path)))

    async def send(
        self,
        make: Callable[[], httpx2.Request],
        *,
        repeatable: bool = True,
        stream: bool = False,
        known: bool = True,
    ) -> httpx2.Response:
        """The response to a request, which is made anew for each try; read, unless it is a stream.

        Args:
            repeatable: Whether sending it twice does no more than sending it once.
            known: Whether it carries a token.

        Raises:
            ApiError: The branch says why there is no good response.
        """
        tried, replaced = 0, False
        while True:
            held = await self.tokens.current() if known else None
            try:
                response = await self._try(make(), held.access_token if held else None, stream=stream)
            except httpx2.TransportError as error:
                failure: ApiError = unreachable(self.url, error)
                failure.__cause__ = error
                worth_it = repeatable
            else:
                if response.is_success:
                    if held and not stream:
                        self._take_token(held, response)
                    return response
                failure = error_of_response(response)
                worth_it = _passes(failure)
            if held and isinstance(failure, Unauthenticated) and not replaced:
                replaced = True
                if repeatable and await self.tokens.replace(held):
                    continue
            tried = 0 if failure.code == _STILL_RUNNING else tried + 1
            wait_s = self._wait_s(failure, max(tried, 1))
            if not worth_it or tried >= self.retry.tries or wait_s > self.retry.longest_wait.total_seconds():
                raise failure
            await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def stream(self, make: Callable[[], httpx2.Request]) -> AsyncGenerator[httpx2.Response]:
        """The response to a request, to be read as it comes."""
        response = await self.send(make, stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Let go of the connections."""
        await self.http.aclose()

    async def _try(self, request: httpx2.Request, token: str | None, *, stream: bool) -> httpx2.Response:
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        response = await self.http.send(request, stream=True)
        if not stream or not response.is_success:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response

    def _take_token(self, held: HeldToken, response: httpx2.Response) -> None:
        if b'"updated_scopes":{' in response.content:
            self.tokens.swap(held, _json(response)["payload"]["updated_scopes"])

    def _wait_s(self, failure: ApiError, tried: int) -> float:
        if failure.retry_after_s is not None:
            return failure.retry_after_s
        return self.retry.wait_s(tried)

    def _ask_open(self, name: str) -> Callable[[dict[str, Any]], Any]:
        verb = VERBS[name]

        async def ask(fields: dict[str, Any]) -> "TokenSet":
            body = {"payload": command_of(verb, fields)}
            response = await self.send(
                lambda: self.http.build_request("POST", verb.path, json=body), known=False
            )
            return result_of(verb, _json(response)["payload"])

        return ask


def new_request_id() -> str:
    """An id that makes a call safe to repeat."""
    return str(uuid.uuid4())


def _passes(failure: ApiError) -> bool:
    """Whether the same call may well succeed in a moment."""
    match failure:
        case Limited():
            return True
        case Unavailable():
            return failure.code not in _LASTING
        case Conflict():
            return failure.code == _STILL_RUNNING
        case _:
            return False


def _json(response: httpx2.Response) -> Any:
    try:
        return from_json(response.content)
    except ValueError as error:
        raise ServerFault(
            "not_json",
            f"{response.url} did not answer with JSON; is it a casekeeper?",
            status=response.status_code,
        ) from error
