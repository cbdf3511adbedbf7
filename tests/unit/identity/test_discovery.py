"""Where an issuer's logins are, while it is there, and while it is not."""

import asyncio
from typing import Any

import pytest

from casekeeper.errors import IssuerUnavailable
from casekeeper.identity.discovery import Discovery, Endpoints
from casekeeper.identity.issuer import Issuer
from casekeeper.identity.published import OLD_S, RENEW_AFTER_S, RETRY_S, STALE_S
from tests.unit.identity.issuing import AUDIENCE, CONFIGURATION, JWKS, URL, Site
from tests.unit.support import StepClock

SAID: dict[str, Any] = {
    "issuer": URL,
    "jwks_uri": JWKS,
    "authorization_endpoint": f"{URL}/authorize",
    "token_endpoint": f"{URL}/token",
}


def discovery(site: Site, clock: StepClock | None = None) -> Discovery:
    return Discovery(Issuer(issuer=URL, audience=AUDIENCE), site.fetch, (clock or StepClock()).monotonic)


def saying(**more: Any) -> Site:
    site = Site()
    site.pages[CONFIGURATION] = {k: v for k, v in {**SAID, **more}.items() if v is not None}
    return site


async def test_an_issuer_says_where_its_logins_are():
    assert await discovery(saying()).endpoints() == Endpoints(
        f"{URL}/authorize", f"{URL}/token", names_itself=False, takes_basic=True
    )


@pytest.mark.parametrize(
    ("said", "names_itself", "takes_basic"),
    [
        ({"authorization_response_iss_parameter_supported": True}, True, True),
        ({"authorization_response_iss_parameter_supported": "true"}, False, True),
        ({"token_endpoint_auth_methods_supported": ["client_secret_post"]}, False, False),
        ({"token_endpoint_auth_methods_supported": "client_secret_post"}, False, True),
    ],
)
async def test_an_issuer_says_what_it_can(said: dict[str, Any], names_itself: bool, takes_basic: bool):
    found = await discovery(saying(**said)).endpoints()

    assert (found.names_itself, found.takes_basic) == (names_itself, takes_basic)


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://another.example"},
        {"authorization_endpoint": None},
        {"authorization_endpoint": "http://login.example.com/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": "http://127.0.0.1:1/"},
        {"token_endpoint": 7},
    ],
)
async def test_an_issuer_that_says_something_else_is_not_believed(said: dict[str, Any]):
    with pytest.raises(IssuerUnavailable):
        await discovery(saying(**said)).endpoints()


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 100_000])
async def test_an_issuer_that_says_no_json_is_not_believed(body: bytes):
    site = Site()
    site.pages[CONFIGURATION] = body
    with pytest.raises(IssuerUnavailable):
        await discovery(site).endpoints()


async def test_many_logins_ask_once():
    site = saying()
    found = discovery(site)

    await asyncio.gather(*[found.endpoints() for _ in range(20)])

    assert len(site.asked) == 1


async def test_what_was_said_is_asked_for_again_and_believed_for_a_day():
    site, clock = saying(), StepClock()
    found = discovery(site, clock)
    first = await found.endpoints()

    del site.pages[CONFIGURATION]
    clock.elapse(RENEW_AFTER_S)
    assert await found.endpoints() == first
    assert len(site.asked) == 1
    clock.elapse(1)
    assert await found.endpoints() == first
    await asyncio.sleep(0)
    assert len(site.asked) == 2
    clock.elapse(STALE_S)
    with pytest.raises(IssuerUnavailable):
        await found.endpoints()


async def test_endpoints_that_nobody_used_for_long_are_asked_for_before_they_are_used():
    site, clock = saying(), StepClock()
    found = discovery(site, clock)
    await found.endpoints()

    site.pages[CONFIGURATION] = {**SAID, "token_endpoint": f"{URL}/moved"}
    clock.elapse(OLD_S + 1)

    assert (await found.endpoints()).token == f"{URL}/moved"


async def test_an_issuer_that_is_away_is_not_asked_by_everybody():
    site, clock = saying(), StepClock()
    site.pages.clear()
    found = discovery(site, clock)
    for _ in range(5):
        with pytest.raises(IssuerUnavailable):
            await found.endpoints()
    assert len(site.asked) == 1

    site.pages[CONFIGURATION] = SAID
    clock.elapse(RETRY_S)

    assert (await found.endpoints()).token == SAID["token_endpoint"]
