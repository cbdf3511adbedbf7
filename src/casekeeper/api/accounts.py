"""`/v1/auth`, `/v1/accounts`, `/v1/keys`."""

from fastapi import APIRouter, Response

from casekeeper.api.dependencies import GuardedRoute, Inbound, OpenRoute
from casekeeper.api.envelope import Answer, Envelope
from casekeeper.identity.accounts import (
    Account,
    CreateAccount,
    DeactivateAccount,
    ListAccounts,
    UpdateAccount,
)
from casekeeper.identity.logins import (
    ApiKey,
    CreateKey,
    ListKeys,
    Login,
    NewApiKey,
    Refresh,
    RevokeKey,
    TokenSet,
)
from casekeeper.paging import Page

auth = APIRouter(prefix="/v1/auth", route_class=OpenRoute)
router = APIRouter(prefix="/v1", route_class=GuardedRoute)


@auth.post("/token", operation_id="auth_token", response_model=Answer[TokenSet], tags=["auth"])
async def token(body: Envelope[Login], door: Inbound) -> Response:
    """Tokens for a password or an API key."""
    door.ask(body)
    return door.answer(await door.server.logins.log_in(body.payload), body)


@auth.post("/refresh", operation_id="auth_refresh", response_model=Answer[TokenSet], tags=["auth"])
async def refresh(body: Envelope[Refresh], door: Inbound) -> Response:
    """The next tokens for a refresh token."""
    door.ask(body)
    return door.answer(await door.server.logins.refresh(body.payload), body)


@router.post(
    "/accounts/create", operation_id="accounts_create", response_model=Answer[Account], tags=["accounts"]
)
async def create(body: Envelope[CreateAccount], door: Inbound) -> Response:
    """Make an account; operators only."""
    made, repeated = await door.server.accounts.create(door.caller, body.payload, door.ask(body))
    return door.answer(made, body, repeated=repeated)


@router.post(
    "/accounts/list", operation_id="accounts_list", response_model=Answer[Page[Account]], tags=["accounts"]
)
async def list_(body: Envelope[ListAccounts], door: Inbound) -> Response:
    """All accounts, by user id; operators only."""
    door.ask(body)
    return door.answer(await door.server.accounts.page(door.caller, body.payload), body)


@router.post(
    "/accounts/update", operation_id="accounts_update", response_model=Answer[Account], tags=["accounts"]
)
async def update(body: Envelope[UpdateAccount], door: Inbound) -> Response:
    """Change an account (operators), or one's own password. Tokens of the account end."""
    changed, repeated = await door.server.accounts.update(door.caller, body.payload, door.ask(body))
    return door.answer(changed, body, repeated=repeated)


@router.post(
    "/accounts/deactivate",
    operation_id="accounts_deactivate",
    response_model=Answer[Account],
    tags=["accounts"],
)
async def deactivate(body: Envelope[DeactivateAccount], door: Inbound) -> Response:
    """End an account everywhere at once; operators only."""
    ended, repeated = await door.server.accounts.deactivate(door.caller, body.payload, door.ask(body))
    return door.answer(ended, body, repeated=repeated)


@router.post("/keys/create", operation_id="keys_create", response_model=Answer[NewApiKey], tags=["keys"])
async def create_key(body: Envelope[CreateKey], door: Inbound) -> Response:
    """Make an API key; its secret is shown this once."""
    made, repeated = await door.server.logins.create_key(door.caller, body.payload, door.ask(body))
    return door.answer(made, body, repeated=repeated)


@router.post("/keys/list", operation_id="keys_list", response_model=Answer[Page[ApiKey]], tags=["keys"])
async def list_keys(body: Envelope[ListKeys], door: Inbound) -> Response:
    """The keys of an account, oldest first."""
    door.ask(body)
    keys = await door.server.logins.list_keys(door.caller, body.payload)
    return door.answer(Page[ApiKey](items=list(keys)), body)


@router.post("/keys/revoke", operation_id="keys_revoke", response_model=Answer[ApiKey], tags=["keys"])
async def revoke_key(body: Envelope[RevokeKey], door: Inbound) -> Response:
    """End a key, and all tokens of its account with it."""
    revoked, repeated = await door.server.logins.revoke_key(door.caller, body.payload, door.ask(body))
    return door.answer(revoked, body, repeated=repeated)
