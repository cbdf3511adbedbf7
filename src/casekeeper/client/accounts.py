"""Accounts and API keys."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import TYPE_CHECKING

from casekeeper.client.connection import Connection
from casekeeper.client.paging import each

if TYPE_CHECKING:
    from casekeeper.identity.accounts import Account
    from casekeeper.identity.api_keys import NewApiKey
    from casekeeper.identity.credentials import ApiKey
    from casekeeper.identity.logouts import LoggedOut
    from casekeeper.paging import Page


class Accounts:
    """`/v1/accounts`; for operators, and for one's own password."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
        self,
        user_id: str,
        *,
        password: str | None = None,
        display_name: str | None = None,
        is_operator: bool | None = None,
        request_id: str | None = None,
    ) -> "Account":
        """A new account; without a password it can only be used through API keys."""
        fields = {
            "user_id": user_id,
            "password": password,
            "display_name": display_name,
            "is_operator": is_operator,
        }
        return await self._connection.ask("accounts/create", fields, request_id)

    async def list(self, *, limit: int | None = None, cursor: str | None = None) -> "Page[Account]":
        """A page of all accounts, by user id."""
        return await self._connection.ask("accounts/list", {"limit": limit, "cursor": cursor})

    def each(self) -> "AsyncGenerator[Account]":
        """All of them, page by page."""
        return each(self._connection, "accounts/list", {})

    async def update(
        self,
        user_id: str,
        *,
        password: str | None = None,
        current_password: str | None = None,
        display_name: str | None = None,
        is_operator: bool | None = None,
        is_active: bool | None = None,
        request_id: str | None = None,
    ) -> "Account":
        """Change an account; its tokens end. Everyone changes their own password, giving the present one."""
        fields = {
            "user_id": user_id,
            "password": password,
            "current_password": current_password,
            "display_name": display_name,
            "is_operator": is_operator,
            "is_active": is_active,
        }
        account = await self._connection.ask("accounts/update", fields, request_id)
        if password is not None:
            self._connection.tokens.password_changed(user_id, password)
        return account

    async def deactivate(self, user_id: str, *, request_id: str | None = None) -> "Account":
        """End an account everywhere at once."""
        return await self._connection.ask("accounts/deactivate", {"user_id": user_id}, request_id)

    async def log_out(
        self, user_id: str | None = None, *, keys: bool = False, request_id: str | None = None
    ) -> "LoggedOut":
        """End all tokens of an account everywhere (one's own if none is named), and what it has running."""
        fields = {"user_id": user_id, "keys": keys}
        return await self._connection.ask("auth/logout", fields, request_id)


class Keys:
    """`/v1/keys`: API keys of oneself, or, for operators, of others."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
        self,
        name: str = "",
        *,
        user_id: str | None = None,
        expires_at: datetime | None = None,
        request_id: str | None = None,
    ) -> "NewApiKey":
        """A new API key. Its secret is in this answer and nowhere else, not even in a repeat's."""
        fields = {"name": name, "user_id": user_id, "expires_at": expires_at}
        return await self._connection.ask("keys/create", fields, request_id)

    async def list(self, *, user_id: str | None = None) -> "list[ApiKey]":
        """The keys of an account, oldest first, without their secrets."""
        return (await self._connection.ask("keys/list", {"user_id": user_id})).items

    async def revoke(self, key_id: str, *, request_id: str | None = None) -> "ApiKey":
        """End a key, and all tokens of its account with it."""
        return await self._connection.ask("keys/revoke", {"key_id": key_id}, request_id)
