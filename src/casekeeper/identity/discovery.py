"""What an issuer says about itself (OpenID Connect Discovery), as far as it is believed."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from casekeeper.errors import IssuerUnavailable
from casekeeper.identity.issuer import Issuer, may_be_asked

RENEW_AFTER_S = 600.0
STALE_S = 24 * 3600.0
"""An issuer that is away is believed for a day, as its keys are."""

RETRY_S = 5.0
"""Between tries: who wants to log in does not decide how often the issuer is asked."""

Fetch = Callable[[str], Awaitable[bytes]]
"""The bytes at an address. Has a deadline and a size cap, follows no redirect.

Raises:
    FetchFailed: It did not answer with them.
"""

_log = logging.getLogger("casekeeper.security")


class FetchFailed(Exception):
    """An address did not give what was asked for."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a login goes. `names_itself`: the issuer adds `iss` to every answer (RFC 9207)."""

    authorization: str
    token: str
    names_itself: bool
    takes_basic: bool


class Discovery:
    """One issuer's endpoints: asked when they are needed, kept while it is away."""

    def __init__(self, issuer: Issuer, fetch: Fetch, elapsed_s: Callable[[], float] = monotonic) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._elapsed_s = elapsed_s
        self._found: Endpoints | None = None
        self._found_at = self._tried_at = float("-inf")
        self._asking = asyncio.Lock()

    async def endpoints(self) -> Endpoints:
        """The endpoints.

        Raises:
            IssuerUnavailable: None are known that can be believed, and the issuer does not name any.
        """
        async with self._asking:
            now = self._elapsed_s()
            if now - self._found_at > RENEW_AFTER_S and now - self._tried_at >= RETRY_S:
                self._tried_at = now
                await self._ask()
        if self._found is None or self._elapsed_s() - self._found_at > STALE_S:
            raise IssuerUnavailable(f"{self._issuer.issuer} does not say where its logins are.")
        return self._found

    async def _ask(self) -> None:
        try:
            said = await configuration_of(self._issuer, self._fetch)
            found = Endpoints(
                address_in(said, "authorization_endpoint", self._issuer),
                address_in(said, "token_endpoint", self._issuer),
                said.get("authorization_response_iss_parameter_supported") is True,
                # The default of OpenID Connect Discovery §3.
                "client_secret_basic" in _list(said, "token_endpoint_auth_methods_supported"),
            )
        except FetchFailed as error:
            _log.warning("%s: %s", self._issuer.issuer, error)
        else:
            self._found, self._found_at = found, self._elapsed_s()


def _list(said: dict[str, Any], name: str) -> list[Any]:
    given = said.get(name)
    return given if isinstance(given, list) else ["client_secret_basic"]  # pyright: ignore[reportUnknownVariableType] - foreign JSON


async def configuration_of(issuer: Issuer, fetch: Fetch) -> dict[str, Any]:
    """The issuer's configuration (OpenID Connect Discovery §4), if it is that issuer's own.

    Raises:
        FetchFailed: It cannot be read, or is another's.
    """
    said = json_object(await fetch(issuer.issuer.rstrip("/") + "/.well-known/openid-configuration"))
    if said.get("issuer") != issuer.issuer:
        raise FetchFailed("the configuration is another issuer's")
    return said


def address_in(said: dict[str, Any], name: str, issuer: Issuer) -> str:
    """An address out of a configuration.

    Raises:
        FetchFailed: There is none, or it may not be asked.
    """
    address = said.get(name)
    if not isinstance(address, str) or not may_be_asked(address, loopback=issuer.is_loopback):
        raise FetchFailed(f"{name} is no address that may be asked")
    return address


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in these bytes.

    Raises:
        FetchFailed: There is none.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FetchFailed("no JSON") from error
    if not isinstance(found, dict):
        raise FetchFailed("no JSON object")
    return found  # pyright: ignore[reportUnknownVariableType] - foreign JSON
