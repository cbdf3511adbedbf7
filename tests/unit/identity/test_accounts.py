import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from casekeeper.errors import AccountExists, AccountNotFound, CredentialsRejected, OperatorOnly, Overloaded
from casekeeper.identity.account_commands import CreateAccount, DeactivateAccount, ListAccounts, UpdateAccount
from casekeeper.identity.logins import Login
from casekeeper.identity.passwords import Passwords
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.sessions.manager import At
from tests.unit.support import (
    ANNA,
    BEN,
    CARA,
    PASSWORD,
    ROOT,
    House,
    fast_passwords,
    open_house,
)


async def deactivate(house: House, by: Principal, user_id: str) -> None:
    await house.accounts.deactivate(by, DeactivateAccount(user_id=user_id), house.ask(by))


async def update(house: House, by: Principal, user_id: str, **changes: Any) -> None:
    await house.accounts.update(by, UpdateAccount(user_id=user_id, **changes), house.ask(by))


async def can_log_in(house: House, user_id: str, password: str) -> bool:
    try:
        await house.logins.log_in(Login(user_id=user_id, password=password))
    except CredentialsRejected:
        return False
    return True


async def stands(house: House, principal: Principal) -> bool:
    return await house.freshness.stands(principal.user_id, principal.epoch, principal.asof)


# Passwords


async def test_a_password_matches_its_own_hash_only():
    passwords = fast_passwords()
    hashed = await passwords.hash(PASSWORD)

    assert [await passwords.matches(p, hashed) for p in (PASSWORD, PASSWORD + "x", "")] == [
        True,
        False,
        False,
    ]


async def test_no_password_matches_where_there_is_none():
    passwords = fast_passwords()

    assert [await passwords.matches(p, None) for p in (PASSWORD, "no account has this password")] == [
        False
    ] * 2


async def test_a_hash_that_is_none_matches_nothing():
    assert not await fast_passwords().matches(PASSWORD, "$argon2id$broken")


async def test_passwords_are_hashed_with_argon2id_by_default():
    assert (await Passwords().hash(PASSWORD)).startswith("$argon2id$")


async def test_a_flood_of_logins_is_told_to_come_back():
    passwords = fast_passwords()
    stored = await passwords.hash(PASSWORD)
    flood = [passwords.matches(PASSWORD, stored) for _ in range(150)]

    answers = await asyncio.gather(*flood, return_exceptions=True)
    later = await passwords.matches(PASSWORD, stored)

    assert answers[:100] == [True] * 100
    assert {type(answer) for answer in answers[100:]} == {Overloaded}
    assert later


@pytest.mark.parametrize("password", ["short", "x" * 257])
def test_a_password_has_ten_to_256_characters(password: str):
    with pytest.raises(ValidationError):
        CreateAccount(user_id=ANNA, password=password)


# Creating


async def test_an_operator_makes_an_account_that_can_log_in(house: House):
    root = await house.caller(ROOT)

    made, repeated = await house.accounts.create(
        root, CreateAccount(user_id="Anna@Example.com", password=PASSWORD), house.ask(root)
    )

    assert (made.user_id, made.is_active, made.is_operator, repeated) == (ANNA, True, False, False)
    assert await can_log_in(house, ANNA, PASSWORD)


async def test_an_account_without_a_password_cannot_log_in_with_one(house: House):
    root = await house.caller(ROOT)
    await house.accounts.create(root, CreateAccount(user_id=ANNA), house.ask(root))

    assert not await can_log_in(house, ANNA, PASSWORD)


async def test_an_account_is_never_made_twice(house: House):
    root = await house.caller(ROOT)
    await house.account(ANNA)

    with pytest.raises(AccountExists):
        await house.accounts.create(root, CreateAccount(user_id=ANNA), house.ask(root))


async def test_of_two_who_make_the_same_account_one_is_told(house: House):
    root = await house.caller(ROOT)
    commands = [CreateAccount(user_id=ANNA, display_name=name) for name in ("one", "two")]

    answers = await asyncio.gather(
        *(house.accounts.create(root, command, house.ask(root)) for command in commands),
        return_exceptions=True,
    )

    assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [AccountExists]


async def test_a_repeated_create_answers_with_the_account(house: House):
    root = await house.caller(ROOT)
    command = CreateAccount(user_id=ANNA)
    first, _ = await house.accounts.create(root, command, house.ask(root, "req"))

    assert await house.accounts.create(root, command, house.ask(root, "req")) == (first, True)


@pytest.mark.parametrize("what", ["create", "page", "deactivate", "update"])
async def test_only_operators_manage_accounts(house: House, what: str):
    anna = await house.caller(ANNA)
    await house.account(BEN)
    calls = {
        "create": lambda: house.accounts.create(anna, CreateAccount(user_id=CARA), house.ask(anna)),
        "page": lambda: house.accounts.page(anna, ListAccounts()),
        "deactivate": lambda: house.accounts.deactivate(
            anna, DeactivateAccount(user_id=BEN), house.ask(anna)
        ),
        "update": lambda: house.accounts.update(
            anna, UpdateAccount(user_id=BEN, display_name="B"), house.ask(anna)
        ),
    }

    with pytest.raises(OperatorOnly):
        await calls[what]()


# Listing


async def test_pages_list_every_account_once_by_user_id(house: House):
    root = await house.caller(ROOT)
    for name in "edcba":
        await house.account(f"{name}@example.com")
    seen, cursor = list[str](), None

    while True:
        page = await house.accounts.page(root, ListAccounts(limit=2, cursor=cursor))
        seen += [account.user_id for account in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == [*(f"{name}@example.com" for name in "abcde"), ROOT]


# Changing


@pytest.mark.parametrize(
    "changes",
    [
        {"display_name": "B"},
        {"is_operator": True},
        {"is_active": True},
        {"password": PASSWORD, "is_active": True},
    ],
)
async def test_users_change_nothing_of_their_own_but_the_password(house: House, changes: dict[str, Any]):
    anna = await house.caller(ANNA)

    with pytest.raises(OperatorOnly):
        await update(house, anna, ANNA, **changes)


async def test_users_change_their_password_with_the_present_one(house: House):
    await house.account(ANNA, password=PASSWORD)
    anna = await house.caller(ANNA)

    await update(house, anna, ANNA, password="another password", current_password=PASSWORD)

    assert await can_log_in(house, ANNA, "another password")
    assert not await can_log_in(house, ANNA, PASSWORD)


@pytest.mark.parametrize("current", [None, "wrong password"])
async def test_nobody_changes_their_password_without_the_present_one(house: House, current: str | None):
    await house.account(ANNA, password=PASSWORD)
    anna = await house.caller(ANNA)

    with pytest.raises(CredentialsRejected):
        await update(house, anna, ANNA, password="another password", current_password=current)


async def test_an_operator_too_needs_the_present_password_for_their_own(house: House):
    await house.account(ROOT, is_operator=True, password=PASSWORD)
    root = await house.caller(ROOT)

    with pytest.raises(CredentialsRejected):
        await update(house, root, ROOT, password="another password")


async def test_an_operator_sets_somebodys_password_without_the_present_one(house: House):
    await house.account(ANNA, password=PASSWORD)
    root = await house.caller(ROOT)

    await update(house, root, ANNA, password="another password")

    assert await can_log_in(house, ANNA, "another password")


async def test_an_unknown_account_is_not_changed(house: House):
    root = await house.caller(ROOT)

    with pytest.raises(AccountNotFound):
        await update(house, root, ANNA, display_name="A")


@pytest.mark.parametrize("changes", [{"password": PASSWORD}, {"is_operator": True}, {"is_active": False}])
async def test_a_change_ends_the_accounts_tokens(house: House, changes: dict[str, Any]):
    anna, root = await house.caller(ANNA), await house.caller(ROOT)

    await update(house, root, ANNA, **changes)

    assert not await stands(house, anna)
    assert await stands(house, root)


async def test_a_new_password_keeps_what_else_the_account_is(house: House):
    root = await house.caller(ROOT)
    await house.account(ANNA)
    await update(house, root, ANNA, display_name="Anna")

    await update(house, root, ANNA, password="another password")

    stored = await house.storage.accounts.account(ANNA)
    assert stored is not None
    assert (stored.account.display_name, stored.account.is_active) == ("Anna", True)


async def test_a_repeated_update_changes_nothing_more(house: House):
    await house.account(ANNA)
    root = await house.caller(ROOT)
    command = UpdateAccount(user_id=ANNA, display_name="Anna")
    await house.accounts.update(root, command, house.ask(root, "req"))
    number = (await house.storage.accounts.head()).number

    _, repeated = await house.accounts.update(root, command, house.ask(root, "req"))

    assert (repeated, (await house.storage.accounts.head()).number) == (True, number)


# Ending


async def test_a_deactivated_account_cannot_log_in(house: House):
    await house.account(ANNA, password=PASSWORD)
    root = await house.caller(ROOT)

    await deactivate(house, root, ANNA)

    assert not await can_log_in(house, ANNA, PASSWORD)


async def test_an_account_that_is_active_again_can_log_in_and_its_old_tokens_stay_dead(house: House):
    await house.account(ANNA, password=PASSWORD)
    root, anna = await house.caller(ROOT), await house.caller(ANNA)
    await deactivate(house, root, ANNA)

    await update(house, root, ANNA, is_active=True)

    assert await can_log_in(house, ANNA, PASSWORD)
    assert not await stands(house, anna)


async def test_a_deactivated_account_has_no_principal_for_work_without_a_token(house: House):
    root = await house.caller(ROOT)
    await house.account(ANNA)
    before = await house.accounts.active_principal(ANNA, "epoch")
    await deactivate(house, root, ANNA)

    after = await house.accounts.active_principal(ANNA, "epoch")

    assert before is not None
    assert (before.user_id, before.scopes, before.is_operator) == (ANNA, {}, False)
    assert after is None


async def test_a_missing_account_has_no_principal(house: House):
    assert await house.accounts.active_principal(ANNA, "epoch") is None


async def test_deactivating_again_is_a_repeat(house: House):
    root = await house.caller(ROOT)
    await house.account(ANNA)
    command = DeactivateAccount(user_id=ANNA)
    await house.accounts.deactivate(root, command, house.ask(root, "req"))

    account, repeated = await house.accounts.deactivate(root, command, house.ask(root, "req"))

    assert (account.is_active, repeated) == (False, True)


@pytest.mark.parametrize("way", ["deactivate", "update"])
async def test_what_a_deactivated_account_runs_is_stopped(directory: Path, way: str):
    async with open_house(directory) as house:
        root, anna = await house.caller(ROOT), await house.caller(ANNA)
        casefile = await house.casefile(anna)
        started = await house.start(anna, At(casefile_id=casefile.casefile_id), "sleepy")

        if way == "deactivate":
            await deactivate(house, root, ANNA)
        else:
            await update(house, root, ANNA, is_active=False)
        outcome = await asyncio.wait_for(started.running.ended, 5)

    assert outcome.failure.type == "rights_lost"


# Races


async def test_a_password_change_that_races_with_a_deactivation_does_not_undo_it(house: House):
    await house.account(ANNA, password=PASSWORD)
    root = await house.caller(ROOT)

    async def rival(_: Commit) -> None:
        await deactivate(house, root, ANNA)

    house.commits.meanwhile(rival)
    await update(house, root, ANNA, password="another password")

    stored = await house.storage.accounts.account(ANNA)
    assert stored is not None
    assert not stored.account.is_active


async def test_a_users_password_change_does_not_undo_an_operators(house: House):
    await house.account(ANNA, password=PASSWORD)
    anna, root = await house.caller(ANNA), await house.caller(ROOT)

    async def rival(_: Commit) -> None:
        await update(house, root, ANNA, password="the operator's one")

    house.commits.meanwhile(rival)
    with pytest.raises(CredentialsRejected, match="meanwhile"):
        await update(house, anna, ANNA, password="the thief's one", current_password=PASSWORD)

    assert await can_log_in(house, ANNA, "the operator's one")


async def test_of_two_equal_requests_at_once_one_is_the_repeat(house: House):
    await house.account(ANNA)
    root = await house.caller(ROOT)
    command = UpdateAccount(user_id=ANNA, display_name="Anna")

    answers = await asyncio.gather(
        *(house.accounts.update(root, command, house.ask(root, "req")) for _ in range(5))
    )

    assert sorted(repeated for _, repeated in answers) == [False, True, True, True, True]


async def test_a_claim_that_is_lost_is_a_repeat_even_where_the_account_changed(house: House):
    await house.account(ANNA)
    root = await house.caller(ROOT)
    command = UpdateAccount(user_id=ANNA, display_name="Anna")

    async def twin(_: Commit) -> None:
        await house.accounts.update(root, command, house.ask(root, "req"))

    house.commits.meanwhile(twin)
    _, repeated = await house.accounts.update(root, command, house.ask(root, "req"))

    assert repeated


async def test_an_account_is_as_old_as_its_creation(house: House):
    root = await house.caller(ROOT)
    made, _ = await house.accounts.create(root, CreateAccount(user_id=ANNA), house.ask(root))
    house.clock.now += timedelta(days=3)
    await update(house, root, ANNA, display_name="Anna")

    stored = await house.storage.accounts.account(ANNA)
    assert stored is not None
    assert (stored.account.created_at, stored.account.pseudonym) == (made.created_at, made.pseudonym)
