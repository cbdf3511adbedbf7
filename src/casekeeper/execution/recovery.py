"""What nobody asks for and must happen: orphaned operations get their end, what has expired is swept.

An operation whose process is gone is closed as `interrupted`. It is never run again: what it did to the world is
not known.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

from casekeeper.acl import Grant
from casekeeper.casefiles.casefile import Casefile, CasefileStore, EraseContents, GrantEndsAt, RemoveGrant
from casekeeper.clock import Clock
from casekeeper.documents.blobs import BlobStore
from casekeeper.errors import Unavailable
from casekeeper.identity.accounts import AccountStore, StoredAccount
from casekeeper.ids import new_event_id
from casekeeper.journal.commits import Commit, Commits, PermissionChanged, Record, Superseded
from casekeeper.journal.events import Fact, Kind, Payload
from casekeeper.journal.operations import CloseOperation, OpenedOperation, OperationEnded, OperationIsOpen
from casekeeper.journal.requests import KEPT, ReleaseClaim

EVERY = timedelta(seconds=30)
# Nobody waits long for what an outage has left behind.
_AGAIN_S = 1.0
_BATCH = 200

Sweep = Callable[[], Awaitable[object]]

_log = logging.getLogger("casekeeper.recovery")


class OrphanStore(Protocol):
    """Where orphans and leftovers are found."""

    async def orphans(self, owner: str, limit: int) -> Sequence[OpenedOperation]:
        """Running operations of other owners than this, children before their parents."""
        ...


class Recovery:
    """Closes what a former process left open."""

    def __init__(self, store: OrphanStore, commits: Commits, clock: Clock, *, owner: str) -> None:
        self._store = store
        self._commits = commits
        self._clock = clock
        self._owner = owner

    async def run(self) -> int:
        """Close all orphans as `interrupted`; returns how many there were."""
        closed = 0
        while orphans := await self._store.orphans(self._owner, _BATCH):
            await asyncio.gather(*(self._close(orphan) for orphan in orphans))
            closed += len(orphans)
        if closed:
            _log.warning("closed %d operations of a process that is gone", closed)
        return closed

    async def _close(self, orphan: OpenedOperation) -> None:
        row, now = orphan.row, self._clock()
        fact = Fact(
            casefile_id=row.casefile_id,
            session_id=row.session_id,
            event_id=row.event_id,
            parent_event_id=row.parent_event_id,
            kind=Kind.INTERRUPTED,
            operation_type=row.operation_type,
            operation_name=row.operation_name,
            actor=row.actor,
            request_id=row.request_id,
            started_at=row.started_at,
            ended_at=max(now, row.started_at),
            error_type="process_gone",
            started_seq=orphan.started_seq,
            inputs_commit=orphan.inputs_commit,
            payload=Payload.of_fields(
                error={"message": "The server stopped while it ran.", "retryable": True}
            ),
        )
        records = (CloseOperation(row.event_id), ReleaseClaim(row.event_id, now + KEPT))
        try:
            await self._commits.commit(Commit((fact,), (OperationIsOpen(row.event_id),), records))
        except OperationEnded:
            return


class Expiry:
    """Records that grants have ended. Their end itself needs nobody: expiry is judged on every use."""

    def __init__(self, store: CasefileStore, accounts: AccountStore, commits: Commits, clock: Clock) -> None:
        self._store = store
        self._accounts = accounts
        self._commits = commits
        self._clock = clock

    async def sweep(self) -> int:
        """Record the grants that expired since the last sweep; returns how many."""
        expired = await self._store.expired_grants(self._clock(), _BATCH)
        for grant in expired:
            casefile = await self._store.casefile(grant.casefile_id)
            now = self._clock()
            records: list[Record] = [
                RemoveGrant(grant.casefile_id, grant.user_id),
                PermissionChanged(grant.casefile_id, grant.user_id, Kind.EXPIRED, now),
            ]
            facts: tuple[Fact, ...] = ()
            if casefile and casefile.record_session_id and (granter := await self._granter(grant, casefile)):
                facts = (
                    Fact(
                        casefile_id=grant.casefile_id,
                        session_id=casefile.record_session_id,
                        event_id=new_event_id(now),
                        kind=Kind.EXPIRED,
                        actor=granter.account.pseudonym,
                        started_at=now,
                        payload=Payload.of_fields(inputs=grant.model_dump(mode="json", exclude_none=True)),
                    ),
                )
            unchanged = GrantEndsAt(grant.casefile_id, grant.user_id, grant.expires_at)
            with suppress(Superseded):
                await self._commits.commit(Commit(facts, (unchanged,), records))
        return len(expired)

    async def _granter(self, grant: Grant, casefile: Casefile) -> StoredAccount | None:
        # A casefile from another deployment may have grants by somebody who has no account here.
        granter = await self._accounts.account(grant.granted_by)
        return granter or await self._accounts.account(casefile.owner)


class Erasure:
    """Erases the contents of deleted casefiles; their headers stay, so their chains verify."""

    def __init__(self, store: CasefileStore, blobs: BlobStore, commits: Commits) -> None:
        self._store = store
        self._blobs = blobs
        self._commits = commits

    async def sweep(self) -> int:
        """Erase what was deleted since the last sweep; returns how many casefiles."""
        deleted = await self._store.deleted_casefiles(_BATCH)
        for casefile_id in deleted:
            await self._blobs.erase(casefile_id)
            await self._commits.commit(Commit(records=(EraseContents(casefile_id),)))
        return len(deleted)


class Sweeper:
    """Calls the sweeps every half minute, and says when one fails."""

    def __init__(
        self,
        own: Sequence[Sweep],
        shared: Sequence[Sweep],
        is_our_turn: Callable[[], Awaitable[bool]],
        due: asyncio.Event,
        every: timedelta = EVERY,
    ) -> None:
        """`own` are for every process, `shared` for the one whose turn it is; `due` says that there is no time to lose.

        Should two take it for theirs for a while, nothing is wrong: what a sweep writes is conditional or can be repeated.
        """
        self._own = own
        self._shared = shared
        self._is_our_turn = is_our_turn
        self._due = due
        self._every_s = every.total_seconds()
        self._is_away = False

    async def run(self) -> None:
        """Sweep until cancelled, at once for the first time."""
        while True:
            self._due.clear()
            self._is_away = not await self._swept()
            # What an outage kept from being swept is swept as soon as it is over.
            pause_s = min(self._every_s, _AGAIN_S) if self._is_away else self._every_s
            with suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), pause_s)

    async def _swept(self) -> bool:
        """Whether every sweep reached the store."""
        reached = [await self._sweep(sweep) for sweep in self._own]
        try:
            turn = await self._is_our_turn()
        except Unavailable:
            return False
        return all(reached + [await self._sweep(sweep) for sweep in self._shared if turn])

    async def _sweep(self, sweep: Sweep) -> bool:
        try:
            await sweep()
        except Unavailable as error:
            if not self._is_away:
                _log.warning("a sweep could not reach the store (%s); it will be tried again", error)
            return False
        return True
