"""The queue of commits on PostgreSQL.

Each shard has one transaction under way, and makes the next of whatever waits then. A transaction does not wait long for
locks: where somebody holds one, its commits go on by themselves, casefile by casefile, with all the patience that the
settings grant, and the shard goes on with those of other casefiles.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from casekeeper.journal.commits import About, Commit
from casekeeper.journal.events import Sealed
from casekeeper.values import value

_BATCH_MAX = 256


@value
class Waiting:
    """A commit that waits, what it is about, within which partition it keeps its order, and where its answer goes."""

    commit: Commit
    about: Sequence[About]
    partition: str
    future: "asyncio.Future[Sequence[Sealed]]"


def partition_of(about: Sequence[About]) -> str:
    """The casefile that a commit is about; without one, what it is about first. Commits of a partition keep their order."""
    if not about:
        return ""
    return next((one for one in about if one.kind == "casefile"), about[0]).id


class HeldUp(Exception):
    """Somebody holds a lock that a batch in a hurry wants; nothing of it was written."""


class Shard:
    """The commits of some casefiles, those of each in the order in which they came."""

    def __init__(self, write: Callable[[list[Waiting], bool], Awaitable[None]]) -> None:
        """`write` writes a batch and answers it; in a hurry (the flag) it may raise HeldUp instead."""
        self._write = write
        self._waiting: list[Waiting] = []
        # By casefile, what comes behind commits that wait for a lock.
        self._held: dict[str, list[Waiting]] = {}
        self._is_working = False
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting) + sum(len(some) for some in self._held.values())

    def add(self, one: Waiting) -> None:
        """Take in a commit; it is answered by its future."""
        self._held.get(one.partition, self._waiting).append(one)
        if self._waiting and not self._is_working:
            self._is_working = True
            self._begin(self._work())

    async def done(self) -> None:
        """Returns when nothing waits any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _work(self) -> None:
        # Whoever was woken by the last answers has a turn first, so that their next commits go along.
        await asyncio.sleep(0)
        try:
            while batch := self._waiting[:_BATCH_MAX]:
                del self._waiting[:_BATCH_MAX]
                try:
                    await self._write(batch, True)
                except HeldUp:
                    self._set_aside(batch)
                await asyncio.sleep(0)
        finally:
            self._is_working = False

    def _set_aside(self, batch: list[Waiting]) -> None:
        aside: dict[str, list[Waiting]] = {}
        for one in batch:
            aside.setdefault(one.partition, []).append(one)
        behind, self._waiting = self._waiting, []
        for one in behind:
            aside.get(one.partition, self._waiting).append(one)
        self._held |= aside
        for partition in aside:
            self._begin(self._patiently(partition))

    async def _patiently(self, partition: str) -> None:
        try:
            while batch := self._held[partition][:_BATCH_MAX]:
                del self._held[partition][:_BATCH_MAX]
                await self._write(batch, False)
        finally:
            del self._held[partition]

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
