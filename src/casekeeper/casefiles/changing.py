"""How a casefile is changed: enter, decide, commit at the version that was decided on, answer.

Every change of a casefile or its access list takes the next version, so two deciders never build on the same state.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from typing import Any, TypeVar

from pydantic import Field

from casekeeper.acl import Action
from casekeeper.casefiles.access import Access, Gate
from casekeeper.casefiles.casefile import (
    Casefile,
    CasefileIsAt,
    CasefileStore,
    PutCasefile,
    Status,
)
from casekeeper.casefiles.retrying import overtaken, retried
from casekeeper.clock import Clock
from casekeeper.errors import CasefileArchived, CasefileNotFound, RoleTooLow, StaleVersion
from casekeeper.identity.principal import Principal
from casekeeper.ids import CasefileId, new_event_id
from casekeeper.journal.commits import Commit, Commits, Record
from casekeeper.journal.events import Fact, Kind, Payload
from casekeeper.journal.requests import Ask, Requests
from casekeeper.strict import Strict
from casekeeper.values import value

T = TypeVar("T")

# Of a few who change the same casefile at once nobody loses so often in a row.
_TRIES = 50


class ChangeCommand(Strict):
    """What all changes of a casefile carry."""

    casefile_id: CasefileId
    expected_version: int | None = Field(
        default=None, ge=1, le=2**53, description="Refuse if the casefile has changed since."
    )


@value
class Present:
    """The state that a change is based on; it is committed only if this still holds."""

    access: Access
    casefile: Casefile


@value
class PlannedChange:
    """A change to be made to a casefile, and the fact that records it."""

    casefile: Casefile
    kind: Kind
    records: Sequence[Record] = ()
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])


Decide = Callable[[Present], Awaitable[PlannedChange]]


class Changing:
    """Changes casefiles, one version at a time."""

    def __init__(
        self, gate: Gate, store: CasefileStore, commits: Commits, requests: Requests, clock: Clock
    ) -> None:
        self._gate = gate
        self._store = store
        self._commits = commits
        self._requests = requests
        self._clock = clock

    async def change(
        self,
        caller: Principal,
        command: ChangeCommand,
        action: Action,
        decide: Decide,
        ask: Ask,
        answer: Callable[[str], Awaitable[T]],
        *,
        ends_access: bool = False,
    ) -> tuple[T, bool]:
        """Change and answer; a repeat of the same request only answers, and the flag says so.

        `ends_access`: the change takes from the caller what a repeat would be judged by, so the repeat comes first.

        Raises:
            StaleVersion: `expected_version` is not the casefile's.
            CasefileNotFound: Missing, or no access.
            RoleTooLow: The role does not allow the action; recorded.
        """
        if ends_access and (earlier := await self._requests.find(ask)):
            return await answer(earlier), True

        async def make() -> T:
            await self._commit(caller, command, action, decide, ask)
            return await answer(command.casefile_id)

        try:
            await self._gate.enter(caller, command.casefile_id, action)
            return await self._requests.once(ask, make, answer)
        except (CasefileNotFound, RoleTooLow):
            # The same request may have gone through while this one was on its way.
            if ends_access and (earlier := await self._requests.find(ask)):
                return await answer(earlier), True
            raise

    async def _commit(
        self, caller: Principal, command: ChangeCommand, action: Action, decide: Decide, ask: Ask
    ) -> None:
        casefile_id = command.casefile_id

        async def attempt(again: bool) -> None:
            access = await self._gate.enter(caller, casefile_id, action, again=again)
            casefile = await self._store.casefile(casefile_id)
            if casefile is None:
                raise CasefileNotFound(casefile_id)
            if command.expected_version not in (None, casefile.version):
                raise StaleVersion(command.expected_version or 0, casefile.version)
            # What it reads is read behind the version: what changes in between makes the commit stale.
            decision = await decide(Present(access, casefile))
            changes = {"version": casefile.version + 1, "updated_at": self._clock()}
            changed = PutCasefile(decision.casefile.model_copy(update=changes))
            claim = self._requests.claim(ask, casefile_id)
            conditions = (*claim, access.fence, CasefileIsAt(casefile_id, casefile.version))
            fact = self.fact(caller, casefile, decision.kind, decision.inputs, ask)
            await self._commits.commit(Commit((fact,), conditions, (*claim, changed, *decision.records)))

        races = (StaleVersion,) if command.expected_version is None else ()
        await retried(attempt, races=races, tries=_TRIES, otherwise=overtaken)

    def fact(self, caller: Principal, casefile: Casefile, kind: Kind, inputs: Any, ask: Ask) -> Fact:
        """A fact for the casefile's own record, under an event id of its own."""
        now = self._clock()
        return Fact(
            casefile_id=casefile.casefile_id,
            session_id=casefile.record_session_id or "",
            event_id=new_event_id(now),
            kind=kind,
            actor=caller.pseudonym,
            request_id=ask.request_id,
            started_at=now,
            payload=Payload.of_fields(inputs=inputs),
        )


def must_not_be_archived(casefile: Casefile) -> None:
    """Refuse to change what is archived."""
    if casefile.status is Status.ARCHIVED:
        raise CasefileArchived
