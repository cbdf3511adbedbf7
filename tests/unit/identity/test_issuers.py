"""Tokens from outside: the good one of each kind, and all that a hostile one may try."""

import asyncio
import json
from typing import Any

import pytest
from pydantic import ValidationError

from casekeeper.errors import CredentialsRejected
from casekeeper.identity.issuer import Issuer
from casekeeper.identity.issuer_keys import IssuerKeys
from casekeeper.identity.issuers import TOKEN_BYTES_MAX, ExternalUser, Issuers, user_of_subject
from tests.unit.identity.issuing import (
    AUDIENCE,
    EC,
    ED,
    OTHER_RSA,
    RSA,
    URL,
    Site,
    claims,
    public,
    signed,
    unsigned,
    with_secret,
    with_text,
)
from tests.unit.support import NOW, StepClock

OTHER = "https://accounts.example.org"
AT = int(NOW.timestamp())
MAIL: dict[str, Any] = {"email": "Anna@Example.com", "email_verified": True}


def issuers(*sites: Site, **more: Any) -> Issuers:
    """One issuer with a key of each kind, or these."""
    clock = StepClock()
    settings: dict[str, Any] = {"issuer": URL, "audience": AUDIENCE, **more}
    issuer = Issuer(**settings)
    site = (
        sites[0] if sites else Site(public(RSA), public(OTHER_RSA, "k2"), public(EC, "ec"), public(ED, "ed"))
    )
    return Issuers([(issuer, IssuerKeys(issuer, site.fetch, clock.monotonic))], clock)


# Good ones


@pytest.mark.parametrize(
    ("family", "key", "kid", "alg"),
    [
        ("RSA", RSA, "k1", "RS256"),
        ("RSA", RSA, "k1", "RS512"),
        ("RSA-PSS", RSA, "k1", "PS256"),
        ("EC", EC, "ec", "ES256"),
        ("Ed25519", ED, "ed", "EdDSA"),
        ("Ed25519", ED, "ed", "Ed25519"),
    ],
)
async def test_a_token_of_the_issuers_family_is_believed(family: str, key: Any, kid: str, alg: str):
    user = await issuers(algorithm=family).user_of(signed(claims(), key, alg, kid))

    assert user == ExternalUser(user_of_subject(URL, "anna-1"), "", may_be_made=False)


@pytest.mark.parametrize(
    "more",
    [
        {"aud": [AUDIENCE]},
        {"aud": [AUDIENCE, "another"], "azp": AUDIENCE},
        {"exp": AT + 0.5},
        {"exp": AT - 4},
        {"iat": AT + 4, "nbf": AT + 4},
        {"email": 7, "email_verified": "perhaps", "name": ["x"]},
    ],
)
async def test_what_the_standard_leaves_open_is_no_fault(more: dict[str, Any]):
    await issuers().user_of(signed(claims(**more)))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
async def test_tokens_say_what_they_are(typ: str):
    await issuers().user_of(signed(claims(), typ=typ))


async def test_a_verified_address_is_the_account_where_the_issuer_may_say_so():
    user = await issuers(link="email", creates_accounts=True).user_of(signed(claims(**MAIL, name="Anna A.")))

    assert user == ExternalUser("anna@example.com", "Anna A.", may_be_made=True)


async def test_an_unprintable_name_is_left_out():
    assert (await issuers().user_of(signed(claims(name="a\x00b")))).display_name == ""


async def test_two_issuers_never_share_a_subject():
    assert user_of_subject(URL, "1") != user_of_subject(OTHER, "1")
    assert user_of_subject(URL, "1") != user_of_subject(URL + "1", "")


# Hostile ones

GARBAGE = [
    "",
    "x",
    "a.b.c",
    "....",
    "e30.e30.",
    "W10.W10.",
    "é.é.é",
    signed(claims()) + "x" * TOKEN_BYTES_MAX,
]

BAD: dict[str, str] = {
    "alg none": unsigned(claims()),
    "alg nOnE": unsigned(claims(), "nOnE"),
    "alg missing": unsigned(claims(), None),  # pyright: ignore[reportArgumentType]
    "the public key as an HMAC secret": with_secret(claims(), RSA.as_pem(private=False)),
    "another family": signed(claims(), EC, "ES256", "ec"),
    "PSS where RSA is said": signed(claims(), RSA, "PS256"),
    "an unknown kid": signed(claims(), kid="k9"),
    "a kid that is no text": unsigned(claims(), "RS256", kid=7),
    "no kid among several keys": signed(claims(), kid=None),
    "a stranger's key under a known kid": signed(claims(), OTHER_RSA),
    "a key of its own": signed(claims(), OTHER_RSA, jwk=public(OTHER_RSA)),
    "a place of its own for keys": signed(claims(), OTHER_RSA, jku="https://evil.example.com/keys"),
    "crit": signed(claims(), crit=["b64"], b64=True),
    "a logout token": signed(claims(), typ="logout+jwt"),
    "typ that is no text": unsigned(claims(), "RS256", typ=7),
    "no issuer": signed(claims(iss=None)),
    "another issuer": signed(claims(iss=OTHER)),
    "the issuer with a slash": signed(claims(iss=URL + "/")),
    "the issuer in a list": signed(claims(iss=[URL])),
    "another audience": signed(claims(aud="another")),
    "no audience": signed(claims(aud=None)),
    "an empty audience": signed(claims(aud=[])),
    "several audiences, for nobody's use": signed(claims(aud=[AUDIENCE, "another"])),
    "for another party's use": signed(claims(azp="another")),
    "expired": signed(claims(exp=AT - 6)),
    "no end": signed(claims(exp=None)),
    "an end in words": signed(claims(exp="tomorrow")),
    "an end beyond time": signed(claims(exp=1e300)),
    "from the future": signed(claims(iat=AT + 6)),
    "not yet": signed(claims(nbf=AT + 60)),
    "no subject": signed(claims(sub=None)),
    "an empty subject": signed(claims(sub="")),
    "a subject that is a number": signed(claims(sub=7)),
    "changed afterwards": signed(claims()).replace(".", ".A", 1),
    **{f"garbage {number}": token for number, token in enumerate(GARBAGE)},
}


@pytest.mark.parametrize("name", BAD)
async def test_a_hostile_token_is_refused(name: str):
    with pytest.raises(CredentialsRejected) as refused:
        await issuers().user_of(BAD[name])

    assert refused.value.detail == refused.value.title, "nobody is told why"


@pytest.mark.parametrize("kid", ["k1", None])
async def test_a_key_that_was_replaced_under_its_name_is_found_once_in_half_a_minute(kid: str | None):
    clock, site = StepClock(), Site(public(RSA, kid))
    issuer = Issuer(issuer=URL, audience=AUDIENCE)
    them = Issuers([(issuer, IssuerKeys(issuer, site.fetch, clock.monotonic))], clock)
    old, new = (signed(claims(), key, kid=kid) for key in (RSA, OTHER_RSA))
    await them.user_of(old)
    site.publish(public(OTHER_RSA, kid))
    asked = len(site.asked)

    clock.elapse(29)
    with pytest.raises(CredentialsRejected):
        await them.user_of(new)
    assert len(site.asked) == asked
    clock.elapse(1)
    # All who wait profit from one look.
    assert (
        len({(await user).user_id for user in [asyncio.ensure_future(them.user_of(new)) for _ in range(5)]})
        == 1
    )
    assert len(site.asked) == 2 * asked
    with pytest.raises(CredentialsRejected):
        await them.user_of(old)


async def test_a_key_that_was_replaced_while_a_token_was_checked_is_taken():
    clock, site = StepClock(), Site(public(RSA))
    keys = IssuerKeys(Issuer(issuer=URL, audience=AUDIENCE), site.fetch, clock.monotonic)
    old = await keys.find("k1")
    assert old is not None
    site.publish(public(OTHER_RSA))
    clock.elapse(30)
    await keys.find("unknown")
    asked = len(site.asked)

    new = await keys.another("k1", old)

    assert new is not None
    assert new.thumbprint() == OTHER_RSA.thumbprint()
    assert len(site.asked) == asked


async def test_a_forged_signature_leads_to_one_look_in_half_a_minute():
    clock, site = StepClock(), Site(public(RSA))
    issuer = Issuer(issuer=URL, audience=AUDIENCE)
    them = Issuers([(issuer, IssuerKeys(issuer, site.fetch, clock.monotonic))], clock)
    await them.user_of(signed(claims()))
    asked = len(site.asked)
    for looks in (2, 3):
        clock.elapse(30)
        for _ in range(5):
            with pytest.raises(CredentialsRejected):
                await them.user_of(signed(claims(), OTHER_RSA))
        assert len(site.asked) == looks * asked


async def test_a_token_without_kid_is_refused_once_there_are_two_keys():
    clock, site = StepClock(), Site(public(RSA))
    issuer = Issuer(issuer=URL, audience=AUDIENCE)
    them = Issuers([(issuer, IssuerKeys(issuer, site.fetch, clock.monotonic))], clock)
    await them.user_of(signed(claims(), kid=None))
    site.publish(public(RSA, "k1"), public(OTHER_RSA, "k2"))
    clock.elapse(30)

    with pytest.raises(CredentialsRejected):
        await them.user_of(signed(claims(), OTHER_RSA, kid=None))


@pytest.mark.parametrize(
    ("of", "nonce", "said", "good"),
    [
        (URL, "n", {"nonce": "n"}, True),
        (None, None, {"nonce": "n"}, True),
        (URL, "n", {"nonce": "another"}, False),
        (URL, "n", {}, False),
        (URL, "", {}, False),
        (URL, "n", {"nonce": ["n"]}, False),
        (OTHER, "n", {"nonce": "n"}, False),
    ],
)
async def test_a_token_is_for_one_login_at_one_issuer(
    of: str | None, nonce: str | None, said: dict[str, Any], good: bool
):
    asked = issuers().user_of(signed(claims(**said)), of=of, nonce=nonce)
    if good:
        assert (await asked).user_id == user_of_subject(URL, "anna-1")
    else:
        with pytest.raises(CredentialsRejected):
            await asked


@pytest.mark.parametrize("part", ["header", "claims"])
async def test_what_stands_twice_in_a_token_is_refused(part: str):
    head, said = b'{"alg":"RS256","kid":"k1"}', json.dumps(claims()).encode()
    if part == "header":
        twice = with_text(b'{"alg":"none",' + head[1:], said)
    else:
        twice = with_text(head, b'{"sub":"ben-1",' + said[1:])

    assert (await issuers().user_of(with_text(head, said))).user_id == user_of_subject(URL, "anna-1")
    with pytest.raises(CredentialsRejected):
        await issuers().user_of(twice)


async def test_another_issuers_key_proves_nothing():
    ours, theirs = Site(public(RSA)), Site(public(OTHER_RSA))
    clock = StepClock()
    here = Issuer(issuer=URL, audience=AUDIENCE)
    there = Issuer(issuer=OTHER, audience=AUDIENCE, jwks_uri=f"{URL}/keys")
    both = Issuers(
        [(i, IssuerKeys(i, s.fetch, clock.monotonic)) for i, s in ((here, ours), (there, theirs))], clock
    )

    assert (await both.user_of(signed(claims(iss=OTHER), OTHER_RSA))).user_id == user_of_subject(
        OTHER, "anna-1"
    )
    for token in (signed(claims(), OTHER_RSA), signed(claims(iss=OTHER), RSA)):
        with pytest.raises(CredentialsRejected):
            await both.user_of(token)


@pytest.mark.parametrize(
    "mail",
    [
        {},
        {"email": "anna@example.com"},
        {"email": "anna@example.com", "email_verified": False},
        {"email": "anna@example.com", "email_verified": "true"},
        {"email": "anna@example.com", "email_verified": 1},
        {"email": "anna", "email_verified": True},
        {"email": "anna@example.com\n", "email_verified": True},
        {"email": "аnna@example.com", "email_verified": True},
        {"email": 7, "email_verified": True},
        {"email": "anna@example.com.evil.org", "email_verified": True},
        {"email": "anna@sub.example.com", "email_verified": True},
    ],
)
async def test_an_address_that_the_issuer_does_not_vouch_for_is_nobody(mail: dict[str, Any]):
    judging = issuers(link="email", email_domains=["EXAMPLE.com"])
    await judging.user_of(signed(claims(**MAIL)))

    with pytest.raises(CredentialsRejected):
        await judging.user_of(signed(claims(**mail)))


@pytest.mark.parametrize(
    "more",
    [
        {"issuer": "http://login.example.com"},
        {"issuer": "https://user@login.example.com"},
        {"issuer": "https://login.example.com/#a"},
        {"issuer": "login.example.com"},
        {"jwks_uri": "http://10.0.0.1/keys"},
        {"jwks_uri": "https://:80000/"},
        {"algorithm": "HS256"},
        {"audience": ""},
        {"leeway_s": 121},
        {"email_domains": ["example.com"]},
        {"client_secret": "secret"},
    ],
)
def test_an_issuer_that_does_not_fit_stops_the_start(more: dict[str, Any]):
    with pytest.raises(ValidationError):
        Issuer.model_validate({"issuer": URL, "audience": AUDIENCE, **more})


@pytest.mark.parametrize("url", ["http://localhost:1", "http://127.0.0.1:1/x", "http://[::1]:1"])
def test_loopback_needs_no_tls(url: str):
    assert Issuer(issuer=url, audience=AUDIENCE).is_loopback
