import asyncio
from typing import Any

import pytest

from casekeeper.errors import IssuerUnavailable
from casekeeper.identity.issuer import Issuer
from casekeeper.identity.issuer_keys import KEYS_MAX, IssuerKeys
from casekeeper.identity.published import COOLDOWN_S, OLD_S, RENEW_AFTER_S, RETRY_S, STALE_S
from tests.unit.identity.issuing import (
    AUDIENCE,
    CONFIGURATION,
    EC,
    ED,
    JWKS,
    OTHER_RSA,
    RSA,
    URL,
    Site,
    public,
)
from tests.unit.support import StepClock

SMALL = {"kty": "RSA", "e": "AQAB", "n": "a" * 171, "kid": "k1"}


def keys_of(site: Site, clock: StepClock, **more: Any) -> IssuerKeys:
    settings: dict[str, Any] = {"issuer": URL, "audience": AUDIENCE, **more}
    return IssuerKeys(Issuer(**settings), site.fetch, clock.monotonic)


async def test_keys_are_found_where_the_issuer_says():
    site = Site(public(RSA), public(OTHER_RSA, "k2"))
    keys = keys_of(site, StepClock())

    found = await keys.find("k2")

    assert found is not None
    assert found.as_dict(private=False)["n"] == OTHER_RSA.as_dict()["n"]
    assert site.asked == [CONFIGURATION, JWKS]


async def test_a_setting_says_where_instead():
    site = Site()
    await keys_of(site, StepClock(), jwks_uri=JWKS).find("k1")

    assert site.asked == [JWKS]


async def test_many_who_come_at_once_ask_once():
    site, clock = Site(), StepClock()
    keys = keys_of(site, clock)

    found = await asyncio.gather(*(keys.find("k1") for _ in range(50)))

    assert (len(site.asked), all(found)) == (2, True)


async def test_a_flood_of_unknown_kids_asks_once_in_thirty_seconds():
    site, clock = Site(), StepClock()
    keys = keys_of(site, clock, jwks_uri=JWKS)
    await keys.find("k1")

    for number in range(10_000):
        assert await keys.find(f"unknown-{number}") is None
    assert len(site.asked) == 1
    clock.elapse(COOLDOWN_S)
    for number in range(100):
        assert await keys.find(f"unknown-{number}") is None

    assert len(site.asked) == 2


async def test_a_new_key_is_found_when_a_token_names_it():
    site, clock = Site(), StepClock()
    keys = keys_of(site, clock)
    await keys.find("k1")
    site.publish(public(RSA), public(OTHER_RSA, "k2"))
    clock.elapse(COOLDOWN_S)

    assert await keys.find("k2") is not None


async def test_known_keys_go_on_while_the_issuer_is_away():
    site, clock = Site(), StepClock()
    keys = keys_of(site, clock, jwks_uri=JWKS)
    await keys.find("k1")
    site.pages.clear()

    for _ in range(10):
        clock.elapse(STALE_S / 10)
        assert await keys.find("k1") is not None
    clock.elapse(1)
    with pytest.raises(IssuerUnavailable):
        await keys.find("k1")


async def test_a_key_that_was_taken_back_is_forgotten():
    site, clock = Site(), StepClock()
    keys = keys_of(site, clock)
    await keys.find("k1")
    site.publish(public(OTHER_RSA, "k2"))

    clock.elapse(OLD_S + 1)

    assert await keys.find("k1") is None


async def test_younger_keys_are_renewed_without_anybody_waiting():
    site, clock = Site(), StepClock()
    keys = keys_of(site, clock, jwks_uri=JWKS)
    await keys.find("k1")
    site.publish(public(OTHER_RSA, "k2"))
    clock.elapse(RENEW_AFTER_S + 1)

    assert await keys.find("k1") is not None
    for _ in range(5):
        await asyncio.sleep(0)

    assert await keys.find("k2") is not None
    assert len(site.asked) == 2


async def test_an_issuer_that_never_answered_is_asked_again_after_a_while():
    site, clock = Site(), StepClock()
    page = site.pages.pop(JWKS)
    keys = keys_of(site, clock, jwks_uri=JWKS)

    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await keys.find("k1")
    assert len(site.asked) == 1
    site.pages[JWKS] = page
    clock.elapse(RETRY_S)

    assert await keys.find("k1") is not None


async def test_a_token_without_kid_takes_the_only_key():
    assert await keys_of(Site(public(RSA, None)), StepClock()).find(None) is not None
    assert await keys_of(Site(public(RSA), public(OTHER_RSA, "k2")), StepClock()).find(None) is None


@pytest.mark.parametrize(
    ("page", "body"),
    [
        (CONFIGURATION, {"issuer": URL + "/", "jwks_uri": JWKS}),
        (CONFIGURATION, {"issuer": "https://evil.example.com", "jwks_uri": JWKS}),
        (CONFIGURATION, {"issuer": URL}),
        (CONFIGURATION, {"issuer": URL, "jwks_uri": 7}),
        (CONFIGURATION, {"issuer": URL, "jwks_uri": "http://login.example.com/keys"}),
        (CONFIGURATION, {"issuer": URL, "jwks_uri": "http://127.0.0.1/keys"}),
        (CONFIGURATION, {"issuer": URL, "jwks_uri": "file:///etc/passwd"}),
        (CONFIGURATION, {"issuer": URL, "jwks_uri": "https://[broken/keys"}),
        (CONFIGURATION, [1]),
        (JWKS, b"not json"),
        (JWKS, b"[" * 100_000),
        (JWKS, {"keys": "none"}),
        (JWKS, {"keys": []}),
        (JWKS, {"keys": [7, {}, {"kty": "oct", "k": "AAAA", "kid": "k1"}]}),
        (JWKS, {"keys": [public(RSA, use="enc")]}),
        (JWKS, {"keys": [public(RSA, key_ops=["encrypt"])]}),
        (JWKS, {"keys": [public(EC), public(ED)]}),
        (JWKS, {"keys": [{"kty": "RSA", "kid": "k1", "n": 5, "e": "AQAB"}]}),
        (JWKS, {"keys": [SMALL]}),
        (JWKS, {"keys": [*({"kid": str(n)} for n in range(KEYS_MAX)), public(RSA)]}),
    ],
)
async def test_what_is_no_set_of_signing_keys_gives_none(page: str, body: Any):
    site = Site()
    site.pages[page] = body

    with pytest.raises(IssuerUnavailable):
        await keys_of(site, StepClock()).find("k1")


@pytest.mark.parametrize(
    ("family", "key", "wrong"),
    [("EC", EC, {"crv": "secp256k1"}), ("Ed25519", ED, {"crv": "X25519"}), ("RSA-PSS", RSA, {"kty": "EC"})],
)
async def test_each_family_has_its_keys(family: str, key: Any, wrong: dict[str, Any]):
    site = Site(public(key, "bad") | wrong, public(key))
    keys = keys_of(site, StepClock(), algorithm=family)

    assert await keys.find("k1") is not None
    assert await keys.find("bad") is None


async def test_loopback_may_be_asked_without_tls_by_loopback_only():
    local = "http://127.0.0.1:9400"
    site = Site()
    site.pages = {
        f"{local}/.well-known/openid-configuration": {"issuer": local, "jwks_uri": f"{local}/jwks"},
        f"{local}/jwks": {"keys": [public(RSA)]},
    }

    assert await keys_of(site, StepClock(), issuer=local).find("k1") is not None
