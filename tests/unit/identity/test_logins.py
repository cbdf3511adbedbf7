import hashlib
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from casekeeper.acl import Role
from casekeeper.errors import AccountNotFound, CredentialsRejected, TokenRejected
from casekeeper.identity.account_commands import DeactivateAccount, UpdateAccount
from casekeeper.identity.issuer import Issuer
from casekeeper.identity.issuer_keys import IssuerKeys
from casekeeper.identity.issuers import Issuers, user_of_subject
from casekeeper.identity.logins import (
    REFRESH_LIFETIME,
    REPLY_LOST,
    Login,
    Logins,
    PutRefresh,
    Refresh,
    TokenSet,
)
from casekeeper.identity.principal import Principal
from casekeeper.identity.tokens import LIFETIME
from casekeeper.journal.commits import Commit
from tests.unit.identity.issuing import AUDIENCE, URL, Site, claims, signed
from tests.unit.support import ANNA, BEN, NOW, PASSWORD, ROOT, House, fast_passwords

BY_PASSWORD = Login(user_id=ANNA, password=PASSWORD)


@pytest.fixture(autouse=True)
async def people(house: House) -> None:
    """Anna with a password, and an operator."""
    await house.account(ANNA, password=PASSWORD)
    await house.account(ROOT, is_operator=True)


async def change(house: House, **changes: Any) -> None:
    root = await house.caller(ROOT)
    await house.accounts.update(root, UpdateAccount(user_id=ANNA, **changes), house.ask(root))


async def log_in(house: House, **more: Any) -> TokenSet:
    return await house.logins.log_in(BY_PASSWORD.model_copy(update=more))


async def refreshed(house: House, token: str | None) -> TokenSet:
    assert token is not None
    return await house.logins.refresh(Refresh(refresh_token=token))


def principal_of(house: House, tokens: TokenSet) -> Principal:
    return house.tokens.verify(tokens.access_token)


# Logging in


async def test_the_right_password_gives_tokens(house: House):
    tokens = await log_in(house)

    assert (tokens.user_id, tokens.expires_in, tokens.casefile_scopes) == (ANNA, 600, {})
    assert principal_of(house, tokens).user_id == ANNA
    assert tokens.refresh_token is not None


@pytest.mark.parametrize(
    "login",
    [
        Login(user_id=ANNA, password="wrong password"),
        Login(user_id=BEN, password=PASSWORD),
        Login(user_id=ROOT, password=PASSWORD),
        Login(api_key="ck_0123456789ab_secret"),
        Login(api_key="ck"),
        Login(api_key="ck__"),
        Login(api_key="key_0123456789ab"),
        Login(api_key="é\x00"),
    ],
    ids=["wrong password", "no account", "no password", "no such key", "prefix", "parts", "an id", "hostile"],
)
async def test_wrong_credentials_are_rejected_alike(house: House, login: Login):
    with pytest.raises(CredentialsRejected) as rejected:
        await house.logins.log_in(login)

    assert rejected.value.detail == CredentialsRejected.title


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"user_id": ANNA},
        {"password": PASSWORD},
        {"user_id": ANNA, "password": PASSWORD, "api_key": "ck_1_2"},
        {"api_key": ""},
        {"user_id": ANNA, "password": ""},
        {"api_key": "ck_1_2", "casefile_ids": ["cf_251023_5acf44"] * 65},
    ],
)
def test_a_login_goes_one_way(fields: dict[str, Any]):
    with pytest.raises(ValidationError):
        Login(**fields)


async def test_a_login_carries_the_scopes_that_it_asks_for(house: House):
    anna, ben = await house.caller(ANNA), await house.caller(BEN)
    own, other = await house.casefile(anna), await house.casefile(ben)

    tokens = await log_in(house, casefile_ids=[own.casefile_id, other.casefile_id, "cf_251023_000000"])

    assert tokens.casefile_scopes == {own.casefile_id: "owner"}


async def test_a_token_is_as_old_as_its_snapshot(house: House):
    tokens = await log_in(house)

    assert principal_of(house, tokens).asof == (await house.storage.accounts.head()).number


@pytest.mark.parametrize(
    "changes", [{"password": "another password"}, {"is_active": False}, {"is_operator": True}]
)
async def test_a_login_that_races_with_a_change_of_its_account_gets_nothing(
    house: House, changes: dict[str, Any]
):
    async def rival(_: Commit) -> None:
        await change(house, **changes)

    house.commits.meanwhile(rival)

    with pytest.raises(CredentialsRejected):
        await log_in(house)


async def test_a_permission_change_of_others_does_not_disturb_a_login(house: House):
    ben = await house.caller(BEN)

    async def rival(_: Commit) -> None:
        await house.casefile(ben)

    house.commits.meanwhile(rival)

    assert (await log_in(house)).user_id == ANNA


async def test_a_token_can_be_made_with_the_data_directory_at_hand(house: House):
    tokens = await house.logins.mint_for(ANNA)

    assert (principal_of(house, tokens).user_id, tokens.refresh_token) == (ANNA, None)


@pytest.mark.parametrize("user_id", [BEN, ANNA])
async def test_no_token_is_made_for_an_account_that_is_not_active(house: House, user_id: str):
    root = await house.caller(ROOT)
    await house.accounts.deactivate(root, DeactivateAccount(user_id=ANNA), house.ask(root))

    with pytest.raises(AccountNotFound):
        await house.logins.mint_for(user_id)


# Refreshing


async def test_a_refresh_token_gives_the_next_tokens(house: House):
    first = await log_in(house)

    second = await refreshed(house, first.refresh_token)

    assert principal_of(house, second).user_id == ANNA
    assert second.refresh_token != first.refresh_token


async def test_refreshing_goes_on_and_on(house: House):
    tokens = await log_in(house)
    for _ in range(5):
        house.clock.advance(days=13)
        tokens = await refreshed(house, tokens.refresh_token)

    assert principal_of(house, tokens).user_id == ANNA


async def test_a_used_token_works_for_ten_seconds_since_the_reply_may_be_lost(house: House):
    first = await log_in(house)
    await refreshed(house, first.refresh_token)
    house.clock.now += REPLY_LOST

    again = await refreshed(house, first.refresh_token)

    assert (await refreshed(house, again.refresh_token)).user_id == ANNA


async def test_the_ten_seconds_count_from_the_first_use(house: House):
    first = await log_in(house)
    await refreshed(house, first.refresh_token)
    house.clock.advance(seconds=8)
    await refreshed(house, first.refresh_token)
    house.clock.advance(seconds=8)

    with pytest.raises(CredentialsRejected):
        await refreshed(house, first.refresh_token)


async def test_a_token_used_twice_ends_its_whole_family(house: House):
    first = await log_in(house)
    second = await refreshed(house, first.refresh_token)
    house.clock.now += REPLY_LOST + timedelta(microseconds=1)

    with pytest.raises(CredentialsRejected):
        await refreshed(house, first.refresh_token)
    with pytest.raises(CredentialsRejected):
        await refreshed(house, second.refresh_token)


async def test_the_end_of_a_family_leaves_other_logins_alone(house: House):
    stolen, other = await log_in(house), await log_in(house)
    await refreshed(house, stolen.refresh_token)
    house.clock.advance(minutes=1)
    with pytest.raises(CredentialsRejected):
        await refreshed(house, stolen.refresh_token)

    assert (await refreshed(house, other.refresh_token)).user_id == ANNA


async def test_a_refresh_that_races_with_the_end_of_its_family_gets_nothing(house: House):
    first = await log_in(house)
    second = await refreshed(house, first.refresh_token)
    house.clock.advance(minutes=1)

    async def thief(_: Commit) -> None:
        with pytest.raises(CredentialsRejected):
            await refreshed(house, first.refresh_token)

    house.commits.meanwhile(thief)

    with pytest.raises(CredentialsRejected):
        await refreshed(house, second.refresh_token)


async def test_a_refresh_token_ends_after_two_weeks(house: House):
    tokens = await log_in(house)
    house.clock.now += REFRESH_LIFETIME

    with pytest.raises(CredentialsRejected):
        await refreshed(house, tokens.refresh_token)


async def test_an_unknown_refresh_token_is_rejected(house: House):
    with pytest.raises(CredentialsRejected):
        await refreshed(house, "cr_unknown")


@pytest.mark.parametrize(
    "changes", [{"password": "another password"}, {"is_active": False}, {"is_operator": True}]
)
async def test_a_change_of_the_account_ends_its_refresh_tokens(house: House, changes: dict[str, Any]):
    tokens = await log_in(house)

    await change(house, **changes)

    with pytest.raises(CredentialsRejected):
        await refreshed(house, tokens.refresh_token)


async def test_a_refresh_that_races_with_a_deactivation_gets_nothing(house: House):
    tokens = await log_in(house)

    async def rival(_: Commit) -> None:
        await change(house, is_active=False)

    house.commits.meanwhile(rival)

    with pytest.raises(CredentialsRejected):
        await refreshed(house, tokens.refresh_token)


async def test_a_refresh_reads_the_role_afresh(house: House):
    anna, ben = await house.caller(ANNA), await house.caller(BEN)
    casefile = await house.casefile(ben)
    await house.grant(ben, casefile.casefile_id, ANNA, Role.EDITOR)
    tokens = await log_in(house, casefile_ids=[casefile.casefile_id])
    await house.revoke(ben, casefile.casefile_id, ANNA)
    assert tokens.refresh_token is not None

    command = Refresh(refresh_token=tokens.refresh_token, casefile_ids=[casefile.casefile_id])

    assert (await house.logins.refresh(command)).casefile_scopes == {}
    assert anna.user_id == ANNA


async def test_secrets_are_stored_as_digests_only(house: House):
    tokens = await log_in(house)
    assert tokens.refresh_token is not None
    await house.storage.commits.commit(Commit())

    path = house.storage.directory
    stored = b"".join(p.read_bytes() for p in path.glob("casekeeper.db*"))

    assert tokens.refresh_token.encode() not in stored
    assert PASSWORD.encode() not in stored


# Updated scopes


async def test_a_token_gets_one_casefile_more(house: House):
    anna = await house.caller(ANNA)
    casefile = await house.casefile(anna)
    caller = await house.caller(ANNA)

    minted = await house.logins.scopes_for(caller, casefile.casefile_id)

    assert {c: s.role for c, s in minted.scopes.items()} == {casefile.casefile_id: Role.OWNER}


async def test_the_better_token_ends_with_the_old_one(house: House):
    anna = await house.caller(ANNA)
    casefile = await house.casefile(anna)
    caller = await house.caller(ANNA)
    house.clock.advance(minutes=4)

    minted = await house.logins.scopes_for(caller, casefile.casefile_id)

    assert minted.expires_at == caller.expires_at
    assert minted.expires_at < house.clock() + LIFETIME


async def test_the_better_token_says_what_is_true_now_for_the_old_scopes_too(house: House):
    anna, ben = await house.caller(ANNA), await house.caller(BEN)
    own, lent = await house.casefile(anna), await house.casefile(ben)
    await house.grant(ben, lent.casefile_id, ANNA, Role.EDITOR)
    caller = await house.caller(ANNA, lent.casefile_id)
    await house.revoke(ben, lent.casefile_id, ANNA)

    minted = await house.logins.scopes_for(caller, own.casefile_id)

    assert list(minted.scopes) == [own.casefile_id]


async def test_the_scope_that_was_not_used_longest_leaves_first(house: House):
    anna = await house.caller(ANNA)
    ids = [(await house.casefile(anna)).casefile_id for _ in range(66)]
    caller = await house.caller(ANNA, *ids[:64])
    never_used = next(iter(caller.scopes))
    for casefile_id in caller.scopes:
        if casefile_id != never_used:
            caller.touch(casefile_id)
    oldest = next(iter(caller.used))

    one_more = await house.logins.scopes_for(caller, ids[64])
    caller.touch(oldest)

    assert one_more.evicted == (never_used,)
    assert (await house.logins.scopes_for(caller, ids[64])).evicted == (never_used,)


async def test_a_scope_that_was_used_again_stays(house: House):
    anna = await house.caller(ANNA)
    ids = [(await house.casefile(anna)).casefile_id for _ in range(65)]
    caller = await house.caller(ANNA, *ids[:64])
    for casefile_id in [*ids[:64], ids[0]]:
        caller.touch(casefile_id)

    minted = await house.logins.scopes_for(caller, ids[64])

    assert minted.evicted == (ids[1],)
    assert list(minted.scopes)[-2:] == [ids[0], ids[64]]


async def test_a_casefile_that_is_asked_for_again_is_carried_once(house: House):
    anna = await house.caller(ANNA)
    casefile = await house.casefile(anna)
    caller = await house.caller(ANNA, casefile.casefile_id)
    caller.touch(casefile.casefile_id)

    minted = await house.logins.scopes_for(caller, casefile.casefile_id)

    assert list(minted.scopes) == [casefile.casefile_id]


async def test_an_account_that_changed_gets_no_better_token(house: House):
    anna = await house.caller(ANNA)
    casefile = await house.casefile(anna)

    await change(house, password="another password")

    with pytest.raises(TokenRejected):
        await house.logins.scopes_for(anna, casefile.casefile_id)


@pytest.mark.parametrize("user_id", [ANNA, BEN])
async def test_a_refresh_token_that_a_restore_left_behind_opens_no_ended_account(house: House, user_id: str):
    await change(house, is_active=False)
    left = PutRefresh(hashlib.sha256(b"cr_left").hexdigest(), "family", user_id, NOW + REFRESH_LIFETIME)
    await house.commits.commit(Commit(records=(left,)))

    with pytest.raises(CredentialsRejected):
        await refreshed(house, "cr_left")


# With an issuer's token


def outside(house: House, **more: Any) -> Logins:
    """Logins that believe the issuer of the tests."""
    settings: dict[str, Any] = {"issuer": URL, "audience": AUDIENCE, **more}
    issuer, site = Issuer(**settings), Site()
    issuers = Issuers([(issuer, IssuerKeys(issuer, site.fetch, house.clock.monotonic))], house.clock)
    accounts = house.storage.accounts
    return Logins(
        accounts,
        house.commits,
        accounts,
        house.tokens,
        fast_passwords(),
        house.api_keys,
        house.clock,
        issuers,
    )


async def test_an_account_is_made_for_whom_the_issuer_names(house: House):
    logins = outside(house, creates_accounts=True)

    tokens = await logins.log_in(Login(id_token=signed(claims(name="Anna A."))))

    stored = await house.storage.accounts.account(tokens.user_id)
    assert stored is not None
    assert (stored.account.display_name, stored.account.is_operator, stored.password_hash) == (
        "Anna A.",
        False,
        None,
    )
    assert principal_of(house, tokens).user_id == tokens.user_id == user_of_subject(URL, "anna-1")


async def test_two_first_logins_make_one_account(house: House):
    logins = outside(house, creates_accounts=True)
    login = Login(id_token=signed(claims()))

    async def rival(commit: Commit) -> None:
        await logins.log_in(login)

    house.commits.meanwhile(rival)
    tokens = await logins.log_in(login)

    everybody = await house.storage.accounts.accounts("", 100)
    assert [account.user_id for account in everybody].count(tokens.user_id) == 1


async def test_without_an_account_nobody_is_let_in(house: House):
    with pytest.raises(CredentialsRejected):
        await outside(house).log_in(Login(id_token=signed(claims())))


async def test_a_deactivation_meanwhile_ends_the_token_that_is_made(house: House):
    logins = outside(house, link="email")
    root = await house.caller(ROOT)
    tokens = await logins.log_in(Login(id_token=signed(claims(email=ANNA, email_verified=True))))
    await house.accounts.deactivate(root, DeactivateAccount(user_id=ANNA), house.ask(root))

    with pytest.raises(TokenRejected):
        await house.authenticator.authenticate(tokens.access_token)
    with pytest.raises(CredentialsRejected):
        await logins.log_in(Login(id_token=signed(claims(email=ANNA, email_verified=True))))


async def test_where_no_issuer_is_set_none_is_believed(house: House):
    with pytest.raises(CredentialsRejected):
        await house.logins.log_in(Login(id_token=signed(claims())))
