"""Detached operations: no task of this process runs them, as they wait or their process is lost. Hands over, postpones, ends.

An operation never ends before what is inside it: what waits there ends with it, and what runs there, wherever that is, is
asked to stop and waited for. After a grace period it is ended all the same, as is any run that ignores its cancellation.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import NamedTuple

from pydantic_core import from_json

from casekeeper.clock import Clock
from casekeeper.execution.facts import terminal_fact
from casekeeper.execution.outcomes import OutcomeStore
from casekeeper.execution.payloads import Payloads
from casekeeper.execution.runner import Ending, Runner
from casekeeper.execution.trees import deepest_first, held_up, inside, trees
from casekeeper.journal.commits import Commit, Commits, Record
from casekeeper.journal.events import Fact, Failure, Kind, Payload, fact_of
from casekeeper.journal.operations import (
    NOBODY,
    AskToStop,
    CloseOperation,
    Held,
    OpenedOperation,
    OperationEnded,
    OperationIsOpen,
    OperationRef,
    ParkOperation,
    Wake,
    operation_of,
)
from casekeeper.journal.requests import KEPT, ReleaseClaim

AROUND_HAS_ENDED = Ending(
    Kind.CANCELLED, failure=Failure(type="cancelled", message="The operation around this one has ended.")
)

# Until another process has heard that it should stop something, and the end of that is on the record.
_HEARD = timedelta(seconds=1)
_LOOK_S = 0.05
# Ends in one commit; every store takes so many.
_TOGETHER = 100
# Trees whose ends are on their way to the store together.
_AT_ONCE = 200


class Ended(NamedTuple):
    """What became of operations that were to end.

    `ended` waited and has ended. `held_up` has those that wait still, with the owner of what runs inside each.
    """

    ended: list[str]
    held_up: dict[str, str]


class _EndRequest(NamedTuple):
    """Which operations are to end, by id, and how; `dead` run in no process any more."""

    ids: Collection[str]
    ending: Ending
    dead: Collection[str]

    @property
    def is_wish(self) -> bool:
        """Somebody wants it. Anything else is found out again by whoever takes up one of them."""
        failure = self.ending.failure
        return failure is not None and failure.type == "cancelled"

    def ending_of(self, event_id: str) -> Ending:
        """How one of these ends, or one inside them."""
        return self.ending if event_id in self.ids or self.is_wish else AROUND_HAS_ENDED

    def runs(self, one: OpenedOperation) -> bool:
        """Whether somebody may be at work on it."""
        return one.row.owner != NOBODY and one.row.event_id not in self.dead


class DetachedOperations:
    """Hands over, postpones and ends operations that no task of this process runs."""

    def __init__(
        self,
        runner: Runner,
        commits: Commits,
        payloads: Payloads,
        store: OutcomeStore,
        clock: Clock,
        due: asyncio.Event,
    ) -> None:
        """`due` is set when something that waits was woken."""
        self._runner = runner
        self._commits = commits
        self._payloads = payloads
        self._store = store
        self._clock = clock
        self._due = due

    async def hand_on(self, opened: OpenedOperation) -> bool:
        """Let an operation whose process is lost wait, due at once; False if that is overtaken.

        What it was about to do is not known; it finds out from the record when it goes on.
        """
        row, now = opened.row, self._clock()
        assert row.held is not None, "what does not park is not handed on"
        held = replace(row.held, since=now, crashes=row.held.crashes + 1, waiting_for=())
        park = ParkOperation(row.ref, held, wake_at=now)
        is_done = await self._unless_overtaken(Commit((), (row.ownership,), (park,)))
        self._due.set()
        return is_done

    async def postpone(self, opened: OpenedOperation, held: Held, wait: timedelta) -> bool:
        """Let a waiting operation wait on, for this long; False if that is overtaken."""
        park = ParkOperation(opened.row.ref, held, wake_at=self._clock() + wait)
        return await self._unless_overtaken(Commit((), (opened.row.ownership,), (park,)))

    async def end(
        self,
        lost: Sequence[OpenedOperation],
        ending: Ending,
        *,
        dead: Collection[str] = (),
        waits: bool = True,
    ) -> Ended:
        """End operations in this way, and all that is inside them before.

        `dead` has the ids of those, inside too, whose process is lost. What runs inside is asked to stop, and what is around
        it ends after it; without `waits` only what can end now does, and the rest when it is taken up after what runs. One
        that somebody has taken up meanwhile is asked to stop where somebody wants it, and else left alone.

        Raises:
            StoreUnavailable: It is not known which of them have ended.
        """
        ended, held = list[str](), dict[str, str]()
        rest = trees(lost)
        while rest:
            some, rest = rest[:_AT_ONCE], rest[_AT_ONCE:]
            for done in await asyncio.gather(*(self._end_tree(one, ending, dead, waits) for one in some)):
                ended += done.ended
                held |= done.held_up
        return Ended(ended, held)

    async def end_inside(self, operation: OperationRef, root_event_id: str) -> None:
        """End what is open inside an operation that is about to end, here or elsewhere; see `end`."""
        if found := inside({operation.event_id}, await self._store.open_inside(root_event_id)):
            await self.end(found, AROUND_HAS_ENDED)

    async def started_fact(self, opened: OpenedOperation) -> Fact:
        """The fact that opened an operation, as it is on the record; of its inputs only the commitment."""
        [stored, *_] = await self._store.operation(opened.row.event_id)
        return fact_of(from_json(stored.header), Payload(b"", bytes.fromhex(opened.inputs_commit), 0, None))

    async def _end_tree(
        self, tree: Sequence[OpenedOperation], ending: Ending, dead: Collection[str], waits: bool
    ) -> Ended:
        given = {one.row.event_id: one.row.ownership for one in tree}
        wanted = _EndRequest(given, ending, dead)
        until_s = monotonic() + (self._runner.grace + _HEARD).total_seconds()
        found, waited = tree, set[str]()
        while True:
            within = await self._store.open_inside(tree[0].row.root_event_id)
            found = [*found, *inside({one.row.event_id for one in found}, within)]
            waited |= {one.row.event_id for one in found if one.row.owner == NOBODY}
            is_over = waits and monotonic() >= until_s
            running = [one for one in found if wanted.runs(one) and not is_over]
            held = held_up(running, found)
            held |= {one.row.event_id: one for one in running}
            await self._ask([one for one in found if one.row.event_id in held], wanted)
            is_done = await self._end_all([one for one in found if one.row.event_id not in held], wanted)
            if is_done and not (waits and held):
                owners = {event_id: held[event_id].row.owner for event_id in held if event_id in waited}
                return Ended(sorted(waited - held.keys()), owners)
            if is_done:
                await asyncio.sleep(_LOOK_S)
            open_ = await self._store.opened(sorted(given))
            found = [one for one in open_ if wanted.is_wish or one.row.ownership == given[one.row.event_id]]
            waited -= {one.row.event_id for one in open_} - {one.row.event_id for one in found}

    async def _ask(self, found: Sequence[OpenedOperation], wanted: _EndRequest) -> None:
        """Ask what runs to stop, and see to it that what waits for that ends, too, should this process be lost."""
        soon = self._clock() + _HEARD * 2
        for one in found:
            failure = wanted.ending_of(one.row.event_id).failure
            assert failure is not None, "whatever ends from outside says why"
            running = self._runner.find(one.row.event_id) if wanted.runs(one) else None
            if running is not None:
                running.stop(Kind.CANCELLED, failure.type, failure.message)
            elif one.stop is None and (wanted.runs(one) or wanted.is_wish):
                ask = AskToStop(one.row.ref, failure.message)
                await self._unless_overtaken(Commit((), (OperationIsOpen(one.row.ref),), (ask,)))
            elif one.stop is None and (one.row.wake_at is None or one.row.wake_at > soon):
                # Whoever takes it up finds out by itself why it cannot go on.
                await self._commits.commit(Commit(records=(Wake(one.row.ref, soon),)))

    async def _end_all(self, found: Sequence[OpenedOperation], wanted: _EndRequest) -> bool:
        """End these, a hundred in a commit, those inside others first.

        False if one of them has ended, or was taken up, meanwhile: it and those in its commit and behind it are left as they
        are.
        """
        ends, ids = deepest_first(found), {one.row.event_id for one in found}
        for start in range(0, len(ends), _TOGETHER):
            if not await self._end_some(ends[start : start + _TOGETHER], wanted, ids):
                return False
        return True

    async def _end_some(
        self, ends: Sequence[OpenedOperation], wanted: _EndRequest, end_too: Collection[str]
    ) -> bool:
        facts, records = list[Fact](), list[Record]()
        for opened in ends:
            row = opened.row
            terminal = await self._end_of(opened, wanted.ending_of(row.event_id))
            is_woken = row.parent is not None and row.parent.event_id not in (*end_too, *wanted.ids)
            facts.append(terminal)
            records += ends_with(terminal, row.parent if is_woken else None, is_claimed=row.parent is None)
        conditions = tuple(opened.row.ownership for opened in ends)
        if not await self._unless_overtaken(Commit(tuple(facts), conditions, records)):
            return False
        if any(isinstance(record, Wake) for record in records):
            self._due.set()
        for row in (opened.row for opened in ends):
            if row.held is not None:
                await self._payloads.drop_snapshot(row.casefile_id, row.held.snapshot)
        return True

    async def _end_of(self, opened: OpenedOperation, ending: Ending) -> Fact:
        row, now = opened.row, self._clock()
        held, waited = row.held, timedelta()
        if held is not None:
            waited = held.waited + (now - held.since if held.since else timedelta())
        fact = await self.started_fact(opened)
        ending, payload, _ = await self._payloads.ending(row.casefile_id, ending)
        tainted = row.is_tainted or (held is not None and held.is_tainted)
        return terminal_fact(
            fact, opened.started_seq, ending, payload, now, is_tainted=tainted, waited=waited
        )

    async def _unless_overtaken(self, commit: Commit) -> bool:
        with suppress(OperationEnded):
            await self._commits.commit(commit)
            return True
        return False


def ends_with(terminal: Fact, wakes: OperationRef | None, *, is_claimed: bool) -> list[Record]:
    """What goes with the fact that ends an operation; `wakes` is what waits for it."""
    now = terminal.ended_at or terminal.started_at
    records: list[Record] = [CloseOperation(operation_of(terminal))]
    if is_claimed:
        records.append(ReleaseClaim(terminal.event_id, now + KEPT))
    if wakes is not None:
        records.append(Wake(wakes, now))
    return records
