"""Changes of a casefile's access list. Each command is the request's payload and the SDK's argument."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from casekeeper.acl import Action, EndsAt, Grant, Role
from casekeeper.acl_feed import StopReport, Stops
from casekeeper.casefiles.access import Gate
from casekeeper.casefiles.casefile import CasefileStore, CasefileView, PutGrant, RemoveGrant
from casekeeper.casefiles.changing import (
    ChangeCommand,
    Changing,
    PlannedChange,
    Present,
    must_not_be_archived,
)
from casekeeper.casefiles.commands import Casefiles, GetCasefile, Line
from casekeeper.clock import Clock
from casekeeper.errors import ArgumentsInvalid, FieldError, OwnerRequired
from casekeeper.identity.accounts import AccountStore
from casekeeper.identity.principal import Principal
from casekeeper.ids import CasefileId, UserId
from casekeeper.journal.commits import PermissionChanged, Record
from casekeeper.journal.events import Kind
from casekeeper.journal.requests import Ask
from casekeeper.paging import DEFAULT_LIMIT, Cursors, Limit, Page
from casekeeper.strict import Strict

Wait = Annotated[
    Literal["effective", "none"],
    Field(
        description="effective: answer when the change holds on every worker, and what ran has ended or a second has "
        "passed; none: answer at once, for many changes in a row."
    ),
]


class GrantRole(ChangeCommand):
    """Give a user a role, or change the one they have."""

    user_id: UserId
    role: Role
    expires_at: EndsAt | None = None
    note: Line | None = None
    wait: Wait = "effective"


class RevokeRole(ChangeCommand):
    """Take a user's role away; everybody but the owner may take their own."""

    user_id: UserId
    wait: Wait = "effective"


class ListGrants(Strict):
    """Who has access, by user id."""

    casefile_id: CasefileId
    limit: Limit = DEFAULT_LIMIT
    cursor: str | None = None


class TransferCasefile(ChangeCommand):
    """Make another user the owner; the former owner stays as admin."""

    user_id: UserId


class GrantView(BaseModel):
    """A user's role on a casefile now; `role` null means that the user has none."""

    casefile_id: str
    user_id: str
    role: Role | None = None
    expires_at: datetime | None = None
    granted_by: str | None = None
    granted_at: datetime | None = None
    note: str | None = None


class ChangedGrant(GrantView):
    """A user's role now, and what came of the work that it does not cover any more."""

    stopped: list[str] = Field(default=[], description="Operations that ran and have ended; 1,000 at most.")
    waiting: list[str] = Field(
        default=[], description="Operations that waited and have ended; 1,000 at most."
    )
    unconfirmed: dict[str, list[str]] = Field(
        default={},
        description="Operations that have not ended yet, by the worker that runs them. They can do nothing any more.",
    )


class Permissions:
    """Who may do what in a casefile, and changing it."""

    def __init__(
        self,
        gate: Gate,
        changing: Changing,
        casefiles: Casefiles,
        store: CasefileStore,
        accounts: AccountStore,
        stops: Stops,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._gate = gate
        self._changing = changing
        self._casefiles = casefiles
        self._store = store
        self._accounts = accounts
        self._stops = stops
        self._cursors = cursors
        self._clock = clock

    async def grant(self, caller: Principal, command: GrantRole, ask: Ask) -> tuple[ChangedGrant, bool]:
        """Give a role up to admin; the owner's role moves only by `transfer`. A lower one ends what it does not cover.

        Raises:
            ArgumentsInvalid: The role is owner, the expiry is past, or there is no such active account.
            OwnerRequired: The user is the owner.
        """
        replaces, tags = False, frozenset[str]()

        async def decide(present: Present) -> PlannedChange:
            nonlocal replaces, tags
            casefile, now = present.casefile, self._clock()
            if command.role is Role.OWNER:
                raise _field("role", "an owner is made by transfer, not by grant")
            if command.expires_at and command.expires_at <= now:
                raise _field("expires_at", "is in the past")
            await self._must_be_active(command.user_id)
            must_not_be_archived(casefile)
            if command.user_id == casefile.owner:
                raise OwnerRequired
            grant = Grant(
                granted_by=caller.user_id,
                granted_at=now,
                **command.model_dump(exclude={"expected_version", "wait"}),
            )
            # A role that somebody has for the first time is in no cache.
            replaces = await self._store.grant(casefile.casefile_id, command.user_id) is not None
            tags = frozenset(casefile.tags)
            kind = Kind.ROLE_CHANGED if replaces else Kind.GRANTED
            change = PermissionChanged(casefile.casefile_id, command.user_id, kind, now)
            inputs = command.model_dump(
                mode="json", exclude={"casefile_id", "expected_version", "wait"}, exclude_none=True
            )
            return PlannedChange(casefile, kind, [PutGrant(grant), change], inputs)

        async def answer(casefile_id: str) -> ChangedGrant:
            receipt, waits = StopReport(), command.wait == "effective"
            if replaces:
                receipt = await self._stops.lowered(
                    casefile_id, command.user_id, command.role, tags, waits=waits
                )
            grant = await self._store.grant(casefile_id, command.user_id)
            known = grant.model_dump() if grant else {"casefile_id": casefile_id, "user_id": command.user_id}
            return _told(known, receipt)

        return await self._changing.change(caller, command, Action.GRANT, decide, ask, answer)

    async def revoke(self, caller: Principal, command: RevokeRole, ask: Ask) -> tuple[ChangedGrant, bool]:
        """Take a role away. When it answers, that user gets in nowhere, and what ran for them has been stopped."""

        async def decide(present: Present) -> PlannedChange:
            casefile = present.casefile
            must_not_be_archived(casefile)
            if command.user_id == casefile.owner:
                raise OwnerRequired
            change = PermissionChanged(casefile.casefile_id, command.user_id, Kind.REVOKED, self._clock())
            removal = RemoveGrant(casefile.casefile_id, command.user_id)
            return PlannedChange(casefile, Kind.REVOKED, [removal, change], {"user_id": command.user_id})

        async def answer(casefile_id: str) -> ChangedGrant:
            receipt = await self._stops.stop(
                "the permission was revoked",
                casefile_id=casefile_id,
                user_id=command.user_id,
                waits=command.wait == "effective",
            )
            return _told({"casefile_id": casefile_id, "user_id": command.user_id}, receipt)

        # Leaving is everybody's right.
        leaves = command.user_id == caller.user_id
        action = Action.WORK if leaves else Action.GRANT
        return await self._changing.change(caller, command, action, decide, ask, answer, ends_access=leaves)

    async def page(self, caller: Principal, command: ListGrants) -> Page[GrantView]:
        """A page of who has access, by user id; members see it, public readers do not."""
        await self._gate.enter(caller, command.casefile_id, Action.SEE_GRANTS)
        query, wanted = f"grants {command.casefile_id}", command.limit + 1
        after = str(self._cursors.open(query, command.cursor)[0]) if command.cursor else ""
        live, now = list[Grant](), self._clock()
        while len(live) < wanted:
            found = await self._store.grants(command.casefile_id, after, wanted)
            # What has expired waits for its end to be recorded.
            live += [grant for grant in found if grant.is_live(now)]
            if len(found) < wanted:
                break
            after = found[-1].user_id
        views = [GrantView(**grant.model_dump()) for grant in live[:wanted]]
        return self._cursors.page(query, views, command.limit, [(view.user_id,) for view in views])

    async def transfer(
        self, caller: Principal, command: TransferCasefile, ask: Ask
    ) -> tuple[CasefileView, bool]:
        """Move the ownership; the former owner becomes admin in the same commit."""

        async def answer(casefile_id: str) -> CasefileView:
            await self._stops.settle()
            return await self._casefiles.get(caller, GetCasefile(casefile_id=casefile_id))

        async def decide(present: Present) -> PlannedChange:
            casefile, now, records = present.casefile, self._clock(), list[Record]()
            await self._must_be_active(command.user_id)
            must_not_be_archived(casefile)
            for user_id, role in ((casefile.owner, Role.ADMIN), (command.user_id, Role.OWNER)):
                grant = Grant(
                    casefile_id=casefile.casefile_id,
                    user_id=user_id,
                    role=role,
                    granted_by=caller.user_id,
                    granted_at=now,
                )
                change = PermissionChanged(casefile.casefile_id, user_id, Kind.TRANSFERRED, now)
                records += [PutGrant(grant), change]
            inputs = {"user_id": command.user_id, "former_owner": casefile.owner}
            changed = casefile.model_copy(update={"owner": command.user_id})
            return PlannedChange(changed, Kind.TRANSFERRED, records, inputs)

        return await self._changing.change(
            caller, command, Action.TRANSFER, decide, ask, answer, ends_access=True
        )

    async def _must_be_active(self, user_id: str) -> None:
        stored = await self._accounts.account(user_id)
        if stored is None or not stored.account.is_active:
            raise _field("user_id", "there is no active account with this user id")


def _told(grant: dict[str, Any], receipt: StopReport) -> ChangedGrant:
    unconfirmed = {worker: list(ids) for worker, ids in receipt.unconfirmed.items()}
    return ChangedGrant(
        **grant, stopped=list(receipt.stopped), waiting=list(receipt.waiting), unconfirmed=unconfirmed
    )


def _field(name: str, message: str) -> ArgumentsInvalid:
    return ArgumentsInvalid(errors=(FieldError(f"payload.{name}", message),))
