"""Logging in, accounts and keys: `login`, `logout`, `token`, `user …`, `key …`."""

import socket
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from casekeeper.cli import saved_logins
from casekeeper.cli.casefiles import UserId
from casekeeper.cli.command import client_command, data_command, placed_command
from casekeeper.cli.connection import Target, minted
from casekeeper.cli.exits import UNAUTHENTICATED, USAGE, Stop
from casekeeper.cli.opening import keys_of
from casekeeper.cli.output import Column, Output, when

if TYPE_CHECKING:
    from casekeeper.client import Casekeeper
    from casekeeper.settings import Settings

user = typer.Typer(help="Accounts; for operators.", no_args_is_help=True, rich_markup_mode=None)
key = typer.Typer(
    help="API keys, and the server's signing keys.", no_args_is_help=True, rich_markup_mode=None
)

_LOGIN_DAYS = 90

Url = Annotated[str, typer.Argument(help="Address of the server.", show_default=False)]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]
Days = Annotated[int | None, typer.Option(min=1, help="Days until it ends.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    app.add_typer(user, name="user")
    app.add_typer(key, name="key")
    _add_logins(app)


def _add_logins(app: typer.Typer) -> None:
    @app.command("login")
    def login(  # pyright: ignore[reportUnusedFunction] - typer keeps it
        url: Url,
        user: Annotated[str | None, typer.Option(help="User id; asked for if absent.")] = None,
        password_stdin: PasswordStdin = False,
        api_key_stdin: Annotated[
            bool, typer.Option("--api-key-stdin", help="Read an API key from stdin instead.")
        ] = False,
        days: Annotated[int, typer.Option(min=1, help="Days until the login ends.")] = _LOGIN_DAYS,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Log in to a server. An API key is made and saved for this computer user alone."""
        import asyncio

        url, out = saved_logins.normal(url), Output(as_json=as_json)
        if api_key_stdin:
            asyncio.run(_save_key(url, _line(), out))
            return
        user_id = user or typer.prompt("User", err=True)
        password = _line() if password_stdin else typer.prompt("Password", hide_input=True, err=True)
        asyncio.run(_log_in(url, user_id, password, days, out))

    placed_command(app, "logout")(logout)
    data_command(app, "token")(token)


async def _log_in(url: str, user_id: str, password: str, days: int, out: Output) -> None:
    from casekeeper.client import Casekeeper
    from casekeeper.clock import utc_now

    async with Casekeeper(url, user_id=user_id, password=password) as ck:
        name = f"command line on {socket.gethostname()}"[:200]
        made = await ck.keys.create(name, expires_at=utc_now() + timedelta(days=days))
    assert made.api_key is not None
    saved_logins.save(saved_logins.SavedLogin(url, made.user_id, made.api_key, made.key_id))
    shown = {"url": url, "user_id": made.user_id, "key_id": made.key_id, "expires_at": made.expires_at}
    out.answer(shown, f"Logged in to {url} as {made.user_id}, until {when(made.expires_at)}.")


async def _save_key(url: str, api_key: str, out: Output) -> None:
    from casekeeper.client import Casekeeper

    async with Casekeeper(url, api_key=api_key) as ck:
        keys = await ck.keys.list()
    mine = next((k for k in keys if k.key_id.removeprefix("key_") == api_key.split("_")[1]), None)
    if mine is None:
        raise Stop("The server does not list this API key.", UNAUTHENTICATED)
    # Made elsewhere, so logging out here does not end it.
    saved_logins.save(saved_logins.SavedLogin(url, mine.user_id, api_key))
    out.answer(
        {"url": url, "user_id": mine.user_id, "key_id": mine.key_id}, f"Logged in to {url} as {mine.user_id}."
    )


async def logout(target: Target, out: Output) -> None:
    """Forget a login. The API key that was made for it ends, with all tokens of the account."""
    from casekeeper.client import ApiError, Casekeeper

    login = target.login()
    if login is None:
        raise Stop("There is no login to forget.", UNAUTHENTICATED)
    saved_logins.forget(login.url)
    ended = False
    if login.key_id:
        try:
            async with Casekeeper(login.url, api_key=login.api_key) as ck:
                await ck.keys.revoke(login.key_id)
            ended = True
        except ApiError as error:
            out.remark(f"Its API key {login.key_id} could not be ended: {error.detail}")
    out.answer({"url": login.url, "key_revoked": ended}, f"Logged out of {login.url}.")


async def token(settings: "Settings", out: Output, user_id: UserId) -> None:
    """Print an access token for a user. It is made from the data directory and lasts ten minutes."""
    keys_of(settings)
    tokens = await minted(settings, user_id.lower())
    out.answer(tokens, tokens.access_token)


@client_command(user, "create")
async def create(
    ck: "Casekeeper",
    out: Output,
    user_id: UserId,
    name: Annotated[str | None, typer.Option(help="Name to show.", show_default=False)] = None,
    operator: Annotated[bool, typer.Option("--operator", help="Make them an operator.")] = False,
    password_stdin: PasswordStdin = False,
    no_password: Annotated[bool, typer.Option("--no-password", help="Only API keys shall open it.")] = False,
) -> None:
    """Make an account. Without a given password, one is made up and shown once."""
    import secrets

    if password_stdin and no_password:
        raise Stop("--password-stdin and --no-password exclude each other.", USAGE)
    made_up = None if password_stdin or no_password else secrets.token_urlsafe(12)
    password = _line() if password_stdin else made_up
    account = await ck.accounts.create(
        user_id, password=password, display_name=name, is_operator=operator or None
    )
    shown = account.model_dump(mode="json") | ({"password": made_up} if made_up else {})
    text = f"Account {account.user_id} is made."
    out.answer(shown, f"{text}\nPassword, shown this once: {made_up}" if made_up else text)


@client_command(user, "list")
async def list_(ck: "Casekeeper", out: Output) -> None:
    """List all accounts."""
    accounts = [a async for a in ck.accounts.each()]
    columns = (
        Column("USER"),
        Column("NAME"),
        Column("OPERATOR"),
        Column("ACTIVE"),
        Column("CREATED", fixed=True),
    )
    out.rows(
        accounts,
        columns,
        lambda a: (
            a.user_id,
            a.display_name,
            "yes" if a.is_operator else "",
            "yes" if a.is_active else "no",
            when(a.created_at),
        ),
        "No accounts.",
    )


@client_command(user, "deactivate")
async def deactivate(ck: "Casekeeper", out: Output, user_id: UserId) -> None:
    """End an account: its tokens and keys stop at once. Nothing is deleted."""
    account = await ck.accounts.deactivate(user_id)
    out.answer(account, f"{account.user_id} is deactivated.")


@client_command(user, "activate")
async def activate(ck: "Casekeeper", out: Output, user_id: UserId) -> None:
    """Let a deactivated account in again, or one that came with a bundle. Its keys work again, its tokens do not."""
    account = await ck.accounts.update(user_id, is_active=True)
    out.answer(account, f"{account.user_id} is active.")


@client_command(user, "logout")
async def log_out(
    ck: "Casekeeper",
    out: Output,
    user_id: UserId,
    keys: Annotated[bool, typer.Option("--keys", help="Revoke all its API keys, too.")] = False,
) -> None:
    """End all tokens of an account everywhere, and what it has running: for a key that was stolen, say."""
    ended = await ck.accounts.log_out(user_id, keys=keys)
    out.receipt(ended, f"{ended.user_id} is logged out everywhere.")


@client_command(user, "password")
async def password(
    ck: "Casekeeper",
    out: Output,
    user_id: UserId,
    password_stdin: PasswordStdin = False,
    current: Annotated[bool, typer.Option("--current", help="Ask for the present password, too.")] = False,
) -> None:
    """Set a password. Operators set anybody else's; your own takes the present one (--current)."""
    present = typer.prompt("Present password", hide_input=True, err=True) if current else None
    new = (
        _line()
        if password_stdin
        else typer.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
    )
    account = await ck.accounts.update(user_id, password=new, current_password=present)
    out.answer(
        account, f"The password of {account.user_id} is changed; tokens made before do not work any more."
    )


@client_command(key, "create")
async def create_key(
    ck: "Casekeeper",
    out: Output,
    name: Annotated[str, typer.Argument(help="What it is for.")] = "",
    for_user: Annotated[
        str | None, typer.Option("--for", help="Whose key; for operators.", show_default=False)
    ] = None,
    days: Days = None,
) -> None:
    """Make an API key; its secret is shown this once."""
    from casekeeper.clock import utc_now

    expires_at: datetime | None = utc_now() + timedelta(days=days) if days else None
    made = await ck.keys.create(name, user_id=for_user, expires_at=expires_at)
    out.answer(made, made.api_key or "")
    out.remark(f"{made.key_id} of {made.user_id}; the line above is its secret, shown this once.")


@client_command(key, "list")
async def list_keys(
    ck: "Casekeeper",
    out: Output,
    for_user: Annotated[
        str | None, typer.Option("--for", help="Whose keys; for operators.", show_default=False)
    ] = None,
) -> None:
    """List API keys, without their secrets."""
    keys = await ck.keys.list(user_id=for_user)
    columns = (
        Column("KEY", fixed=True),
        Column("CREATED", fixed=True),
        Column("STATE", fixed=True),
        Column("NAME"),
    )
    out.rows(
        keys,
        columns,
        lambda k: (
            k.key_id,
            when(k.created_at),
            f"revoked {when(k.revoked_at)}"
            if k.revoked_at
            else f"until {when(k.expires_at)}"
            if k.expires_at
            else "",
            k.name,
        ),
        "No API keys.",
    )


@client_command(key, "revoke")
async def revoke_key(
    ck: "Casekeeper",
    out: Output,
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, key_…", show_default=False)],
) -> None:
    """End an API key, and all tokens of its account with it."""
    revoked = await ck.keys.revoke(key_id)
    out.answer(revoked, f"{revoked.key_id} is revoked.")


@data_command(key, "rotate")
async def rotate(settings: "Settings", out: Output) -> None:
    """Make a new signing key. Tokens of the old ones work until they end."""
    from casekeeper.identity.keys import SigningKeys

    kid = SigningKeys(keys_of(settings)).rotate()
    out.answer({"kid": kid}, f"New signing key {kid}.")
    out.remark(
        "A running server signs with it after its next start. Old key files can go ten minutes after that."
    )


def _line() -> str:
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise Stop("Nothing came on stdin.", USAGE)
    return line
