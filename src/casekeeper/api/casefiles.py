"""`/v1/casefiles` and `/v1/permissions`."""

from fastapi import APIRouter, Response

from casekeeper.api.dependencies import GuardedRoute, Inbound
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
async def create(body: Envelope[CreateCasefile], door: Inbound) -> Response:
    """Make a casefile; the caller becomes its owner."""
    made, repeated = await door.server.casefiles.create(door.caller, body.payload, door.ask(body))
    return door.answer(made, body, repeated=repeated)


@router.post(
    "/casefiles/get", operation_id="casefiles_get", response_model=Answer[CasefileView], tags=["casefiles"]
)
async def get(body: Envelope[GetCasefile], door: Inbound) -> Response:
    """Read a casefile."""
    door.ask(body)
    return door.answer(await door.server.casefiles.get(door.caller, body.payload), body)


@router.post(
    "/casefiles/list",
    operation_id="casefiles_list",
    response_model=Answer[Page[CasefileView]],
    tags=["casefiles"],
)
async def list_(body: Envelope[ListCasefiles], door: Inbound) -> Response:
    """The casefiles of which the caller is a member, newest first."""
    door.ask(body)
    return door.answer(await door.server.casefiles.page(door.caller, body.payload), body)


@router.post(
    "/casefiles/update",
    operation_id="casefiles_update",
    response_model=Answer[CasefileView],
    tags=["casefiles"],
)
async def update(body: Envelope[UpdateCasefile], door: Inbound) -> Response:
    """Change title, description, tags, public role or status."""
    changed, repeated = await door.server.casefiles.update(door.caller, body.payload, door.ask(body))
    return door.answer(changed, body, repeated=repeated)


@router.post(
    "/casefiles/delete", operation_id="casefiles_delete", response_model=Answer[Deleted], tags=["casefiles"]
)
async def delete(body: Envelope[DeleteTheCasefile], door: Inbound) -> Response:
    """Delete a casefile: for everybody, for good."""
    gone, repeated = await door.server.casefiles.delete(door.caller, body.payload, door.ask(body))
    return door.answer(gone, body, repeated=repeated)


@router.post(
    "/permissions/grant",
    operation_id="permissions_grant",
    response_model=Answer[GrantView],
    tags=["permissions"],
)
async def grant(body: Envelope[GrantRole], door: Inbound) -> Response:
    """Give a user a role, or change the one they have."""
    granted, repeated = await door.server.permissions.grant(door.caller, body.payload, door.ask(body))
    return door.answer(granted, body, repeated=repeated)


@router.post(
    "/permissions/revoke",
    operation_id="permissions_revoke",
    response_model=Answer[GrantView],
    tags=["permissions"],
)
async def revoke(body: Envelope[RevokeRole], door: Inbound) -> Response:
    """Take a user's role away; what they run in the casefile is stopped."""
    revoked, repeated = await door.server.permissions.revoke(door.caller, body.payload, door.ask(body))
    return door.answer(revoked, body, repeated=repeated)


@router.post(
    "/permissions/list",
    operation_id="permissions_list",
    response_model=Answer[Page[GrantView]],
    tags=["permissions"],
)
async def list_grants(body: Envelope[ListGrants], door: Inbound) -> Response:
    """Who has access to a casefile."""
    door.ask(body)
    return door.answer(await door.server.permissions.page(door.caller, body.payload), body)


@router.post(
    "/permissions/transfer",
    operation_id="permissions_transfer",
    response_model=Answer[CasefileView],
    tags=["permissions"],
)
async def transfer(body: Envelope[TransferCasefile], door: Inbound) -> Response:
    """Make another user the owner; the former owner stays as admin."""
    moved, repeated = await door.server.permissions.transfer(door.caller, body.payload, door.ask(body))
    return door.answer(moved, body, repeated=repeated)


@router.post(
    "/permissions/check",
    operation_id="permissions_check",
    response_model=Answer[Verdict],
    tags=["permissions"],
)
async def check(body: Envelope[CheckPermission], door: Inbound) -> Response:
    """Whether somebody may do something, and if not, why and what would do. Nothing is executed."""
    door.ask(body)
    return door.answer(await door.server.explain.check(door.caller, body.payload), body)
