"""Recovery after a lost process, and sweeps: orphaned operations are handed over or closed, expired data is deleted.

An operation whose process is gone goes on in another if it parks: from its snapshot and from the record, on which its
nested calls are. Any other is closed as `interrupted` and never run again: what it did to the world is not known.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from casekeeper.acl import Grant
from casekeeper.background import each
from casekeeper.casefiles.casefile import Casefile, CasefileStore, EraseContents, GrantEndsAt, RemoveGrant
from casekeeper.clock import Clock
from casekeeper.documents.blobs import BlobStore
from casekeeper.execution.detached import DetachedOperations
from casekeeper.execution.runner import Ending
from casekeeper.execution.trees import trees
from casekeeper.identity.accounts import AccountStore, StoredAccount
from casekeeper.ids import new_event_id
from casekeeper.journal.commits import Commit, Commits, PermissionChanged, Record, Superseded
from casekeeper.journal.events import Fact, Failure, Kind, Payload
from casekeeper.journal.operations import OpenedOperation, OpenOperations

_BATCH = 200
CRASHES_MAX = 20
"""An operation that loses so many processes in a row, without parking in between, is closed: it may be what ends them."""

_PROCESS_GONE = Ending(
    Kind.INTERRUPTED,
    failure=Failure(type="process_gone", message="The server stopped while it ran.", retryable=True),
)
_log = logging.getLogger("casekeeper.recovery")


class Recovery:
    """Hands over operations that a lost process left open, or closes them."""

    def __init__(
        self,
        store: OpenOperations,
        detached: DetachedOperations,
        *,
        owner: str,
    ) -> None:
        self._store = store
        self._detached = detached
        self._owner = owner

    async def run(self) -> int:
        """Hand on or close all orphans; returns how many there were."""
        count = 0
        while orphans := await self._store.orphans(self._owner, _BATCH):
            await asyncio.gather(*(self._settle(tree) for tree in trees(orphans)))
            count += len(orphans)
        if count:
            _log.warning("handed over or closed %d operations of lost processes", count)
        return count

    async def _settle(self, tree: Sequence[OpenedOperation]) -> None:
        """Close what cannot go on, with what is inside it, and hand on the rest; what is overtaken is looked at again."""
        closed = [orphan for orphan in tree if not _goes_on(orphan)]
        dead = {orphan.row.event_id for orphan in tree}
        # What parks inside what cannot go on could go on, but for nobody.
        await self._detached.end(closed, _PROCESS_GONE, dead=dead)
        for orphan in tree:
            if _goes_on(orphan):
                await self._detached.hand_on(orphan)


def _goes_on(orphan: OpenedOperation) -> bool:
    return orphan.row.held is not None and orphan.row.held.crashes < CRASHES_MAX


class Expiry:
    """Records that grants have expired. The expiry itself is enforced on every use, without this."""

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


async def in_turn(
    is_our_turn: Callable[[], Awaitable[bool]], *sweeps: Callable[[], Awaitable[object]]
) -> None:
    """Sweep what all processes share, if it is the turn of this one.

    Should two take it for theirs for a while, nothing is wrong: what a sweep writes is conditional or can be repeated.

    Raises:
        Unavailable: Whose turn it is is not known, or one of the sweeps did not reach what it needs; the others are done.
    """
    if await is_our_turn():
        await each(*sweeps)
