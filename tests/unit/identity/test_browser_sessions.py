"""Browsers' sessions below the door: what is remembered, what ends them, and what comes in between."""

from datetime import timedelta
from typing import Any

import pytest

from casekeeper.errors import BrowserSessionEnded, CredentialsRejected
from casekeeper.identity.account_commands import DeactivateAccount, UpdateAccount
from casekeeper.identity.accounts import EndRefreshFamilies
from casekeeper.identity.browser_sessions import BrowserSessions
from casekeeper.identity.logins import Known, Login
from casekeeper.identity.seals import Seals
from casekeeper.identity.tokens import LIFETIME
from casekeeper.journal.commits import Commit
from tests.unit.support import ANNA, PASSWORD, ROOT, House

HOURS = timedelta(hours=2)


@pytest.fixture(autouse=True)
async def people(house: House) -> None:
    await house.account(ANNA, password=PASSWORD)
    await house.account(ROOT, is_operator=True)


@pytest.fixture
def sessions(house: House) -> BrowserSessions:
    return made(house)


def made(house: House, **more: Any) -> BrowserSessions:
    accounts = house.storage.accounts
    return BrowserSessions(
        accounts, house.commits, accounts, house.freshness, Seals(b"s" * 32), house.clock, HOURS, **more
    )


async def known(house: House) -> Known:
    return await house.logins.known(Login(user_id=ANNA, password=PASSWORD))


async def change(house: House, **changes: Any) -> None:
    root = await house.caller(ROOT)
    await house.accounts.update(root, UpdateAccount(user_id=ANNA, **changes), house.ask(root))


async def test_whoever_calls_is_looked_up_once_in_five_minutes(house: House, sessions: BrowserSessions):
    secret = (await sessions.open(await known(house))).secret
    first = await sessions.authenticate(secret)

    house.clock.advance(minutes=5)
    assert await sessions.authenticate(secret) is first
    house.clock.advance(seconds=1)
    again = await sessions.authenticate(secret)

    assert (again.user_id, again.expires_at) == (ANNA, house.clock() + LIFETIME)
    assert again is not first
    assert again.browser_session == first.browser_session


async def test_nobody_calls_longer_than_the_session_lasts(house: House, sessions: BrowserSessions):
    secret = (await sessions.open(await known(house))).secret
    house.clock.advance(minutes=117)

    principal = await sessions.authenticate(secret)

    assert principal.expires_at == house.clock() + timedelta(minutes=3)
    house.clock.advance(minutes=3)
    with pytest.raises(BrowserSessionEnded):
        await sessions.authenticate(secret)


async def test_another_process_knows_the_session_too(house: House, sessions: BrowserSessions):
    opened = await sessions.open(await known(house))
    elsewhere = made(house)

    assert await elsewhere.authenticate(opened.secret) == opened.principal


async def test_an_account_that_changes_while_it_logs_in_gets_no_session(
    house: House, sessions: BrowserSessions
):
    who = await known(house)
    await change(house, is_operator=True)

    with pytest.raises(CredentialsRejected):
        await sessions.open(who)


async def test_an_account_that_is_deactivated_is_out(house: House, sessions: BrowserSessions):
    secret = (await sessions.open(await known(house))).secret
    await sessions.authenticate(secret)
    root = await house.caller(ROOT)
    await house.accounts.deactivate(root, DeactivateAccount(user_id=ANNA), house.ask(root))

    with pytest.raises(BrowserSessionEnded):
        await sessions.authenticate(secret)


async def test_an_account_that_is_out_while_its_session_is_looked_up_is_out(
    house: House, sessions: BrowserSessions
):
    opened = await sessions.open(await known(house))
    row = await house.storage.accounts.refresh(Seals(b"s" * 32).mac("browser session", opened.secret))
    assert row is not None
    late: Any = Late(house, row)
    slow = BrowserSessions(
        late, house.commits, house.storage.accounts, house.freshness, Seals(b"s" * 32), house.clock, HOURS
    )
    await change(house, is_active=False)

    with pytest.raises(BrowserSessionEnded):
        await slow.authenticate(opened.secret)


async def test_a_change_between_the_look_and_the_answer_ends_it(house: House, sessions: BrowserSessions):
    opened = await sessions.open(await known(house))
    row = await house.storage.accounts.refresh(Seals(b"s" * 32).mac("browser session", opened.secret))
    assert row is not None
    late: Any = Late(house, row)
    late.after_account = lambda: change(house, display_name="Anna")
    slow = BrowserSessions(
        late, house.commits, house.storage.accounts, house.freshness, Seals(b"s" * 32), house.clock, HOURS
    )

    with pytest.raises(BrowserSessionEnded):
        await slow.authenticate(opened.secret)


async def test_a_session_that_is_gone_is_forgotten(house: House, sessions: BrowserSessions):
    secret = (await sessions.open(await known(house))).secret
    await sessions.authenticate(secret)
    await house.storage.commits.commit(Commit(records=(EndRefreshFamilies(ANNA),)))

    for _ in range(2):
        with pytest.raises(BrowserSessionEnded):
            await sessions.authenticate(secret)


async def test_a_former_session_that_is_not_there_does_no_harm(house: House, sessions: BrowserSessions):
    first = await sessions.open(await known(house), former="invented")
    second = await sessions.open(await known(house), former=first.secret)

    with pytest.raises(BrowserSessionEnded):
        await sessions.authenticate(first.secret)
    assert (await sessions.authenticate(second.secret)).user_id == ANNA


async def test_what_is_remembered_does_not_grow_without_end(house: House):
    sessions = made(house, cache_size=2)
    secrets = [(await sessions.open(await known(house))).secret for _ in range(3)]
    first, second, _ = [await sessions.authenticate(secret) for secret in secrets]

    assert await sessions.authenticate(secrets[1]) is second
    assert await sessions.authenticate(secrets[0]) is not first


class Late:
    """A store that still shows a session which has just ended, as another process would see it a moment before."""

    def __init__(self, house: House, row: Any) -> None:
        self._behind = house.storage.accounts
        self._row = row
        self.after_account: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)

    async def refresh(self, digest: str) -> Any:
        return self._row

    async def account(self, user_id: str) -> Any:
        found = await self._behind.account(user_id)
        if self.after_account is not None:
            await self.after_account()
        return found
