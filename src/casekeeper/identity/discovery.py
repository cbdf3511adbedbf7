"""What an issuer says about itself (OpenID Connect Discovery), as far as it is believed."""

import json
from collections.abc import Callable
from time import monotonic
from typing import Any

from casekeeper.identity.issuer import Issuer, may_be_asked
from casekeeper.identity.published import Fetch, FetchFailed, Published
from casekeeper.values import value


@value
class Endpoints:
    """Where a login goes. `names_itself`: the issuer adds `iss` to every answer (RFC 9207)."""

    authorization: str
    token: str
    names_itself: bool
    takes_basic: bool


class Discovery:
    """One issuer's endpoints."""

    def __init__(self, issuer: Issuer, fetch: Fetch, elapsed_s: Callable[[], float] = monotonic) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._endpoints = Published(issuer.issuer, "The endpoints", self._asked, elapsed_s)

    async def endpoints(self) -> Endpoints:
        """The endpoints.

        Raises:
            IssuerUnavailable: None are known that can be believed, and the issuer does not name any.
        """
        return await self._endpoints.current()

    async def _asked(self) -> Endpoints:
        said = await configuration_of(self._issuer, self._fetch)
        return Endpoints(
            address_in(said, "authorization_endpoint", self._issuer),
            address_in(said, "token_endpoint", self._issuer),
            said.get("authorization_response_iss_parameter_supported") is True,
            # The default of OpenID Connect Discovery §3.
            "client_secret_basic" in _list(said, "token_endpoint_auth_methods_supported"),
        )


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
