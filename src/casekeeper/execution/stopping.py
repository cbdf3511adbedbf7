"""Stopping operations, running or waiting: on request, or when their user loses the right to them.

Those that run here are stopped directly; those in other processes through the store, or when that process notices the changed
permission; waiting ones have no owner and are ended here, at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from time import monotonic

from casekeeper.acl import READ_ONLY, Role
from casekeeper.acl_feed import ANY, Change, StopReport
from casekeeper.background import Every, each
from casekeeper.casefiles.casefile import CasefileStore
from casekeeper.casefiles.freshness import LEASE_S
from casekeeper.clock import Clock
from casekeeper.errors import Unavailable
from casekeeper.execution.detached import DetachedOperations
from casekeeper.execution.runner import Ending, Runner
from casekeeper.journal.commits import Commit, Commits
from casekeeper.journal.events import Failure, Kind
from casekeeper.journal.feed import LiveFeed
from casekeeper.journal.operations import (
    NOBODY,
    AskToStop,
    OpenedOperation,
    OpenOperation,
    OpenOperations,
    OperationEnded,
    OperationIsOpen,
)
from casekeeper.operations.admitting import Admitting

JUDGED_EVERY = timedelta(milliseconds=500)
"""How late the end of a grant is noticed, and a change that no notification announced."""

HEEDED_EVERY = timedelta(milliseconds=250)
"""How late a process notices that it was asked to stop something, while it runs anything at all."""

_PATIENCE_S = 1.0
_LOOK_S = 0.02
# Names in a receipt.
_TOLD_MAX = 1_000

_Judge = Callable[[OpenOperation], Awaitable[bool]]
_Pair = tuple[str, str]


class Stopping:
    """Implements `Stops` for all workers, and stops single operations."""

    def __init__(
        self,
        runner: Runner,
        store: OpenOperations,
        admitting: Admitting,
        detached: DetachedOperations,
        commits: Commits,
        *,
        is_shared: bool,
    ) -> None:
        """`is_shared`: other processes let people in by caches of their own, for at most a lease."""
        self._runner = runner
        self._store = store
        self._admitting = admitting
        self._detached = detached
        self._commits = commits
        self._is_shared = is_shared

    async def stop(
        self, reason: str, *, casefile_id: str | None = None, user_id: str | None = None, waits: bool = True
    ) -> StopReport:
        """End what runs and waits, and see what becomes of what runs elsewhere.

        The change is committed, so nothing starts or goes on any more under the permission that is gone.

        Raises:
            StoreUnavailable: What is open cannot be read; the change stands.
        """
        self._runner.stop(reason, casefile_id=casefile_id, user_id=user_id)
        return await self._seen(reason, casefile_id, user_id, _all, waits=waits)

    async def lowered(
        self, casefile_id: str, user_id: str, role: Role, tags: frozenset[str], *, waits: bool = True
    ) -> StopReport:
        """See what becomes of the operations that a user's new role does not cover; every worker judges its own.

        Raises:
            StoreUnavailable: What is open cannot be read; the change stands.
        """

        async def is_lost(row: OpenOperation) -> bool:
            return not await self._admitting.covers(row, role, tags)

        reason = "The permission for it was lost."
        return await self._seen(reason, casefile_id, user_id, is_lost, waits=waits)

    async def archived(self, casefile_id: str) -> None:
        """End what waits in an archived casefile to change something; what runs is refused with its next change.

        Raises:
            StoreUnavailable: What waits cannot be read; the change stands.
        """

        async def would_change(row: OpenOperation) -> bool:
            operation = await self._admitting.of_row(row)
            return operation is None or not operation.effects <= READ_ONLY

        ending = _cancelled("casefile_archived", "The casefile was archived.")
        await self._end_all_waiting(casefile_id, None, would_change, ending)

    async def settle(self) -> None:
        """Wait a lease: a worker that has not heard of the change by then believes none of its caches."""
        if self._is_shared:
            await asyncio.sleep(LEASE_S)

    async def operation(self, event_id: str, reason: str) -> None:
        """Ask an operation to end, in whichever process; one that waits has ended, with what is inside it, on return.

        That takes as long as what runs inside it needs for its end, some seconds at most.

        Raises:
            StoreUnavailable: It may go on.
        """
        running = self._runner.find(event_id)
        if running is not None and not running.is_settled:
            running.stop(Kind.CANCELLED, "cancelled", reason)
            return
        for opened in await self._store.opened([event_id]):
            if opened.row.owner != NOBODY:
                await self._ask(opened, reason)
            else:
                await self._detached.end([opened], _cancelled("cancelled", reason))

    async def session(self, session_id: str, reason: str) -> bool:
        """Ask all that is open in a session to end; whether anything was open still.

        What waits has ended on return, but for what has something running inside it.

        Raises:
            StoreUnavailable: Some of it may go on.
        """
        found = await self._store.open_operations(session_id)
        waiting = [one for one in found if one.row.owner == NOBODY]
        await self._detached.end(waiting, _cancelled("cancelled", reason), waits=False)
        for one in found:
            if one.row.owner != NOBODY and one.stop is None:
                await self.operation(one.row.event_id, reason)
        return bool(found)

    def heeding(self, owner: str) -> Every:
        """Stops what runs here, at this owner's, and was asked to through the store."""
        return Every(HEEDED_EVERY, partial(self._heed, owner), name="stopping what others ask for")

    async def _heed(self, owner: str) -> None:
        if not self._runner.all():
            return
        for event_id, reason in await self._store.asked_to_stop(owner):
            if running := self._runner.find(event_id):
                running.stop(Kind.CANCELLED, "cancelled", reason)

    async def _ask(self, opened: OpenedOperation, reason: str) -> None:
        ref = opened.row.ref
        with suppress(OperationEnded):
            await self._commits.commit(Commit((), (OperationIsOpen(ref),), (AskToStop(ref, reason),)))

    async def _seen(
        self, reason: str, casefile_id: str | None, user_id: str | None, is_lost: _Judge, *, waits: bool
    ) -> StopReport:
        began, ending = monotonic(), _cancelled("rights_lost", reason)
        waiting, running = await self._end_all_waiting(casefile_id, user_id, is_lost, ending)
        left = running
        if waits:
            await self.settle()
            while left and monotonic() - began < _PATIENCE_S:
                await asyncio.sleep(_LOOK_S)
                # What ran may have parked meanwhile, and waits now.
                parked, now_running = await self._end_all_waiting(casefile_id, user_id, is_lost, ending)
                waiting += parked
                left = {event_id: owner for event_id, owner in now_running.items() if event_id in running}
        unconfirmed: dict[str, tuple[str, ...]] = {}
        for event_id, owner in left.items():
            unconfirmed[owner] = (*unconfirmed.get(owner, ()), event_id)
        ended = [event_id for event_id in running if event_id not in left and event_id not in waiting]
        return StopReport(tuple(ended), tuple(waiting[:_TOLD_MAX]), unconfirmed)

    async def _end_all_waiting(
        self, casefile_id: str | None, user_id: str | None, is_lost: _Judge, ending: Ending
    ) -> tuple[list[str], dict[str, str]]:
        """End what waits; returns the ids of that, and what is left, with the owners of what runs."""
        ended = list[str]()
        while True:
            found = await self._store.open_of(casefile_id, user_id)
            lost = [one for one in found if await is_lost(one.row)]
            waiting = [one for one in lost if one.row.owner == NOBODY]
            done = await self._detached.end(waiting, ending, waits=False)
            ended += done.ended
            # A page has what waits first; one that is full of it may have more behind it.
            if not done.ended or len(found) < _TOLD_MAX:
                break
        running = {one.row.event_id: one.row.owner for one in lost if one.row.owner != NOBODY}
        return ended, running | done.held_up


class Rights:
    """Judges running operations again when a permission has changed or ended, and wakes those who follow a record.

    Their next step would be refused anyway; this is for what computes or talks to somebody else. What waits is judged when
    it goes on.
    """

    def __init__(
        self, runner: Runner, store: CasefileStore, live: LiveFeed, clock: Clock, *, is_shared: bool
    ) -> None:
        """`is_shared`: other processes change permissions as well, and a push of theirs may be lost."""
        self._runner = runner
        self._store = store
        self._live = live
        self._clock = clock
        self._is_shared = is_shared
        self._due: set[_Pair] = set()
        self._woken = asyncio.Event()
        self.judging = Every(JUDGED_EVERY, self._judge_all, name="looking up permissions", woken=self._woken)

    def changed(self, changes: Sequence[Change]) -> None:
        """Look at those whom these changes are about."""
        for change in changes:
            self._due.update(
                (casefile_id, user_id)
                for casefile_id, user_id in self._pairs()
                if change.casefile_id in (ANY, casefile_id) and change.user_id in (ANY, user_id)
            )
        self._live.wake()
        self._woken.set()

    async def _judge_all(self) -> None:
        self._due |= self._ended() | (self._pairs() if self._is_shared else set[_Pair]())
        await each(*(partial(self._judge, *pair) for pair in self._due))

    def _pairs(self) -> set[_Pair]:
        return {(running.fact.casefile_id, running.user_id) for running in self._runner.all()}

    def _ended(self) -> set[_Pair]:
        now = self._clock()
        return {
            (running.fact.casefile_id, running.user_id)
            for running in self._runner.all()
            if running.ends_at is not None and running.ends_at <= now
        }

    async def _judge(self, casefile_id: str, user_id: str) -> None:
        # Before it is looked up, so that a change in between makes it due again.
        self._due.discard((casefile_id, user_id))
        try:
            stored = await self._store.access(user_id, casefile_id)
        except Unavailable:
            # Meanwhile nothing that it does can be written.
            self._due.add((casefile_id, user_id))
            raise
        grant = stored.grant if stored and stored.grant and stored.grant.is_live(self._clock()) else None
        tags = stored.tags if stored else frozenset[str]()
        for running in self._runner.all():
            if (running.fact.casefile_id, running.user_id) != (casefile_id, user_id):
                continue
            if grant is None or not running.may_go_on(grant.role, tags):
                running.stop(Kind.CANCELLED, "rights_lost", "The permission for it was lost.")
            else:
                running.ends_at = grant.expires_at


async def _all(_: OpenOperation) -> bool:
    return True


def _cancelled(type_: str, reason: str) -> Ending:
    return Ending(Kind.CANCELLED, failure=Failure(type=type_, message=reason))
