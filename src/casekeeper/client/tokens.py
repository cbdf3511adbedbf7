"""The access token of one client: got at the first call, renewed before it ends, swapped when a better one comes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from casekeeper.client.errors import Unauthenticated
from casekeeper.values import value

if TYPE_CHECKING:
    from casekeeper.identity.logins import TokenSet

TokenSource = Callable[[], "Awaitable[TokenSet]"]
"""Gives a fresh access token whenever one is needed."""

# An access token lives ten minutes; a call should not arrive with one that has just ended.
_MARGIN_S = 30.0
# What a token can carry at most.
_SCOPES_MAX = 64


@value
class HeldToken:
    """An access token in use. `number` counts the renewals, so that late news of an old token is not believed."""

    access_token: str
    number: int
    ends_at: float | None = None
    refresh_token: str | None = None
    casefile_ids: Sequence[str] = ()

    @property
    def is_fresh(self) -> bool:
        """Whether it lasts for another call; one whose end is not known is believed until it is refused."""
        return self.ends_at is None or time.monotonic() < self.ends_at


class TokenHolder:
    """Keeps one access token. However many calls need a new one, one of them gets it."""

    def __init__(
        self,
        *,
        token: str | TokenSource | None,
        credentials: dict[str, str] | None,
        log_in: Callable[[dict[str, Any]], "Awaitable[TokenSet]"],
        refresh: Callable[[dict[str, Any]], "Awaitable[TokenSet]"],
    ) -> None:
        self._token = token
        self._credentials = credentials
        self._log_in = log_in
        self._refresh = refresh
        self._held = HeldToken(token, 0) if isinstance(token, str) else None
        self._renewing = asyncio.Lock()

    async def current(self) -> HeldToken:
        """A token that can be used now."""
        if self._held is None or not self._held.is_fresh:
            async with self._renewing:
                if self._held is None or not self._held.is_fresh:
                    await self._renew()
        assert self._held is not None
        return self._held

    async def replace(self, refused: HeldToken) -> bool:
        """Get another token in the place of one that the server refused; False where there is no way to."""
        if isinstance(self._token, str):
            return False
        async with self._renewing:
            if self._held is None or self._held.number == refused.number:
                await self._renew()
        return True

    def swap(self, used: HeldToken, updated: Mapping[str, Any]) -> None:
        """Go on with the token that an answer brought: it carries a casefile more, and ends when the old one does."""
        held = self._held
        if held is not None and held.number == used.number:
            scopes = tuple(updated["casefile_scopes"])
            self._held = replace(held, access_token=updated["token"], casefile_ids=scopes)

    def password_changed(self, user_id: str, password: str) -> None:
        """Log in with the new password from now on, if it is this client's own."""
        own = self._credentials
        if own and "password" in own and own["user_id"].lower() == user_id.lower():
            self._credentials = {**own, "password": password}

    async def _renew(self) -> None:
        held, now = self._held, time.monotonic()
        tokens = await self._next(held)
        margin = min(_MARGIN_S, tokens.expires_in / 4)
        self._held = HeldToken(
            tokens.access_token,
            held.number + 1 if held else 1,
            now + tokens.expires_in - margin,
            tokens.refresh_token,
            tuple(tokens.casefile_scopes),
        )

    async def _next(self, held: HeldToken | None) -> "TokenSet":
        if callable(self._token):
            return await self._token()
        wanted = list(held.casefile_ids)[-_SCOPES_MAX:] if held else []
        if held and held.refresh_token:
            try:
                return await self._refresh({"refresh_token": held.refresh_token, "casefile_ids": wanted})
            except Unauthenticated:
                # Ended, or used already by an answer that got lost: the credentials still tell who calls.
                pass
        if self._credentials is None:
            raise Unauthenticated("token_missing", "There is neither a token nor anything to log in with.")
        return await self._log_in({**self._credentials, "casefile_ids": wanted})
