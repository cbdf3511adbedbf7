"""How a command reaches the data: a server over HTTP, or the data directory itself.

In this order: `--url` with its saved login; `--data`; the login that was saved last; the data directory of the
settings. A directory that nobody holds is opened in this process. One that a server holds is reached through that
server: whoever can read the directory's signing keys may act as anybody anyway, so no login is asked for.
"""

import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casekeeper.cli import saved
from casekeeper.cli.exits import DATA, UNAUTHENTICATED, UNAVAILABLE, USAGE, Stop
from casekeeper.values import value

if TYPE_CHECKING:
    from casekeeper.client import Casekeeper
    from casekeeper.identity.logins import TokenSet
    from casekeeper.server import Server
    from casekeeper.settings import Settings

DATABASE = "casekeeper.db"
HOLDER = "server.json"
IN_PROCESS = "http://in-process"


@value
class Where:
    """Where a command was told to go, and as whom."""

    url: str | None = None
    data: Path | None = None
    user: str | None = None

    def login(self) -> "saved.SavedLogin | None":
        """The saved login to use; None where the command goes to a data directory.

        Raises:
            Stop: A server is named for which there is no login, or the options contradict each other.
        """
        if self.url is not None and self.data is not None:
            raise Stop("Give either --url or --data: they are two ways to the same thing.", USAGE)
        if self.data is not None:
            return None
        url = saved.normal(self.url) if self.url else None
        found = saved.find(url)
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


def read_settings(data: Path | None = None, **more: Any) -> "Settings":
    """The settings, with what the command line says on top.

    Raises:
        Stop: A setting is unknown or has a value that does not fit.
    """
    from pydantic import ValidationError

    from casekeeper.settings import Settings

    given: dict[str, Any] = {"data": data, **more}
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        found = "; ".join(
            ": ".join(filter(None, (".".join(map(str, e["loc"])), e["msg"]))) for e in error.errors()
        )
        raise Stop(f"The settings do not fit: {found}.", DATA) from error
    except ValueError as error:
        raise Stop(f"The settings cannot be read: {error}.", DATA) from error


def is_shared(settings: "Settings") -> bool:
    """Whether the store is one in which several processes work at once."""
    return bool(settings.store) and not settings.store.startswith("sqlite:")


def existing(settings: "Settings") -> Path:
    """The data directory, which is there.

    Raises:
        Stop: It is not; nothing is made by accident.
    """
    if not (settings.data / DATABASE).exists():
        raise _missing(settings)
    return settings.data


def keys_of(settings: "Settings") -> Path:
    """The signing keys of the data directory, whatever the store.

    Raises:
        Stop: There are none; none are made by accident, which no server would know.
    """
    keys = settings.data / "keys" if is_shared(settings) else existing(settings) / "keys"
    if not any(keys.glob("*.pem")):
        raise _missing(settings)
    return keys


def _missing(settings: "Settings") -> Stop:
    return Stop(
        f"There is no data directory at {settings.data}. Start a server with `casekeeper serve`, name a directory "
        "with --data, or log in to a server with `casekeeper login URL`.",
        DATA,
    )


def holder(data: Path) -> str | None:
    """The address of the server that holds the directory, as it wrote it down."""
    try:
        return json.loads((data / HOLDER).read_text("utf-8"))["url"]
    except (OSError, ValueError, KeyError):
        return None


@asynccontextmanager
async def reach(where: Where) -> "AsyncGenerator[Casekeeper]":
    """A client for wherever the command goes."""
    from casekeeper.client import Casekeeper

    if login := where.login():
        async with Casekeeper(login.url, api_key=login.api_key) as ck:
            yield ck
        return
    settings = read_settings(where.data)
    user_id = (where.user or settings.operator).lower()
    if is_shared(settings):
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
        Stop: Another command holds it, or it belongs to a newer casekeeper.
    """
    from casekeeper.client import Casekeeper
    from casekeeper.storage.sqlite.store import DirectoryInUse, DirectoryLock

    in_use = f"{settings.data} is in use by another casekeeper command. Try again when it has ended."
    try:
        DirectoryLock(settings.data).release()
    except DirectoryInUse as error:
        url = holder(settings.data)
        if url is None:
            raise Stop(in_use, DATA) from error
        async with Casekeeper(url, token=lambda: minted(settings, user_id)) as ck:
            yield ck
        return
    except OSError as error:
        raise Stop(f"{settings.data} cannot be opened: {error.strerror}.", DATA) from error
    async with AsyncExitStack() as stack:
        try:
            ck = await stack.enter_async_context(_opened(settings, user_id))
        except DirectoryInUse as error:
            raise Stop(in_use, DATA) from error
        yield ck


@asynccontextmanager
async def _opened(settings: "Settings", user_id: str) -> "AsyncGenerator[Casekeeper]":
    """A client of a server inside this process."""
    from casekeeper.asgi import create_app
    from casekeeper.cli.inprocess import AppTransport
    from casekeeper.client import Casekeeper

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(_served(settings))
        # Whoever wrote this down does not run any more: the lock was free.
        (settings.data / HOLDER).unlink(missing_ok=True)
        app = create_app(settings)
        app.state.server = server

        transport, token = AppTransport(app), partial(_minted_by, server, user_id)
        yield await stack.enter_async_context(Casekeeper(IN_PROCESS, token=token, transport=transport))


@asynccontextmanager
async def _served(settings: "Settings") -> "AsyncGenerator[Server]":
    """A server inside this process, behind no door."""
    from casekeeper.errors import StoreUnavailable
    from casekeeper.operations.policy import PolicyMisfit
    from casekeeper.server import open_server
    from casekeeper.storage.addresses import StoreAddressInvalid
    from casekeeper.storage.bus.opening import HelperAddressInvalid
    from casekeeper.storage.sql.schema_version import SchemaTooNew

    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(open_server(settings, goes_on=False))
        except (SchemaTooNew, StoreAddressInvalid, HelperAddressInvalid, sqlite3.Error) as error:
            raise Stop(f"The store in {settings.data} cannot be opened: {error}.", DATA) from error
        except PolicyMisfit as error:
            raise Stop(f"CASEKEEPER_POLICIES: {error}.", DATA) from error
        except StoreUnavailable as error:
            raise Stop(error.detail, UNAVAILABLE) from error
        yield server


async def _minted_by(server: "Server", user_id: str) -> "TokenSet":
    from casekeeper.errors import AccountNotFound

    try:
        return await server.logins.mint_for(user_id)
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
    if is_shared(settings):
        async with _served(settings) as server:
            return await _minted_by(server, user_id)
    from casekeeper.cli.readonly import ReadOnly
    from casekeeper.clock import to_us, utc_now
    from casekeeper.identity.keys import SigningKeys
    from casekeeper.identity.logins import TokenSet
    from casekeeper.identity.tokens import LIFETIME, Tokens
    from casekeeper.storage.sql.accounts import SqlAccounts

    with ReadOnly(settings.data) as reads:
        accounts = SqlAccounts(reads)
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
