"""How a command reaches the data: a server over HTTP, or the data directory itself.

In this order: `--url` with its saved login; `--data`; the login that was saved last; the data directory of the
settings. A directory that nobody holds is opened in this process. One that a server holds is reached through that
server: whoever can read the directory's signing keys may act as anybody anyway, so no login is asked for.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from casekeeper.cli import saved_logins
from casekeeper.cli.exits import UNAUTHENTICATED, USAGE, Stop
from casekeeper.cli.opening import HOLDER, existing, holder, opened_server, read_settings
from casekeeper.errors import DirectoryInUse
from casekeeper.values import value

if TYPE_CHECKING:
    from casekeeper.client import Casekeeper
    from casekeeper.identity.logins import TokenSet
    from casekeeper.server import Server
    from casekeeper.settings import Settings

IN_PROCESS = "http://in-process"


@value
class Target:
    """Where a command was told to go, and as whom."""

    url: str | None = None
    data: Path | None = None
    user: str | None = None

    def login(self) -> "saved_logins.SavedLogin | None":
        """The saved login to use; None where the command goes to a data directory.

        Raises:
            Stop: A server is named for which there is no login, or the options contradict each other.
        """
        if self.url is not None and self.data is not None:
            raise Stop("Give either --url or --data: they are two ways to the same thing.", USAGE)
        if self.data is not None:
            return None
        url = saved_logins.normal(self.url) if self.url else None
        found = saved_logins.find(url)
        if url and found is None:
            message = f"There is no login for {url}. Make one with: casekeeper login {url}"
            raise Stop(message, UNAUTHENTICATED)
        if found and self.user and self.user.lower() != found.user_id:
            message = (
                f"The login for {found.url} is {found.user_id}'s. Acting as somebody else takes the data "
                "directory (--data), or their own login."
            )
            raise Stop(message, UNAUTHENTICATED)
        return found


@asynccontextmanager
async def connected(target: Target) -> "AsyncGenerator[Casekeeper]":
    """A client for wherever the command goes."""
    from casekeeper.client import Casekeeper

    if login := target.login():
        async with Casekeeper(login.url, api_key=login.api_key) as ck:
            yield ck
        return
    settings = read_settings(target.data)
    user_id = (target.user or settings.operator).lower()
    if settings.is_shared:
        # One more process at work in the store, for as long as the command takes.
        async with _opened(settings, user_id) as ck:
            yield ck
        return
    existing(settings)
    async with directory(settings, user_id) as ck:
        yield ck


@asynccontextmanager
async def directory(settings: "Settings", user_id: str) -> "AsyncGenerator[Casekeeper]":
    """A client for a data directory: in this process, or through the server that holds it.

    Raises:
        CannotStart: Another command holds it, or it cannot be used.
    """
    from casekeeper.client import Casekeeper
    from casekeeper.storage.sqlite.store import DirectoryLock

    try:
        DirectoryLock(settings.data).release()
    except DirectoryInUse:
        if url := holder(settings.data):
            async with Casekeeper(url, token=lambda: minted(settings, user_id)) as ck:
                yield ck
            return
    async with _opened(settings, user_id) as ck:
        yield ck


@asynccontextmanager
async def _opened(settings: "Settings", user_id: str) -> "AsyncGenerator[Casekeeper]":
    """A client of a server inside this process."""
    from casekeeper.asgi import create_app
    from casekeeper.cli.inprocess import AppTransport
    from casekeeper.client import Casekeeper

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(opened_server(settings, use="command"))
        # Whoever wrote this down does not run any more: the lock was free.
        (settings.data / HOLDER).unlink(missing_ok=True)
        app = create_app(settings)
        app.state.server = server

        transport, token = AppTransport(app), partial(_minted_by, server, user_id)
        yield await stack.enter_async_context(Casekeeper(IN_PROCESS, token=token, transport=transport))


async def _minted_by(server: "Server", user_id: str) -> "TokenSet":
    from casekeeper.errors import AccountNotFound

    try:
        return await server.identity.logins.mint_for(user_id)
    except AccountNotFound as error:
        raise no_account(user_id) from error


def no_account(user_id: str) -> Stop:
    """Nobody of this name can act here."""
    return Stop(f"There is no active account {user_id}; --user names another.", UNAUTHENTICATED)


async def minted(settings: "Settings", user_id: str) -> "TokenSet":
    """An access token made from the directory itself, beside a running server.

    Raises:
        Stop: There is no such active account.
    """
    if settings.is_shared:
        async with opened_server(settings, use="prepare") as server:
            return await _minted_by(server, user_id)
    from casekeeper.cli.readonly import ReadOnly
    from casekeeper.clock import to_us, utc_now
    from casekeeper.identity.keys import SigningKeys
    from casekeeper.identity.logins import TokenSet
    from casekeeper.identity.tokens import LIFETIME, Tokens
    from casekeeper.storage.sql.identities import SqlIdentities

    with ReadOnly(settings.data) as reads:
        accounts = SqlIdentities(reads)
        snapshot = await accounts.snapshot(user_id, (), to_us(utc_now()))
        stored = await accounts.account(user_id)
    if stored is None or not stored.account.is_active:
        raise no_account(user_id)
    tokens = Tokens(SigningKeys(settings.data / "keys"), settings.issuer, settings.issuer, utc_now)
    token = tokens.mint(
        user_id,
        stored.account.pseudonym,
        is_operator=stored.account.is_operator,
        snapshot=snapshot,
        scopes={},
    )
    return TokenSet(
        access_token=token.token,
        expires_in=int(LIFETIME.total_seconds()),
        user_id=user_id,
        casefile_scopes={},
    )
