"""Who may do what: roles, actions, effects, and the one table between them."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict

from casekeeper.ids import CasefileId, UserId


class Role(StrEnum):
    """A user's role in a casefile. Each may all that the one before it may."""

    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"
    OWNER = "owner"

    def covers(self, needed: "Role") -> bool:
        """Whether this role is at least the needed one."""
        return _RANK[self] >= _RANK[needed]


_RANK = {role: rank for rank, role in enumerate(Role)}


class Effect(StrEnum):
    """What an operation does to the world. The role that it needs follows from its effects."""

    READ = "read"
    WRITE = "write"
    EXTERNAL = "external"
    DESTRUCTIVE = "destructive"


class Action(StrEnum):
    """What a caller wants to do with a casefile, in words for the record."""

    READ = "read the casefile"
    WORK = "work in sessions"
    JOIN = "work in another's shared session"
    ADD = "add documents"
    DESTROY = "delete documents"
    EDIT = "change the casefile"
    GRANT = "change permissions"
    SEE_GRANTS = "see permissions"
    SUPERVISE = "read and stop others' work"
    TRANSFER = "transfer the casefile"
    DELETE = "delete the casefile"
    EXPORT = "export the casefile"


ROLE_FOR_ACTION: dict[Action, Role] = {
    Action.READ: Role.VIEWER,
    Action.WORK: Role.VIEWER,
    Action.SEE_GRANTS: Role.VIEWER,
    Action.JOIN: Role.EDITOR,
    Action.ADD: Role.EDITOR,
    # As for operations that destroy.
    Action.DESTROY: Role.ADMIN,
    Action.EDIT: Role.ADMIN,
    Action.GRANT: Role.ADMIN,
    Action.SUPERVISE: Role.ADMIN,
    Action.TRANSFER: Role.OWNER,
    Action.DELETE: Role.OWNER,
    # All of it, with what is in others' private sessions.
    Action.EXPORT: Role.OWNER,
}


def roles_for(action: Action) -> tuple[Role, ...]:
    """All roles that may do it, the smallest first."""
    return tuple(role for role in Role if role.covers(ROLE_FOR_ACTION[action]))


ROLE_FOR_EFFECT: dict[Effect, Role] = {
    Effect.READ: Role.VIEWER,
    Effect.WRITE: Role.EDITOR,
    Effect.EXTERNAL: Role.EDITOR,
    # Destroying evidence is not part of an editor's "add and change".
    Effect.DESTRUCTIVE: Role.ADMIN,
}


READ_ONLY = frozenset({Effect.READ})


def may_export(role: Role | None, *, is_operator: bool) -> bool:
    """Whether somebody with this role in a casefile, or without one, may take it out of the store in a bundle."""
    return is_operator or role in roles_for(Action.EXPORT)


def role_for_effects(effects: frozenset[Effect]) -> Role:
    """The smallest role that may run an operation with these effects."""
    return max((ROLE_FOR_EFFECT[e] for e in effects), key=lambda r: _RANK[r], default=Role.VIEWER)


def _in_utc(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from error


EndsAt = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""When a key or a grant ends. In UTC, so that every store can write it and read it back."""


class Grant(BaseModel):
    """A role given to a user on a casefile. Its expiry is judged on every use, never by a clean-up."""

    model_config = ConfigDict(frozen=True)

    casefile_id: CasefileId
    user_id: UserId
    role: Role
    expires_at: datetime | None = None
    granted_by: UserId
    granted_at: datetime
    note: str | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether the grant still counts at this instant."""
        return self.expires_at is None or now < self.expires_at
