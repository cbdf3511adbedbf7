import pytest

from casekeeper.errors import TokenMissing, TokenRejected
from casekeeper.identity.account_commands import UpdateAccount
from tests.unit.support import ANNA, House


async def test_a_caller_without_a_token_is_told_so(house: House):
    with pytest.raises(TokenMissing):
        await house.authenticator.authenticate(None)


async def test_an_empty_token_is_none(house: House):
    with pytest.raises(TokenMissing):
        await house.authenticator.authenticate("")


async def test_a_good_token_makes_a_principal(house: House):
    await house.account(ANNA)
    token = (await house.logins.mint_for(ANNA)).access_token

    assert (await house.authenticator.authenticate(token)).user_id == ANNA


async def test_a_token_from_before_a_change_of_the_account_is_refused(house: House):
    await house.account(ANNA)
    operator = await house.caller("root@example.com")
    token = (await house.logins.mint_for(ANNA)).access_token
    await house.authenticator.authenticate(token)

    command = UpdateAccount(user_id=ANNA, password="a new password")
    await house.accounts.update(operator, command, house.ask(operator))

    with pytest.raises(TokenRejected, match="log in again"):
        await house.authenticator.authenticate(token)
