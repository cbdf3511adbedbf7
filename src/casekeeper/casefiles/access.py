"""The gate: who may enter a casefile, and the proof that they may.

Only `Gate.enter` makes an `Access`. Everything that reads, changes or runs something in a casefile takes one, so
that the unchecked path does not type-check.
"""

import logging
from datetime import datetime
from typing import Any

from casekeeper.acl import ROLE_FOR_ACTION, Action, Role
from casekeeper.casefiles.casefile import CasefileStore, Fence
from casekeeper.casefiles.grants import Grants, Source
from casekeeper.clock import Clock, utc_now
from casekeeper.errors import CasefileNotFound, Denied, RoleTooLow
from casekeeper.identity.principal import Principal
from casekeeper.ids import new_event_id
from casekeeper.journal.commits import Commit, Commits
from casekeeper.journal.events import Fact, Kind, OperationType, Payload, Permission
from casekeeper.values import value

_security = logging.getLogger("casekeeper.security")


@value
class Access:
    """Proof of entry: this caller may do this much in this casefile, as of that number of the feed.

    `role` None is a public reader, who is no member; `ends_at` is when the grant ends. `tags` are the casefile's, as
    of the same number, where rules of the deployment go by tags; elsewhere they may be missing. `clock` tells whether it
    has ended when a commit is judged.
    """

    caller: Principal
    casefile_id: str
    role: Role | None
    source: Source
    asof: int
    checked_at: datetime
    ends_at: datetime | None = None
    tags: frozenset[str] = frozenset()
    clock: Clock = utc_now

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
        return Fence(self.caller.user_id, self.casefile_id, self.asof, self.ends_at, self.clock)


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
        now = self._clock()
        return Access(
            caller,
            casefile_id,
            found.role,
            found.source,
            found.asof,
            now,
            found.ends_at,
            found.tags,
            self._clock,
        )

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

    async def entered(self, access: Access, action: Action, *, again: bool) -> Access:
        """The proof that there is, or a new one where it was overtaken. Raises what `enter` does."""
        if not again:
            return access
        return await self.enter(access.caller, access.casefile_id, action, again=True)

    async def refuse(self, access: Access, action: Action, *, on_record: bool = True) -> RoleTooLow:
        """Record that a member was refused, in the casefile's own record, and say why.

        `on_record` False: the caller of this method records the refusal.
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
