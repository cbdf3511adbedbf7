"""`/v1/casefiles` and `/v1/permissions`."""

from fastapi import APIRouter, Response

from casekeeper.casefiles.casefile import CasefileView
from casekeeper.casefiles.commands import (
    CreateCasefile,
    Deleted,
    DeleteTheCasefile,
    GetCasefile,
    ListCasefiles,
    UpdateCasefile,
)
from casekeeper.casefiles.permissions import (
    ChangedGrant,
    GrantRole,
    GrantView,
    ListGrants,
    RevokeRole,
    TransferCasefile,
)
from casekeeper.doors.http.dependencies import GuardedRoute, Inbound
from casekeeper.doors.http.envelope import Envelope
from casekeeper.doors.http.verbs import verb
from casekeeper.execution.explain import CheckPermission, Verdict
from casekeeper.paging import Page

router = APIRouter(prefix="/v1", route_class=GuardedRoute)


@verb(router, "/casefiles/create", CasefileView)
async def create(body: Envelope[CreateCasefile], door: Inbound) -> Response:
    """Make a casefile; the caller becomes its owner."""
    made, repeated = await door.server.casefiles.create(door.caller, body.payload, door.ask(body))
    return door.answer(made, body, repeated=repeated)


@verb(router, "/casefiles/get", CasefileView)
async def get(body: Envelope[GetCasefile], door: Inbound) -> Response:
    """Read a casefile."""
    door.ask(body)
    return door.answer(await door.server.casefiles.get(door.caller, body.payload), body)


@verb(router, "/casefiles/list", Page[CasefileView])
async def list_(body: Envelope[ListCasefiles], door: Inbound) -> Response:
    """The casefiles of which the caller is a member, newest first."""
    door.ask(body)
    return door.answer(await door.server.casefiles.page(door.caller, body.payload), body)


@verb(router, "/casefiles/update", CasefileView)
async def update(body: Envelope[UpdateCasefile], door: Inbound) -> Response:
    """Change title, description, tags, public role or status."""
    changed, repeated = await door.server.casefiles.update(door.caller, body.payload, door.ask(body))
    return door.answer(changed, body, repeated=repeated)


@verb(router, "/casefiles/delete", Deleted)
async def delete(body: Envelope[DeleteTheCasefile], door: Inbound) -> Response:
    """Delete a casefile: for everybody, for good."""
    gone, repeated = await door.server.casefiles.delete(door.caller, body.payload, door.ask(body))
    return door.answer(gone, body, repeated=repeated)


@verb(router, "/permissions/grant", ChangedGrant)
async def grant(body: Envelope[GrantRole], door: Inbound) -> Response:
    """Give a user a role, or change the one they have."""
    granted, repeated = await door.server.permissions.grant(door.caller, body.payload, door.ask(body))
    return door.answer(granted, body, repeated=repeated)


@verb(router, "/permissions/revoke", ChangedGrant)
async def revoke(body: Envelope[RevokeRole], door: Inbound) -> Response:
    """Take a user's role away; what they run in the casefile is stopped."""
    revoked, repeated = await door.server.permissions.revoke(door.caller, body.payload, door.ask(body))
    return door.answer(revoked, body, repeated=repeated)


@verb(router, "/permissions/list", Page[GrantView])
async def list_grants(body: Envelope[ListGrants], door: Inbound) -> Response:
    """Who has access to a casefile."""
    door.ask(body)
    return door.answer(await door.server.permissions.page(door.caller, body.payload), body)


@verb(router, "/permissions/transfer", CasefileView)
async def transfer(body: Envelope[TransferCasefile], door: Inbound) -> Response:
    """Make another user the owner; the former owner stays as admin."""
    moved, repeated = await door.server.permissions.transfer(door.caller, body.payload, door.ask(body))
    return door.answer(moved, body, repeated=repeated)


@verb(router, "/permissions/check", Verdict)
async def check(body: Envelope[CheckPermission], door: Inbound) -> Response:
    """Whether somebody may do something, and if not, why and what would do. Nothing is executed."""
    door.ask(body)
    return door.answer(await door.server.explain.check(door.caller, body.payload), body)
