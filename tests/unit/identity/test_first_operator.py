"""The operator of the first start."""

from casekeeper.identity.accounts import Account, PutAccount, StoredAccount
from casekeeper.identity.logins import Login
from casekeeper.identity.opening import first_operator
from casekeeper.ids import new_pseudonym
from casekeeper.journal.commits import Commit
from casekeeper.journal.opening import Journal
from casekeeper.paging import Cursors
from tests.unit.support import ROOT, House, fast_passwords


def journal(house: House) -> Journal:
    return Journal(house.commits, house.requests, Cursors(b"s" * 32), house.clock, house.live)


async def test_a_store_without_accounts_gets_an_operator_whose_password_is_told(house: House):
    made = await first_operator(ROOT, journal(house), house.storage.accounts, fast_passwords())

    assert made is not None
    assert made.user_id == ROOT
    await house.logins.log_in(Login(user_id=ROOT, password=made.password))
    stored = await house.storage.accounts.account(ROOT)
    assert stored is not None
    assert stored.account.is_operator


async def test_a_store_that_has_accounts_gets_none(house: House):
    await house.account(ROOT, is_operator=True)

    assert await first_operator(ROOT, journal(house), house.storage.accounts, fast_passwords()) is None


async def test_of_two_processes_that_start_at_once_one_makes_the_operator(house: House):
    async def quicker(_: Commit) -> None:
        account = Account(user_id=ROOT, is_operator=True, created_at=house.clock(), pseudonym=new_pseudonym())
        await house.storage.commits.commit(Commit(records=(PutAccount(StoredAccount(account, None)),)))

    house.commits.meanwhile(quicker)

    assert await first_operator(ROOT, journal(house), house.storage.accounts, fast_passwords()) is None
