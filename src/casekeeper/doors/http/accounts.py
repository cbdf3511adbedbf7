"""`/v1/auth`, `/v1/accounts`, `/v1/keys`."""

from fastapi import APIRouter, Response

from casekeeper.doors.http.dependencies import GuardedRoute, Inbound, OpenRoute
from casekeeper.doors.http.envelope import Envelope
from casekeeper.doors.http.verbs import verb
from casekeeper.identity.account_commands import CreateAccount, DeactivateAccount, ListAccounts, UpdateAccount
from casekeeper.identity.accounts import Account
from casekeeper.identity.api_keys import CreateKey, ListKeys, NewApiKey, RevokeKey
from casekeeper.identity.credentials import ApiKey
from casekeeper.identity.logins import Login, Refresh, TokenSet
from casekeeper.identity.logouts import LoggedOut, LogOut
from casekeeper.paging import Page

auth = APIRouter(prefix="/v1/auth", route_class=OpenRoute)
router = APIRouter(prefix="/v1", route_class=GuardedRoute)


@verb(auth, "/token", TokenSet)
async def token(body: Envelope[Login], door: Inbound) -> Response:
    """Tokens for a password or an API key."""
    door.ask(body)
    return door.answer(await door.server.logins.log_in(body.payload), body)


@verb(auth, "/refresh", TokenSet)
async def refresh(body: Envelope[Refresh], door: Inbound) -> Response:
    """The next tokens for a refresh token."""
    door.ask(body)
    return door.answer(await door.server.logins.refresh(body.payload), body)


@verb(router, "/auth/logout", LoggedOut)
async def log_out(body: Envelope[LogOut], door: Inbound) -> Response:
    """End a login or, if none is named, all tokens of an account everywhere, and stop what it has running."""
    caller = door.caller
    ended, repeated = await door.server.logouts.log_out(caller, body.payload, door.ask(body))
    response = door.answer(ended, body, repeated=repeated)
    is_own = ended.everywhere and ended.user_id == caller.user_id
    if caller.browser_session is not None and (is_own or body.payload.browser_session):
        response.headers.append("Set-Cookie", door.browser.no_session())
    return response


@verb(router, "/accounts/create", Account)
async def create(body: Envelope[CreateAccount], door: Inbound) -> Response:
    """Make an account; operators only."""
    made, repeated = await door.server.accounts.create(door.caller, body.payload, door.ask(body))
    return door.answer(made, body, repeated=repeated)


@verb(router, "/accounts/list", Page[Account])
async def list_(body: Envelope[ListAccounts], door: Inbound) -> Response:
    """All accounts, by user id; operators only."""
    door.ask(body)
    return door.answer(await door.server.accounts.page(door.caller, body.payload), body)


@verb(router, "/accounts/update", Account)
async def update(body: Envelope[UpdateAccount], door: Inbound) -> Response:
    """Change an account (operators), or one's own password. Tokens of the account end."""
    changed, repeated = await door.server.accounts.update(door.caller, body.payload, door.ask(body))
    return door.answer(changed, body, repeated=repeated)


@verb(router, "/accounts/deactivate", Account)
async def deactivate(body: Envelope[DeactivateAccount], door: Inbound) -> Response:
    """End an account everywhere at once; operators only."""
    ended, repeated = await door.server.accounts.deactivate(door.caller, body.payload, door.ask(body))
    return door.answer(ended, body, repeated=repeated)


@verb(router, "/keys/create", NewApiKey)
async def create_key(body: Envelope[CreateKey], door: Inbound) -> Response:
    """Make an API key; its secret is shown this once."""
    made, repeated = await door.server.api_keys.create(door.caller, body.payload, door.ask(body))
    return door.answer(made, body, repeated=repeated)


@verb(router, "/keys/list", Page[ApiKey])
async def list_keys(body: Envelope[ListKeys], door: Inbound) -> Response:
    """The keys of an account, oldest first."""
    door.ask(body)
    keys = await door.server.api_keys.of_account(door.caller, body.payload)
    return door.answer(Page[ApiKey](items=list(keys)), body)


@verb(router, "/keys/revoke", ApiKey)
async def revoke_key(body: Envelope[RevokeKey], door: Inbound) -> Response:
    """End a key, and all tokens of its account with it."""
    revoked, repeated = await door.server.api_keys.revoke(door.caller, body.payload, door.ask(body))
    return door.answer(revoked, body, repeated=repeated)
