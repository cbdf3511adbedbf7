"""Opens the room RUN, in two steps: what runs and how it ends, which rooms below ask for, and then what takes calls."""

import asyncio
from collections.abc import Iterator
from typing import Protocol

from casekeeper.acl_feed import Pushes
from casekeeper.background import Every
from casekeeper.casefiles.opening import CasefileRoom
from casekeeper.clock import Clock
from casekeeper.documents.blobs import BlobStore
from casekeeper.documents.opening import DocumentRoom
from casekeeper.execution.corridor import Executor
from casekeeper.execution.detached import DetachedOperations
from casekeeper.execution.explain import Explain
from casekeeper.execution.life import Life
from casekeeper.execution.nesting import Nesting
from casekeeper.execution.outcomes import Outcomes, OutcomeStore
from casekeeper.execution.payloads import Payloads
from casekeeper.execution.rate_limits import Limits
from casekeeper.execution.recovery import Recovery
from casekeeper.execution.resuming import ResumeStore, Resuming
from casekeeper.execution.runner import Runner
from casekeeper.execution.service import SessionService
from casekeeper.execution.session_changes import SessionChanges
from casekeeper.execution.status import Operations
from casekeeper.execution.stopping import Rights, Stopping
from casekeeper.execution.waking import Waker
from casekeeper.identity.opening import Identity
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commits
from casekeeper.journal.opening import Journal
from casekeeper.operations.admitting import Admitting
from casekeeper.operations.catalogue import Catalogue
from casekeeper.sessions.following import Heads, Polling
from casekeeper.sessions.opening import SessionRoom
from casekeeper.values import value


class OperationStore(ResumeStore, Heads, Protocol):
    """Operations and their facts, and the newest fact of each session."""


@value
class Work:
    """What runs in this process and what waits, how it ends, and who ends it.

    `owner` is this process, in the rows of what it runs; `due` is set when something waiting may go on.
    """

    owner: str
    store: OperationStore
    admitting: Admitting
    runner: Runner
    payloads: Payloads
    outcomes: Outcomes
    detached: DetachedOperations
    life: Life
    stopping: Stopping
    due: asyncio.Event


def open_work(
    journal: Journal,
    store: OperationStore,
    blobs: BlobStore,
    admitting: Admitting,
    runner: Runner,
    *,
    owner: str,
    is_shared: bool,
) -> Work:
    """The lower half of the room. `is_shared`: other processes work in the store."""
    commits, clock, due, payloads = journal.commits, journal.clock, asyncio.Event(), Payloads(blobs)
    outcomes = Outcomes(store, payloads, journal.live)
    detached = DetachedOperations(runner, commits, payloads, store, clock, due)
    life = Life(
        runner, commits, journal.requests, payloads, store, outcomes, detached, clock, owner=owner, due=due
    )
    stopping = Stopping(runner, store, admitting, detached, commits, is_shared=is_shared)
    return Work(owner, store, admitting, runner, payloads, outcomes, detached, life, stopping, due)


@value
class Execution:
    """What takes calls, and what becomes of operations."""

    work: Work
    nesting: Nesting
    executor: Executor
    sessions: SessionService
    operations: Operations
    explain: Explain
    catalogue: Catalogue
    waker: Waker
    recovery: Recovery


def open_execution(
    journal: Journal,
    work: Work,
    identity: Identity,
    casefiles: CasefileRoom,
    documents: DocumentRoom,
    sessions: SessionRoom,
    limits: Limits,
) -> Execution:
    """The room."""
    commits, requests, clock = journal.commits, journal.requests, journal.clock
    gate, manager, reading = casefiles.gate, sessions.manager, sessions.reading
    admitting, runner, payloads, outcomes = work.admitting, work.runner, work.payloads, work.outcomes

    async def stored_user(user_id: str) -> Principal | None:
        return await identity.accounts.active_principal(user_id, casefiles.freshness.epoch)

    nesting = Nesting(
        gate,
        commits,
        requests,
        payloads,
        journal.live,
        documents.of_operation,
        admitting,
        runner,
        outcomes,
        work.stopping,
        clock,
    )
    resuming = Resuming(
        manager, admitting, stored_user, work.life, work.detached, payloads, work.store, clock
    )
    executor = Executor(
        manager,
        gate,
        requests,
        admitting,
        limits,
        runner,
        commits,
        payloads,
        work.life,
        resuming,
        nesting.context,
        clock,
    )
    operations = Operations(manager, reading, runner, work.stopping, outcomes, payloads, identity.logins)
    service = SessionService(
        manager,
        executor,
        operations,
        SessionChanges(manager, operations, commits, requests, clock),
        reading,
        sessions.store,
        requests,
        identity.logins,
        journal.cursors,
        clock,
    )
    return Execution(
        work,
        nesting,
        executor,
        service,
        operations,
        Explain(gate, casefiles.store, identity.accounts, admitting),
        Catalogue(admitting.registry, gate),
        Waker(work.store, executor, runner, clock, work.due),
        Recovery(work.store, work.detached, owner=work.owner),
    )


def watching(
    journal: Journal, work: Work, casefiles: CasefileRoom, pushes: Pushes, *, is_shared: bool
) -> Iterator[Every]:
    """What every process does in the background that runs operations: it heeds what others want of them."""
    rights = Rights(work.runner, casefiles.store, journal.live, journal.clock, is_shared=is_shared)
    pushes.listen(rights.changed)
    yield rights.judging
    yield work.stopping.heeding(work.owner)
    if is_shared:
        yield Polling(work.store, journal.live).looking


async def recover_alone(
    commits: Commits, store: OutcomeStore, blobs: BlobStore, clock: Clock, owner: str
) -> None:
    """Hand on or close what a former process left open, in a store that no server holds."""
    detached = DetachedOperations(Runner(), commits, Payloads(blobs), store, clock, asyncio.Event())
    await Recovery(store, detached, owner=owner).run()
