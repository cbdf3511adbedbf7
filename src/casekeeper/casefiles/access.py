"""The gate: who may enter a casefile, and the proof that they may.

Only `Gate.enter` makes an `Access`. Everything that reads, changes or runs something in a casefile takes one, so
that the unchecked path does not type-check.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from casekeeper.acl import ROLE_FOR_ACTION, Action, Role
from casekeeper.acl_feed import Scope
from casekeeper.casefiles.casefile import CasefileStore, Fence, PublicRole
from casekeeper.casefiles.freshness import Freshness
from casekeeper.clock import Clock
from casekeeper.errors import CasefileNotFound, Denied, RoleTooLow, TokenRejected
from casekeeper.identity.principal import Principal
from casekeeper.ids import new_event_id
from casekeeper.journal.events import Fact, Kind, OperationType, Payload, Permission
from casekeeper.journal.stream import Commit, Commits

Source = Literal["token", "worker", "store"]
"""Where a permission was found: in the caller's token, in this worker's memory of an earlier read, in the store."""

# Some three megabytes.
_REMEMBERED_MAX = 10_000

_security = logging.getLogger("casekeeper.security")


@dataclass(frozen=True, slots=True)
class Access:
    """Proof of entry: this caller may do this much in this casefile, as of that number of the feed.

    `role` None is a public reader, who is no member; `ends_at` is when the grant ends.
    """

    caller: Principal
    casefile_id: str
    role: Role | None
    source: Source
    asof: int
    checked_at: datetime
    ends_at: datetime | None = None

    def may(self, action: Action) -> bool:
        """Whether the role allows the action."""
        if self.role is None:
            return action is Action.READ
        return self.role.covers(ROLE_FOR_ACTION[action])

    @property
    def is_member(self) -> bool:
        """Whether the caller has a grant; a public reader has none."""
        return self.role is not None

    @property
    def is_from_cache(self) -> bool:
        """Whether the store was not asked."""
        return self.source != "store"

    @property
    def role_name(self) -> str:
        """The role in words, `public` for a reader who is no member."""
        return self.role.value if self.role else "public"

    @property
    def permission(self) -> Permission:
        """As the record writes it."""
        return Permission(self.role_name, self.source, self.checked_at)

    @property
    def fence(self) -> Fence:
        """The condition under which this proof still holds when a commit is judged."""
        return Fence(self.caller.user_id, self.casefile_id, self.asof)


@dataclass(frozen=True, slots=True)
class Found:
    """A permission and where it was read.

    Attributes:
        role: None for a public reader.
        ends_at: When the grant ends; None if it has no end.
        user_changed: The account's newest user-wide change at `asof`: older tokens have ended.
    """

    role: Role | None
    source: Source
    asof: int
    ends_at: datetime | None = None
    user_changed: int = 0


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What the store said of one user in one casefile."""

    user_id: str
    epoch: str
    asof: int
    role: Role
    ends_at: datetime | None
    user_changed: int


class Grants(Protocol):
    """Where permissions are looked up."""

    async def find(self, caller: Principal, casefile_id: str, *, again: bool = False) -> Found | None:
        """The caller's permission now; None if there is none, or no such casefile.

        `again`: not from a cache, whose answer was overtaken.
        """
        ...


class StoredGrants:
    """Reads the store."""

    def __init__(self, store: CasefileStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def find(self, caller: Principal, casefile_id: str, *, again: bool = False) -> Found | None:
        """The stored permission; an expired grant is none.

        Raises:
            TokenRejected: Something ended the caller's tokens meanwhile: what is read now is not for this one.
        """
        stored = await self._store.access(caller.user_id, casefile_id)
        if stored is None:
            return None
        if stored.user_changed > caller.asof:
            raise TokenRejected("The account has changed since this access token was made; log in again.")
        if stored.grant and stored.grant.is_live(self._clock()):
            return Found(
                stored.grant.role, "store", stored.asof, stored.grant.expires_at, stored.user_changed
            )
        if stored.public_role is not PublicRole.NONE:
            return Found(None, "store", stored.asof)
        return None


class FreshGrants:
    """Believes the token's scopes, or what an earlier read found, while they provably cannot be stale."""

    def __init__(
        self, behind: Grants, freshness: Freshness, clock: Clock, *, remembered_max: int = _REMEMBERED_MAX
    ) -> None:
        self._behind = behind
        self._freshness = freshness
        self._clock = clock
        self._remembered_max = remembered_max
        self._remembered: dict[tuple[str, str], _Remembered] = {}
        self._counters = freshness.counters

    async def find(self, caller: Principal, casefile_id: str, *, again: bool = False) -> Found | None:
        """The permission, from a cache if it can be believed. "No grant" is never remembered.

        Raises:
            StoreUnavailable: No cache can be believed and the store cannot be read.
        """
        counters = self._counters
        counters.checks += 1
        if not again and (cached := await self._cached(caller, casefile_id)):
            return cached
        # Before the read: what is remembered must not look newer than what was read.
        epoch = self._freshness.epoch
        counters.store += 1
        found = await self._behind.find(caller, casefile_id)
        self._remember(caller.user_id, casefile_id, epoch, found)
        return found

    async def _cached(self, caller: Principal, casefile_id: str) -> Found | None:
        scope = caller.scopes.get(casefile_id)
        # Ends are judged last: a check may wait for a poll meanwhile.
        if scope and await self._freshness.believes(caller, casefile_id) and self._is_live(_end_of(scope)):
            caller.touch(casefile_id)
            self._counters.token += 1
            return Found(scope.role, "token", caller.asof, _end_of(scope))
        known = self._remembered.get((caller.user_id, casefile_id))
        # It may have been read for a newer token, after something that ended this one.
        if (
            known
            and known.user_changed <= caller.asof
            and await self._freshness.believes(known, casefile_id)
            and self._is_live(known.ends_at)
        ):
            self._counters.worker += 1
            return Found(known.role, "worker", known.asof, known.ends_at)
        return None

    def _is_live(self, ends_at: datetime | None) -> bool:
        return ends_at is None or self._clock() < ends_at

    def _remember(self, user_id: str, casefile_id: str, epoch: str, found: Found | None) -> None:
        remembered, key = self._remembered, (user_id, casefile_id)
        if found is None or found.role is None:
            remembered.pop(key, None)
            return
        known = _Remembered(user_id, epoch, found.asof, found.role, found.ends_at, found.user_changed)
        if key not in remembered and len(remembered) >= self._remembered_max:
            del remembered[next(iter(remembered))]
        remembered[key] = known


def _end_of(scope: Scope) -> datetime | None:
    return None if scope.not_after is None else datetime.fromtimestamp(scope.not_after, UTC)


class Gate:
    """Lets callers into casefiles, and records the members whom it refuses."""

    def __init__(self, grants: Grants, store: CasefileStore, commits: Commits, clock: Clock) -> None:
        self._grants = grants
        self._store = store
        self._commits = commits
        self._clock = clock

    async def look(self, caller: Principal, casefile_id: str, *, again: bool = False) -> Access | None:
        """The caller's access, or None for strangers and missing casefiles alike; refuses and records nothing.

        `again` reads the store: the answer of a cache was overtaken.
        """
        found = await self._grants.find(caller, casefile_id, again=again)
        if found is None:
            return None
        return Access(caller, casefile_id, found.role, found.source, found.asof, self._clock(), found.ends_at)

    async def enter(
        self, caller: Principal, casefile_id: str, action: Action, *, again: bool = False
    ) -> Access:
        """The proof that the caller may do this in the casefile.

        Raises:
            CasefileNotFound: It is missing, or the caller has no access: the two cannot be told apart.
            RoleTooLow: The caller is let in, but not for this. A member's refusal is on the record.
        """
        access = await self.look(caller, casefile_id, again=again)
        if access is None:
            _security.info("no access", extra={"user_id": caller.user_id, "casefile_id": casefile_id})
            raise CasefileNotFound(casefile_id)
        if not access.may(action):
            raise await self.refuse(access, action)
        return access

    async def refuse(self, access: Access, action: Action, *, on_record: bool = True) -> RoleTooLow:
        """Record that a member was refused, in the casefile's own record, and say why.

        `on_record` False: whoever asks keeps the record of it.
        """
        refusal = RoleTooLow(ROLE_FOR_ACTION[action].value, access.role and access.role.value)
        if access.is_member and on_record:
            await self.record_denial(access, refusal, denial({"action": action.value}, refusal))
        elif not access.is_member:
            _security.info("public reader refused", extra={"user_id": access.caller.user_id})
        return refusal

    async def record_denial(
        self,
        access: Access,
        refusal: Denied,
        payload: Payload,
        *,
        operation_type: OperationType | None = None,
        operation_name: str | None = None,
    ) -> None:
        """Leave a `denied` fact in the casefile's record session."""
        casefile = await self._store.casefile(access.casefile_id)
        if casefile is None or casefile.record_session_id is None:
            return
        now = self._clock()
        fact = Fact(
            casefile_id=access.casefile_id,
            session_id=casefile.record_session_id,
            event_id=new_event_id(now),
            kind=Kind.DENIED,
            operation_type=operation_type,
            operation_name=operation_name,
            actor=access.caller.pseudonym,
            started_at=now,
            permission=access.permission,
            error_type=refusal.code,
            payload=payload,
        )
        await self._commits.commit(Commit(facts=(fact,)))


def denial(inputs: Any, refusal: Denied) -> Payload:
    """What the record keeps of a refusal: what was asked, and why not."""
    return Payload.of_fields(inputs=inputs, error={"message": refusal.detail})
