"""`/v1/casefiles` and `/v1/permissions`."""

from fastapi import APIRouter, Response

from casekeeper.api.dependencies import Caller, Door, GuardedRoute, Wired
from casekeeper.api.envelope import Answer, Envelope
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.casefiles.commands import (
    CreateCasefile,
    Deleted,
    DeleteTheCasefile,
    GetCasefile,
    ListCasefiles,
    UpdateCasefile,
)
from casekeeper.casefiles.permissions import GrantRole, GrantView, ListGrants, RevokeRole, TransferCasefile
from casekeeper.execution.explain import CheckPermission, Verdict
from casekeeper.paging import Page

router = APIRouter(prefix="/v1", route_class=GuardedRoute)


@router.post(
    "/casefiles/create",
    operation_id="casefiles_create",
    response_model=Answer[CasefileView],
    tags=["casefiles"],
)
async def create(body: Envelope[CreateCasefile], caller: Caller, server: Wired, door: Door) -> Response:
    """Make a casefile; the caller becomes its owner."""
    made, repeated = await server.casefiles.create(caller, body.payload, door.ask(body, caller))
    return door.answer(made, body, repeated=repeated)


@router.post(
    "/casefiles/get", operation_id="casefiles_get", response_model=Answer[CasefileView], tags=["casefiles"]
)
async def get(body: Envelope[GetCasefile], caller: Caller, server: Wired, door: Door) -> Response:
    """Read a casefile."""
    door.ask(body, caller)
    return door.answer(await server.casefiles.get(caller, body.payload), body)


@router.post(
    "/casefiles/list",
    operation_id="casefiles_list",
    response_model=Answer[Page[CasefileView]],
    tags=["casefiles"],
)
async def list_(body: Envelope[ListCasefiles], caller: Caller, server: Wired, door: Door) -> Response:
    """The casefiles of which the caller is a member, newest first."""
    door.ask(body, caller)
    return door.answer(await server.casefiles.page(caller, body.payload), body)


@router.post(
    "/casefiles/update",
    operation_id="casefiles_update",
    response_model=Answer[CasefileView],
    tags=["casefiles"],
)
async def update(body: Envelope[UpdateCasefile], caller: Caller, server: Wired, door: Door) -> Response:
    """Change title, description, tags, public role or status."""
    changed, repeated = await server.casefiles.update(caller, body.payload, door.ask(body, caller))
    return door.answer(changed, body, repeated=repeated)


@router.post(
    "/casefiles/delete", operation_id="casefiles_delete", response_model=Answer[Deleted], tags=["casefiles"]
)
async def delete(body: Envelope[DeleteTheCasefile], caller: Caller, server: Wired, door: Door) -> Response:
    """Delete a casefile: for everybody, for good."""
    gone, repeated = await server.casefiles.delete(caller, body.payload, door.ask(body, caller))
    return door.answer(gone, body, repeated=repeated)


@router.post(
    "/permissions/grant",
    operation_id="permissions_grant",
    response_model=Answer[GrantView],
    tags=["permissions"],
)
async def grant(body: Envelope[GrantRole], caller: Caller, server: Wired, door: Door) -> Response:
    """Give a user a role, or change the one they have."""
    granted, repeated = await server.permissions.grant(caller, body.payload, door.ask(body, caller))
    return door.answer(granted, body, repeated=repeated)


@router.post(
    "/permissions/revoke",
    operation_id="permissions_revoke",
    response_model=Answer[GrantView],
    tags=["permissions"],
)
async def revoke(body: Envelope[RevokeRole], caller: Caller, server: Wired, door: Door) -> Response:
    """Take a user's role away; what they run in the casefile is stopped."""
    revoked, repeated = await server.permissions.revoke(caller, body.payload, door.ask(body, caller))
    return door.answer(revoked, body, repeated=repeated)


@router.post(
    "/permissions/list",
    operation_id="permissions_list",
    response_model=Answer[Page[GrantView]],
    tags=["permissions"],
)
async def list_grants(body: Envelope[ListGrants], caller: Caller, server: Wired, door: Door) -> Response:
    """Who has access to a casefile."""
    door.ask(body, caller)
    return door.answer(await server.permissions.page(caller, body.payload), body)


@router.post(
    "/permissions/transfer",
    operation_id="permissions_transfer",
    response_model=Answer[CasefileView],
    tags=["permissions"],
)
async def transfer(body: Envelope[TransferCasefile], caller: Caller, server: Wired, door: Door) -> Response:
    """Make another user the owner; the former owner stays as admin."""
    moved, repeated = await server.permissions.transfer(caller, body.payload, door.ask(body, caller))
    return door.answer(moved, body, repeated=repeated)


@router.post(
    "/permissions/check",
    operation_id="permissions_check",
    response_model=Answer[Verdict],
    tags=["permissions"],
)
async def check(body: Envelope[CheckPermission], caller: Caller, server: Wired, door: Door) -> Response:
    """Whether somebody may do something, and if not, why and what would do. Nothing is executed."""
    door.ask(body, caller)
    return door.answer(await server.explain.check(caller, body.payload), body)
