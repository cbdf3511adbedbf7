import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from casekeeper.errors import AccountNotFound, CredentialsRejected, KeyNotFound, OperatorOnly
from casekeeper.identity.account_commands import DeactivateAccount
from casekeeper.identity.api_keys import CreateKey, ListKeys, NewApiKey, RevokeKey
from casekeeper.identity.logins import Login
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from tests.unit.support import ANNA, BEN, NOW, ROOT, House


async def make_key(house: House, by: Principal, **fields: Any) -> NewApiKey:
    key, _ = await house.api_keys.create(by, CreateKey(**fields), house.ask(by))
    return key


async def opens(house: House, key: NewApiKey) -> bool:
    try:
        await house.logins.log_in(Login(api_key=key.api_key))
    except CredentialsRejected:
        return False
    return True


async def revoke(house: House, by: Principal, key_id: str) -> None:
    await house.api_keys.revoke(by, RevokeKey(key_id=key_id), house.ask(by))


async def test_a_key_logs_its_account_in(house: House):
    key = await make_key(house, await house.caller(ANNA), name="script")

    tokens = await house.logins.log_in(Login(api_key=key.api_key))

    assert (tokens.user_id, key.user_id, key.name) == (ANNA, ANNA, "script")


@pytest.mark.parametrize("change", ["x", "_x", " "])
async def test_a_key_with_another_secret_opens_nothing(house: House, change: str):
    key = await make_key(house, await house.caller(ANNA))
    assert key.api_key is not None

    with pytest.raises(CredentialsRejected):
        await house.logins.log_in(Login(api_key=key.api_key + change))


async def test_an_expired_key_opens_nothing(house: House):
    key = await make_key(house, await house.caller(ANNA), expires_at=NOW + timedelta(hours=1))
    before = await opens(house, key)
    house.clock.advance(hours=1)

    assert (before, await opens(house, key)) == (True, False)


async def test_a_key_without_an_end_goes_on(house: House):
    key = await make_key(house, await house.caller(ANNA))
    house.clock.advance(days=3650)

    assert await opens(house, key)


async def test_a_revoked_key_opens_nothing(house: House):
    anna = await house.caller(ANNA)
    key = await make_key(house, anna)

    await revoke(house, anna, key.key_id)

    assert not await opens(house, key)


async def test_the_end_of_a_key_ends_every_token_of_its_account(house: House):
    anna = await house.caller(ANNA)
    key = await make_key(house, anna)
    token = (await house.logins.log_in(Login(api_key=key.api_key))).access_token
    principal = house.tokens.verify(token)

    await revoke(house, anna, key.key_id)

    assert not await house.freshness.stands(principal.user_id, principal.epoch, principal.asof)


async def test_a_login_that_races_with_the_end_of_its_key_gets_nothing(house: House):
    anna = await house.caller(ANNA)
    key = await make_key(house, anna)

    async def rival(_: Commit) -> None:
        await revoke(house, anna, key.key_id)

    house.commits.meanwhile(rival)

    assert not await opens(house, key)


async def test_a_key_of_a_deactivated_account_opens_nothing(house: House):
    root = await house.caller(ROOT)
    key = await make_key(house, await house.caller(ANNA))

    await house.accounts.deactivate(root, DeactivateAccount(user_id=ANNA), house.ask(root))

    assert not await opens(house, key)


async def test_revoking_again_changes_nothing(house: House):
    anna = await house.caller(ANNA)
    key = await make_key(house, anna)
    await revoke(house, anna, key.key_id)
    number = (await house.storage.accounts.head()).number
    house.clock.advance(hours=1)

    again, _ = await house.api_keys.revoke(anna, RevokeKey(key_id=key.key_id), house.ask(anna))

    assert (again.revoked_at, (await house.storage.accounts.head()).number) == (NOW, number)


async def test_a_repeated_revoke_is_a_repeat(house: House):
    anna = await house.caller(ANNA)
    key = await make_key(house, anna)
    command = RevokeKey(key_id=key.key_id)
    await house.api_keys.revoke(anna, command, house.ask(anna, "req"))

    answer, repeated = await house.api_keys.revoke(anna, command, house.ask(anna, "req"))

    assert (answer.revoked_at, repeated) == (NOW, True)


async def test_a_repeated_create_does_not_show_the_secret_again(house: House):
    anna = await house.caller(ANNA)
    first, _ = await house.api_keys.create(anna, CreateKey(), house.ask(anna, "req"))

    again, repeated = await house.api_keys.create(anna, CreateKey(), house.ask(anna, "req"))

    assert (again.key_id, again.api_key, repeated) == (first.key_id, None, True)


async def test_of_two_equal_requests_at_once_one_key_comes(house: House):
    anna = await house.caller(ANNA)

    answers = await asyncio.gather(
        *(house.api_keys.create(anna, CreateKey(), house.ask(anna, "req")) for _ in range(4))
    )

    assert len({key.key_id for key, _ in answers}) == 1
    assert len((await house.api_keys.page(anna, ListKeys())).items) == 1


async def test_keys_are_listed_oldest_first_without_their_secrets(house: House):
    anna = await house.caller(ANNA)
    made = list[NewApiKey]()
    for _ in range(3):
        made.append(await make_key(house, anna))
        house.clock.advance(seconds=1)

    keys = (await house.api_keys.page(anna, ListKeys())).items

    assert [key.key_id for key in keys] == [key.key_id for key in made]
    assert not any(hasattr(key, "api_key") for key in keys)


async def test_an_operator_makes_and_lists_keys_for_others(house: House):
    root = await house.caller(ROOT)
    await house.account(ANNA)

    key = await make_key(house, root, user_id=ANNA)

    assert [k.key_id for k in (await house.api_keys.page(root, ListKeys(user_id=ANNA))).items] == [key.key_id]


async def test_users_make_and_list_no_keys_of_others(house: House):
    anna = await house.caller(ANNA)
    await house.account(BEN)

    with pytest.raises(OperatorOnly):
        await make_key(house, anna, user_id=BEN)
    with pytest.raises(OperatorOnly):
        await house.api_keys.page(anna, ListKeys(user_id=BEN))


async def test_naming_oneself_is_like_naming_nobody(house: House):
    anna = await house.caller(ANNA)

    assert (await make_key(house, anna, user_id=ANNA)).user_id == ANNA


async def test_there_are_no_keys_for_an_account_that_is_missing(house: House):
    root = await house.caller(ROOT)

    with pytest.raises(AccountNotFound):
        await make_key(house, root, user_id=BEN)


async def test_no_keys_are_listed_of_an_account_that_is_missing(house: House):
    root = await house.caller(ROOT)

    with pytest.raises(AccountNotFound):
        await house.api_keys.page(root, ListKeys(user_id=BEN))


async def test_another_users_key_is_hidden_like_a_missing_one(house: House):
    anna, ben = await house.caller(ANNA), await house.caller(BEN)
    key = await make_key(house, anna)

    for key_id in (key.key_id, "key_000000000000"):
        with pytest.raises(KeyNotFound):
            await revoke(house, ben, key_id)


async def test_an_operator_revokes_anybodys_key(house: House):
    root = await house.caller(ROOT)
    key = await make_key(house, await house.caller(ANNA))

    await revoke(house, root, key.key_id)

    assert not await opens(house, key)


async def test_a_repeat_of_a_key_that_is_gone_is_told_so(house: House):
    anna = await house.caller(ANNA)
    ask = house.ask(anna, "req")
    claim = house.requests.claim(ask, "key_000000000000")
    await house.commits.commit(Commit(conditions=claim, records=claim))

    with pytest.raises(KeyNotFound):
        await house.api_keys.create(anna, CreateKey(), ask)


@pytest.mark.parametrize(
    "end",
    ["2026-01-01T00:00:00", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "never", 10**30],
)
def test_an_end_that_no_store_could_keep_is_refused(end: Any):
    with pytest.raises(ValidationError, match="expires_at"):
        CreateKey(expires_at=end)


def test_an_end_is_kept_in_utc():
    command = CreateKey.model_validate({"expires_at": "2026-01-01T02:00:00+02:00"})

    assert command.expires_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert command.model_dump_json(include={"expires_at"}) == '{"expires_at":"2026-01-01T00:00:00Z"}'
