"""Changes of casefiles. Each command is the request's payload and the SDK's argument."""

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from casekeeper.acl import Action, Grant, Role
from casekeeper.acl_feed import ANY, Stops
from casekeeper.casefiles.access import Gate
from casekeeper.casefiles.casefile import (
    Casefile,
    CasefileIdIsFree,
    CasefileStore,
    CasefileView,
    DeleteCasefile,
    OpenRecordSession,
    PublicRole,
    PutCasefile,
    PutGrant,
    Status,
)
from casekeeper.casefiles.changing import ChangeCommand, Changing, PlannedChange, Present
from casekeeper.clock import Clock, to_us
from casekeeper.errors import CasefileArchived, CasefileNotFound, OperatorOnly
from casekeeper.identity.principal import Principal
from casekeeper.ids import CasefileId, new_casefile_id, new_session_id
from casekeeper.journal.commits import Commit, Commits, IdTaken, PermissionChanged, Record
from casekeeper.journal.events import Kind
from casekeeper.journal.requests import Ask, Requests
from casekeeper.paging import DEFAULT_LIMIT, Cursors, Limit, Page
from casekeeper.strict import Strict

# No control characters: titles are shown in terminals, logs and headers.
Line = Annotated[
    str, StringConstraints(max_length=200, strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]*$")
]
Text = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]
Tags = Annotated[list[Annotated[Line, StringConstraints(min_length=1)]], Field(max_length=50)]


class CreateCasefile(Strict):
    """Make a casefile; the caller becomes its owner."""

    title: Annotated[Line, StringConstraints(min_length=1)]
    description: Text = ""
    tags: Tags = Field(default=[])
    public_role: PublicRole = PublicRole.NONE


class GetCasefile(Strict):
    """Read a casefile."""

    casefile_id: CasefileId


class ListCasefiles(Strict):
    """The casefiles of which the caller is a member, newest first."""

    status: Status | None = None
    limit: Limit = DEFAULT_LIMIT
    cursor: str | None = None


class UpdateCasefile(ChangeCommand):
    """Change what is given, leave the rest. An archived casefile can only be made active again."""

    title: Annotated[Line, StringConstraints(min_length=1)] | None = None
    description: Text | None = None
    tags: Tags | None = None
    public_role: PublicRole | None = None
    status: Status | None = None


class DeleteTheCasefile(ChangeCommand):
    """Delete a casefile: for everybody, for good. Running work is cancelled."""


class Deleted(BaseModel):
    """A casefile is gone."""

    casefile_id: str
    deleted: bool = True


class Casefiles:
    """Casefiles from creation to deletion."""

    def __init__(
        self,
        gate: Gate,
        changing: Changing,
        store: CasefileStore,
        commits: Commits,
        requests: Requests,
        stops: Stops,
        cursors: Cursors,
        clock: Clock,
        *,
        everybody_creates: bool = True,
    ) -> None:
        self._gate = gate
        self._changing = changing
        self._store = store
        self._commits = commits
        self._requests = requests
        self._stops = stops
        self._cursors = cursors
        self._clock = clock
        self._everybody_creates = everybody_creates

    async def create(self, caller: Principal, command: CreateCasefile, ask: Ask) -> tuple[CasefileView, bool]:
        """Make a casefile with its owner and its record session, in one commit."""
        if not (self._everybody_creates or caller.is_operator):
            raise OperatorOnly("On this server only operators create casefiles.")

        async def again(casefile_id: str) -> CasefileView:
            return await self.get(caller, GetCasefile(casefile_id=casefile_id))

        return await self._requests.once(ask, lambda: self._create(caller, command, ask), again)

    async def _create(self, caller: Principal, command: CreateCasefile, ask: Ask) -> CasefileView:
        while True:
            now = self._clock()
            casefile_id = new_casefile_id(now)
            session_id = new_session_id(now, caller.user_id, casefile_id)
            casefile = Casefile(
                casefile_id=casefile_id,
                owner=caller.user_id,
                created_at=now,
                updated_at=now,
                record_session_id=session_id,
                **command.model_dump(),
            )
            grant = Grant(
                casefile_id=casefile_id,
                user_id=caller.user_id,
                role=Role.OWNER,
                granted_by=caller.user_id,
                granted_at=now,
            )
            claim = self._requests.claim(ask, casefile_id)
            records = (
                *claim,
                PutCasefile(casefile),
                OpenRecordSession(session_id, casefile_id, caller.user_id, now),
                PutGrant(grant),
                PermissionChanged(casefile_id, caller.user_id, Kind.GRANTED, now),
            )
            inputs = command.model_dump(mode="json", exclude_defaults=True)
            fact = self._changing.fact(caller, casefile, Kind.CASEFILE_CREATED, inputs, ask)
            conditions = (*claim, CasefileIdIsFree(casefile_id, session_id))
            try:
                await self._commits.commit(Commit((fact,), conditions, records))
            except IdTaken:
                continue
            return view_of(casefile, Role.OWNER)

    async def get(self, caller: Principal, command: GetCasefile) -> CasefileView:
        """The casefile as the caller sees it."""
        access = await self._gate.enter(caller, command.casefile_id, Action.READ)
        casefile = await self._store.casefile(command.casefile_id)
        if casefile is None:
            raise CasefileNotFound(command.casefile_id)
        return view_of(casefile, access.role)

    async def page(self, caller: Principal, command: ListCasefiles) -> Page[CasefileView]:
        """A page of the caller's casefiles, newest first."""
        query = f"casefiles {caller.user_id} {command.status}"
        before = None
        if command.cursor:
            created_us, casefile_id = self._cursors.open(query, command.cursor)
            before = (int(created_us), str(casefile_id))
        rows = await self._store.casefiles_of(
            caller.user_id, self._clock(), command.status, before, command.limit + 1
        )
        keys = [(to_us(c.created_at), c.casefile_id) for c, _ in rows]
        return self._cursors.page(query, [view_of(c, role) for c, role in rows], command.limit, keys)

    async def update(self, caller: Principal, command: UpdateCasefile, ask: Ask) -> tuple[CasefileView, bool]:
        """Change title, description, tags, public role or status."""
        changes = command.model_dump(exclude={"casefile_id", "expected_version"}, exclude_none=True)

        async def decide(present: Present) -> PlannedChange:
            casefile = present.casefile
            if casefile.status is Status.ARCHIVED and changes.get("status") is not Status.ACTIVE:
                raise CasefileArchived
            records: list[Record] = []
            if changes.get("public_role", casefile.public_role) is not casefile.public_role:
                records.append(PermissionChanged(casefile.casefile_id, ANY, "public_role", self._clock()))
            if set(changes.get("tags", casefile.tags)) != set(casefile.tags):
                # Rules may go by tags: permissions granted under the old ones are checked again.
                records.append(PermissionChanged(casefile.casefile_id, ANY, "tags", self._clock()))
            archives = changes.get("status") is Status.ARCHIVED
            kind = Kind.CASEFILE_ARCHIVED if archives else Kind.CASEFILE_UPDATED
            return PlannedChange(casefile.model_copy(update=changes), kind, records, changes)

        async def answer(casefile_id: str) -> CasefileView:
            if not changes.keys().isdisjoint(("public_role", "tags")):
                await self._stops.settle()
            if changes.get("status") is Status.ARCHIVED:
                await self._stops.archived(casefile_id)
            return await self.get(caller, GetCasefile(casefile_id=casefile_id))

        return await self._changing.change(caller, command, Action.EDIT, decide, ask, answer)

    async def delete(self, caller: Principal, command: DeleteTheCasefile, ask: Ask) -> tuple[Deleted, bool]:
        """Put the tombstone, then cancel what runs. Contents are erased later; the record's headers stay."""

        async def decide(present: Present) -> PlannedChange:
            casefile_id, now = present.casefile.casefile_id, self._clock()
            gone = PermissionChanged(casefile_id, ANY, Kind.CASEFILE_DELETED, now)
            return PlannedChange(
                present.casefile, Kind.CASEFILE_DELETED, [DeleteCasefile(casefile_id, now), gone]
            )

        async def answer(casefile_id: str) -> Deleted:
            await self._stops.stop("the casefile was deleted", casefile_id=casefile_id)
            return Deleted(casefile_id=casefile_id)

        return await self._changing.change(
            caller, command, Action.DELETE, decide, ask, answer, ends_access=True
        )


def view_of(casefile: Casefile, role: Role | None) -> CasefileView:
    """The casefile as somebody with this role sees it."""
    fields = casefile.model_dump()
    if role is None or not role.covers(Role.ADMIN):
        fields["record_session_id"] = None
    return CasefileView(**fields, user_permission=role.value if role else "public")
