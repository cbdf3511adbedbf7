"""Commits to Firestore: in batches, one queue for each session, each batch one atomic write that checks what it relied on.

There are no read-write transactions, which lock what they read and wait for each other. A batch reads what it needs,
judges its commits in order, and is written with the versions of everything that it relied on as preconditions. If
anything has changed meanwhile, nothing is written and the batch is judged again on what is there now.
"""

import asyncio
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from casekeeper.acl_feed import Change
from casekeeper.casefiles.casefile import EraseContents
from casekeeper.documents.document import AddDocument, DeleteDocuments
from casekeeper.errors import Overloaded, Refused, StoreUnavailable
from casekeeper.journal.commits import Commit, ForgetExpired, Superseded
from casekeeper.journal.events import Sealed
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.batch import judge, paths_of
from casekeeper.storage.firestore.client import CommitConflict, Firestore, Rejected
from casekeeper.storage.firestore.documents import put_contents
from casekeeper.storage.firestore.facts import put_payloads
from casekeeper.storage.firestore.queues import changes_permissions, is_fenced, queue_of, size_of
from casekeeper.storage.firestore.timestamps import put_end_right, stamp_again
from casekeeper.storage.firestore.view import KnownSessions, View
from casekeeper.storage.unconfirmed import Unconfirmed
from casekeeper.values import value

# Past this many waiting commits the store is slower than its callers; more waiting helps nobody.
_QUEUE_MAX = 10_000
_BATCH_MAX = 64
# One write may have 10 MiB, the emulator takes 4.
_BATCH_BYTES = 3 * 1024 * 1024
# So long a batch that others keep overtaking, or whose answer was lost, is tried again.
_TRIES_S = 8.0
_LOST_S = 3.0


Answer = Sequence[Sealed] | Exception


@value
class _Waiting:
    """A commit in its queue; `behind` are those that have to be answered before it is judged."""

    commit: Commit
    future: "asyncio.Future[Sequence[Sealed]]"
    behind: "list[asyncio.Future[Sequence[Sealed]]]"
    size: int


class FirestoreCommits:
    """Implements `Commits` on Firestore."""

    def __init__(
        self,
        store: Firestore,
        announce: Callable[[Sequence[Sealed]], None],
        push: Callable[[Sequence[Change]], None],
        index: Callable[[Sequence[AddDocument | DeleteDocuments]], Awaitable[None]],
        sweep: Callable[[EraseContents | ForgetExpired], Awaitable[None]],
    ) -> None:
        self.memory = KnownSessions()
        self.unconfirmed = Unconfirmed()
        self._store = store
        self._announce = announce
        self._push = push
        self._index = index
        self._sweep = sweep
        self._queues: dict[str, deque[_Waiting]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._fenced: set[asyncio.Future[Sequence[Sealed]]] = set()
        self._changing: set[asyncio.Future[Sequence[Sealed]]] = set()
        self._waiting = 0
        self._is_open = True

    async def commit(self, commit: Commit) -> Sequence[Sealed]:
        """See `journal.commits.Commits`."""
        if not self._is_open:
            raise StoreUnavailable("The store is closed.")
        if self._waiting >= _QUEUE_MAX:
            raise Overloaded
        for record in commit.records:
            if isinstance(record, EraseContents | ForgetExpired):
                # Too much for one write; each part of it can be repeated.
                await self._sweep(record)
                return ()
        return await self._enqueue(commit)

    @property
    def is_writable(self) -> bool:
        """Whether commits can be taken."""
        return self._is_open

    async def close(self) -> None:
        """Write what waits, take nothing more."""
        self._is_open = False
        while self._workers:
            await asyncio.wait(self._workers)

    def _enqueue(self, commit: Commit) -> "asyncio.Future[Sequence[Sealed]]":
        future: asyncio.Future[Sequence[Sealed]] = asyncio.get_running_loop().create_future()
        # Permission changes and what is fenced against them keep the order in which they came.
        behind: list[asyncio.Future[Sequence[Sealed]]] = []
        about = commit.about
        if changes_permissions(about):
            behind, group = list(self._fenced), self._changing
        elif is_fenced(about):
            behind, group = list(self._changing), self._fenced
        else:
            group = None
        answered: asyncio.Future[Sequence[Sealed]] = asyncio.get_running_loop().create_future()
        if group is not None:
            group.add(answered)
            answered.add_done_callback(group.discard)
        self._waiting += 1
        queue = queue_of(about)
        waiting = self._queues.get(queue)
        if waiting is None:
            waiting = self._queues[queue] = deque()
            task = asyncio.create_task(self._work(queue, waiting))
            self._workers.add(task)
            task.add_done_callback(self._workers.discard)
        waiting.append(_Waiting(commit, answered, behind, size_of(commit)))
        # A caller that goes away only leaves its future behind: the commit may be written already.
        answered.add_done_callback(lambda done: _pass_on(done, future))
        return future

    async def _work(self, queue: str, waiting: deque[_Waiting]) -> None:
        # All who were woken together get in before the first batch leaves.
        await asyncio.sleep(0)
        while waiting:
            batch = await self._next(waiting)
            try:
                answers = await self._write(batch)
            except Exception as error:
                answers = [error] * len(batch)
                self.unconfirmed.add(one.commit for one in batch)
            answered = zip(batch, answers, strict=True)
            self.unconfirmed.resolve(
                one.commit for one, answer in answered if not isinstance(answer, Exception)
            )
            self._waiting -= len(batch)
            for one, answer in zip(batch, answers, strict=True):
                if isinstance(answer, Exception):
                    one.future.set_exception(answer)
                else:
                    one.future.set_result(answer)
        del self._queues[queue]

    async def _next(self, waiting: deque[_Waiting]) -> list[_Waiting]:
        if behind := [future for future in waiting[0].behind if not future.done()]:
            await asyncio.wait(behind)
        batch, size = [waiting.popleft()], 0
        while waiting and len(batch) < _BATCH_MAX:
            one = waiting[0]
            size += one.size
            if size > _BATCH_BYTES or not all(future.done() for future in one.behind):
                break
            batch.append(waiting.popleft())
        return batch

    async def _write(self, batch: list[_Waiting]) -> list[Answer]:
        for one in batch:
            # What is too large for the commit itself; if that fails it is rubbish, and erased with the casefile.
            await put_payloads(self._store, one.commit)
            await put_contents(self._store, one.commit)
        try:
            return await self._settle([one.commit for one in batch])
        except Rejected as error:
            if len(batch) == 1:
                return [error]
            # One of them is poison: alone, each of the others goes through.
            return [answer for one in batch for answer in await self._write([one])]

    async def _settle(self, commits: Sequence[Commit]) -> list[Answer]:
        ends = monotonic() + _TRIES_S
        while True:
            view = View(self._store, self.memory)
            answers: list[Answer] = []
            nonce = secrets.token_hex(8)
            await view.load(path for commit in commits for path in paths_of(commit))
            for commit in commits:
                view = await self._take(view, commit, nonce, answers)
            try:
                if writes := view.writes():
                    made = await self._store.commit(writes)
                    await stamp_again(self._store, made, writes)
            except CommitConflict:
                self.memory.forget(view.tails)
                if monotonic() > ends:
                    raise StoreUnavailable("Others keep changing the same; try again.") from None
                await asyncio.sleep(random.uniform(0.001, 0.03))  # noqa: S311 - spreads out who tries again
                continue
            except StoreUnavailable:
                self.memory.forget(view.tails)
                if not await self._has_landed(answers, nonce):
                    continue
                # The lost answer would have said whether the commit was timely.
                for session_id in view.tails:
                    await self._put_end_right(view, session_id)
            await self._tell(view, answers)
            return answers

    async def _take(self, view: View, commit: Commit, nonce: str, answers: list[Answer]) -> View:
        trial = view.fork()
        try:
            answers.append(await judge(trial, commit, nonce))
        except (Refused, Superseded, LookupError) as refusal:
            answers.append(refusal)
            return view
        return trial

    async def _has_landed(self, answers: list[Answer], nonce: str) -> bool:
        """Whether a write whose answer was lost was made; its first fact tells.

        Raises:
            StoreUnavailable: There is none, or the store stays unavailable.
        """
        first = next((a[0] for a in answers if not isinstance(a, Exception) and a), None)
        ends = monotonic() + _LOST_S
        while first is not None and monotonic() < ends:
            fact = first.fact
            try:
                found = await self._store.one(at.event(fact.casefile_id, fact.session_id, first.seq))
            except StoreUnavailable:
                continue
            return found is not None and found.fields["nonce"] == nonce
        raise StoreUnavailable("Firestore did not answer; whether this was written is not known.")

    async def _put_end_right(self, view: View, session_id: str) -> None:
        if casefile_id := await view.casefile_of(session_id):
            await put_end_right(self._store, casefile_id, session_id)

    async def _tell(self, view: View, answers: list[Answer]) -> None:
        self.memory.keep(view.tails)
        if view.changes:
            self._push(view.changes)
        if view.documents:
            await self._index(view.documents)
        for answer in answers:
            if not isinstance(answer, Exception) and answer:
                self._announce(answer)


def _pass_on(done: "asyncio.Future[Sequence[Sealed]]", future: "asyncio.Future[Sequence[Sealed]]") -> None:
    error = done.exception()
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(done.result())
