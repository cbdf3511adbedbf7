"""Accounts: who may log in. Made and ended by operators; an operator has no right in any casefile by itself."""

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from casekeeper.acl_feed import ANY, Stops
from casekeeper.clock import Clock
from casekeeper.errors import AccountExists, AccountNotFound, CredentialsRejected, OperatorOnly
from casekeeper.identity.account_commands import CreateAccount, DeactivateAccount, ListAccounts, UpdateAccount
from casekeeper.identity.passwords import Passwords
from casekeeper.identity.principal import Principal, must_be_operator
from casekeeper.ids import UserId, new_pseudonym
from casekeeper.journal.commits import (
    About,
    Commit,
    Commits,
    Condition,
    PermissionChanged,
    Record,
    Superseded,
)
from casekeeper.journal.requests import AlreadyClaimed, Ask, Requests
from casekeeper.paging import Cursors, Page
from casekeeper.values import value


class Account(BaseModel):
    """An account, without its secrets."""

    model_config = ConfigDict(frozen=True)

    user_id: UserId
    display_name: str = ""
    is_operator: bool = False
    is_active: bool = True
    created_at: datetime
    pseudonym: str = Field(description="How the record's headers name this account.")


@value
class StoredAccount:
    """An account with its password's hash (argon2id, PHC string); None: it has no password."""

    account: Account
    password_hash: str | None


@value
class AccountAbsent(Condition):
    """No account has this user id yet."""

    user_id: str

    @property
    def about(self) -> Sequence[About]:
        return (About("account", self.user_id, alone=True),)

    def refusal(self, found: Any) -> Exception | None:
        return AccountExists() if found else None


@value
class AccountStands(Condition):
    """No user-wide change came after this number: what was decided on an older state gets nothing that outlives it."""

    user_id: str
    asof: int

    @property
    def about(self) -> Sequence[About]:
        return About("account", self.user_id, alone=True), About("feed", "", alone=False)

    def refusal(self, found: Any) -> Exception | None:
        return Superseded() if found > self.asof else None


@value
class PutAccount(Record):
    """The account as it is from now on."""

    stored: StoredAccount

    @property
    def about(self) -> Sequence[About]:
        return (About("account", self.stored.account.user_id, alone=True),)


@value
class EndRefreshFamilies(Record):
    """No refresh token of this user works any more."""

    user_id: str

    @property
    def about(self) -> Sequence[About]:
        return (About("account", self.user_id, alone=True),)


class AccountStore(Protocol):
    """Accounts as a store keeps them."""

    async def account(self, user_id: str) -> StoredAccount | None:
        """The account, active or not."""
        ...

    async def accounts(self, after: str, limit: int) -> Sequence[Account]:
        """Accounts with a greater user id, in the order of user ids."""
        ...

    async def user_changed(self, user_id: str) -> int:
        """The number of the account's newest change in the permission feed, 0 if there was none."""
        ...


class Accounts:
    """What operators, and users for themselves, do with accounts."""

    def __init__(
        self,
        store: AccountStore,
        commits: Commits,
        requests: Requests,
        passwords: Passwords,
        stops: Stops,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._store = store
        self._commits = commits
        self._requests = requests
        self._passwords = passwords
        self._stops = stops
        self._cursors = cursors
        self._clock = clock

    async def create(self, caller: Principal, command: CreateAccount, ask: Ask) -> tuple[Account, bool]:
        """Make an account.

        Raises:
            OperatorOnly: The caller is no operator.
            AccountExists: The user id is taken.
        """
        must_be_operator(caller)
        return await self._requests.once(ask, lambda: self._create(command, ask), self._get)

    async def _create(self, command: CreateAccount, ask: Ask) -> Account:
        account = Account(
            user_id=command.user_id,
            display_name=command.display_name,
            is_operator=command.is_operator,
            created_at=self._clock(),
            pseudonym=new_pseudonym(),
        )
        stored = StoredAccount(
            account, await self._passwords.hash(command.password) if command.password else None
        )
        claim = self._requests.claim(ask, account.user_id)
        await self._commits.commit(
            Commit(conditions=(*claim, AccountAbsent(account.user_id)), records=(*claim, PutAccount(stored)))
        )
        return account

    async def page(self, caller: Principal, command: ListAccounts) -> Page[Account]:
        """A page of all accounts, by user id. Operators only."""
        must_be_operator(caller)
        after = str(self._cursors.open("accounts", command.cursor)[0]) if command.cursor else ""
        rows = await self._store.accounts(after, command.limit + 1)
        return self._cursors.page("accounts", rows, command.limit, [(a.user_id,) for a in rows])

    async def update(self, caller: Principal, command: UpdateAccount, ask: Ask) -> tuple[Account, bool]:
        """Change an account; a new password, role as operator or activity ends its tokens at once.

        Raises:
            OperatorOnly: The caller may only change their own password.
            CredentialsRejected: `current_password` is missing or wrong.
            AccountNotFound: No such account.
        """
        own = command.user_id == caller.user_id
        others = (command.display_name, command.is_operator, command.is_active)
        if not caller.is_operator and (not own or any(value is not None for value in others)):
            raise OperatorOnly
        return await self._requests.once(ask, lambda: self._update(own, command, ask), self._get)

    async def _update(self, own: bool, command: UpdateAccount, ask: Ask) -> Account:
        stored = await self._stored(command.user_id)
        if own and command.password is not None:
            right = await self._passwords.matches(command.current_password or "", stored.password_hash)
            if not right:
                raise CredentialsRejected("current_password is missing or wrong.")
        new_hash = await self._passwords.hash(command.password) if command.password else None
        changes = command.model_dump(include={"display_name", "is_operator", "is_active"}, exclude_none=True)

        def change(now: StoredAccount) -> StoredAccount:
            if own and command.password is not None and now.password_hash != stored.password_hash:
                raise CredentialsRejected("The password was changed meanwhile.")
            return StoredAccount(now.account.model_copy(update=changes), new_hash or now.password_hash)

        account = await self._change(command.user_id, change, ask, "account_changed")
        if not account.is_active:
            await self._stop(account)
        return account

    async def deactivate(
        self, caller: Principal, command: DeactivateAccount, ask: Ask
    ) -> tuple[Account, bool]:
        """End an account everywhere at once. Repeating it changes nothing."""
        must_be_operator(caller)
        return await self._requests.once(ask, lambda: self._deactivate(command.user_id, ask), self._get)

    async def _deactivate(self, user_id: str, ask: Ask) -> Account:
        def end(now: StoredAccount) -> StoredAccount:
            return StoredAccount(now.account.model_copy(update={"is_active": False}), now.password_hash)

        account = await self._change(user_id, end, ask, "deactivated")
        await self._stop(account)
        return account

    async def _stop(self, account: Account) -> None:
        await self._stops.stop("the account was deactivated", user_id=account.user_id)

    async def active_principal(self, user_id: str, epoch: str) -> Principal | None:
        """The stored user as a caller without a token, for work that goes on without one."""
        stored = await self._store.account(user_id)
        if stored is None or not stored.account.is_active:
            return None
        account = stored.account
        return Principal(
            account.user_id,
            account.pseudonym,
            is_operator=False,
            epoch=epoch,
            # Without a token there is none that could have been ended.
            asof=sys.maxsize,
            expires_at=self._clock(),
        )

    async def _change(
        self, user_id: str, change: Callable[[StoredAccount], StoredAccount], ask: Ask, kind: str
    ) -> Account:
        while True:
            # The number comes first: whatever changes the account after it makes the commit start over.
            asof = await self._store.user_changed(user_id)
            changed = change(await self._stored(user_id))
            claim = self._requests.claim(ask, user_id)
            records = (
                PutAccount(changed),
                EndRefreshFamilies(user_id),
                PermissionChanged(ANY, user_id, kind, self._clock()),
            )
            try:
                await self._commits.commit(
                    Commit(conditions=(*claim, AccountStands(user_id, asof)), records=(*claim, *records))
                )
            except AlreadyClaimed:
                raise
            except Superseded:
                continue
            return changed.account

    async def _stored(self, user_id: str) -> StoredAccount:
        stored = await self._store.account(user_id)
        if stored is None:
            raise AccountNotFound(user_id)
        return stored

    async def _get(self, user_id: str) -> Account:
        return (await self._stored(user_id)).account
