"""The casefile and its access list, as the rules see them and as a store keeps them."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from casekeeper.acl import Grant, Role
from casekeeper.clock import Clock, utc_now
from casekeeper.errors import CasefileArchived, CasefileExists, CasefileNotFound, StaleVersion
from casekeeper.ids import CasefileId, UserId
from casekeeper.journal.commits import About, Condition, IdTaken, Record, Superseded
from casekeeper.values import value


class Status(StrEnum):
    """Whether work goes on in a casefile."""

    ACTIVE = "active"
    ARCHIVED = "archived"


class PublicRole(StrEnum):
    """What everybody with an account may do who is no member."""

    NONE = "none"
    VIEWER = "viewer"


class Casefile(BaseModel):
    """A container with an access list. `version` counts its changes, the access list's included."""

    model_config = ConfigDict(frozen=True)

    casefile_id: CasefileId
    title: str
    description: str = ""
    tags: list[str] = []
    status: Status = Status.ACTIVE
    public_role: PublicRole = PublicRole.NONE
    owner: UserId
    version: int = 1
    created_at: datetime
    updated_at: datetime
    record_session_id: str | None = Field(
        default=None, description="The session that holds the casefile's own record; admins only."
    )


class CasefileView(Casefile):
    """A casefile as one caller sees it."""

    user_permission: Literal["viewer", "editor", "admin", "owner", "public"] = Field(
        description="The caller's role, or `public` for a reader who is no member."
    )


@value
class StoredAccess:
    """What one user may do in one casefile: one read, one snapshot.

    `asof` is the feed's number in it, `user_changed` that of the account's newest user-wide change (0: none), `tags`
    are the casefile's.
    """

    grant: Grant | None
    public_role: PublicRole
    asof: int
    user_changed: int
    tags: frozenset[str] = frozenset()


class CasefileStore(Protocol):
    """Casefiles and grants as a store keeps them. Deleted casefiles are not there."""

    async def access(self, user_id: str, casefile_id: str) -> StoredAccess | None:
        """The user's grant, expired or not; None where the casefile is missing or deleted."""
        ...

    async def casefile(self, casefile_id: str) -> Casefile | None:
        """The casefile as it is now."""
        ...

    async def casefiles_of(
        self, user_id: str, now: datetime, status: Status | None, before: tuple[int, str] | None, limit: int
    ) -> Sequence[tuple[Casefile, Role]]:
        """Casefiles on which the user has a live grant, newest first, behind (created_us, casefile_id)."""
        ...

    async def grant(self, casefile_id: str, user_id: str) -> Grant | None:
        """The user's grant, expired or not, whatever became of the account."""
        ...

    async def grants(self, casefile_id: str, after: str, limit: int) -> Sequence[Grant]:
        """Grants, expired ones included, by user id, behind this one."""
        ...

    async def expired_grants(self, now: datetime, limit: int) -> Sequence[Grant]:
        """Grants whose time has passed and whose end has not been recorded."""
        ...

    async def casefile_ids(self, after: str, limit: int) -> Sequence[str]:
        """The casefiles of everybody, by id, behind this one."""
        ...

    async def deleted_casefiles(self, limit: int) -> Sequence[str]:
        """Deleted casefiles whose contents have not been erased yet."""
        ...


class FenceBroken(Superseded):
    """The permission under which a commit was prepared has changed since it was read."""


@value
class Fence(Condition):
    """No permission change of this user in this casefile is newer than what the decision was based on.

    Nor has the grant ended, where it has an end: a commit may wait for others for a while before it is judged.
    """

    user_id: str
    casefile_id: str
    asof: int
    ends_at: datetime | None = None
    clock: Clock = utc_now

    @property
    def about(self) -> Sequence[About]:
        return About("casefile", self.casefile_id, alone=False), About("feed", "", alone=False)

    def refusal(self, found: Any) -> Exception | None:
        is_over = self.ends_at is not None and self.clock() >= self.ends_at
        return FenceBroken() if is_over or found > self.asof else None


@value
class CasefileIsActive(Condition):
    """The casefile exists and is not archived."""

    casefile_id: str

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.casefile_id, alone=False),)

    def refusal(self, found: Any) -> Exception | None:
        if found is None:
            return CasefileNotFound(self.casefile_id)
        return CasefileArchived() if found == Status.ARCHIVED else None


@value
class CasefileIsAt(Condition):
    """The casefile is at this version still."""

    casefile_id: str
    version: int

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.casefile_id, alone=True),)

    def refusal(self, found: Any) -> Exception | None:
        if found is None:
            return CasefileNotFound(self.casefile_id)
        return StaleVersion(self.version, found) if found != self.version else None


@value
class CasefileIdIsFree(Condition):
    """Neither this casefile id nor this session id is taken."""

    casefile_id: str
    session_id: str

    @property
    def about(self) -> Sequence[About]:
        return About("casefile", self.casefile_id, alone=True), About("session", self.session_id, alone=True)

    def refusal(self, found: Any) -> Exception | None:
        return IdTaken() if found else None


@value
class CasefileIsAbsent(Condition):
    """There is no such casefile and never was; a deleted one's tombstone counts, too."""

    casefile_id: str

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.casefile_id, alone=True),)

    def refusal(self, found: Any) -> Exception | None:
        return CasefileExists(f"There is, or was, a casefile {self.casefile_id} here.") if found else None


@value
class PutCasefile(Record):
    """The casefile as it is from now on."""

    casefile: Casefile

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.casefile.casefile_id, alone=True),)


@value
class DeleteCasefile(Record):
    """The tombstone: the casefile is gone for everybody; a sweeper erases its contents."""

    casefile_id: str
    at: datetime

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.casefile_id, alone=True),)


@value
class EraseContents(Record):
    """Removes documents, payloads and salts of a deleted casefile; headers stay, so its chains verify."""

    casefile_id: str

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.casefile_id, alone=True),)


@value
class OpenRecordSession(Record):
    """The reserved session that holds a casefile's own record."""

    session_id: str
    casefile_id: str
    user_id: str
    at: datetime

    @property
    def about(self) -> Sequence[About]:
        return About("casefile", self.casefile_id, alone=True), About("session", self.session_id, alone=True)


@value
class PutGrant(Record):
    """The user's grant as it is from now on."""

    grant: Grant

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.grant.casefile_id, alone=True),)


@value
class RemoveGrant(Record):
    """The user has no grant from now on."""

    casefile_id: str
    user_id: str

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.casefile_id, alone=True),)


@value
class GrantEndsAt(Condition):
    """The user's grant still ends at this instant: nobody has renewed it meanwhile."""

    casefile_id: str
    user_id: str
    expires_at: datetime | None

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.casefile_id, alone=True),)

    def refusal(self, found: Any) -> Exception | None:
        return None if found == self.expires_at else Superseded()
