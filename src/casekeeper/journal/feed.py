"""Following a record live. A notification only means "read again": facts are read from the store, so none is
lost or doubled whatever happens to notifications. Deltas (progress, pieces of an answer) are passed on, never kept.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from casekeeper.journal.events import Sealed
from casekeeper.values import value

DELTAS_KEPT = 1_000
"""A reader this far behind loses the oldest deltas (never facts): progress is worth nothing late."""


@value
class Delta:
    """A piece of a running operation's progress."""

    event_id: str
    data: Any


class Watch:
    """One follower of one session.

    Attributes:
        has_news: Facts were written, or may have been, that the follower has not read. It clears this before it reads.
        seen: The seq up to which the follower has read.
    """

    def __init__(self) -> None:
        self.has_news = False
        self.seen = 0
        self._woken = asyncio.Event()
        self._deltas: deque[Delta] = deque(maxlen=DELTAS_KEPT)

    def wake(self) -> None:
        """Make the follower check whether it may still read, and whether it should go on."""
        self._woken.set()

    def notify(self) -> None:
        """Make the follower read facts."""
        self.has_news = True
        self._woken.set()

    def push(self, delta: Delta) -> None:
        """Hand the follower a piece of progress."""
        self._deltas.append(delta)
        self._woken.set()

    async def woken(self, timeout_s: float) -> bool:
        """True as soon as there are facts or deltas or a wake-up; False if none came in time."""
        if not self._woken.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._woken.wait()
            except TimeoutError:
                return False
        self._woken.clear()
        # A burst of commits becomes one read.
        await asyncio.sleep(0)
        return True

    async def wait(self, timeout_s: float) -> list[Delta] | None:
        """The deltas since the last call, as soon as there is any news; None if the time passed without."""
        return self.taken() if await self.woken(timeout_s) else None

    def taken(self) -> list[Delta]:
        """The deltas since the last call."""
        deltas = list(self._deltas)
        self._deltas.clear()
        return deltas


class LiveFeed:
    """Who follows which session, within this process. `is_followed` is set while anybody does."""

    def __init__(self) -> None:
        self.is_followed = asyncio.Event()
        self._watches: defaultdict[str, set[Watch]] = defaultdict(set)

    def announce(self, sealed: Sequence[Sealed]) -> None:
        """Wake the followers of the sessions in which these facts were written."""
        self.heard({s.fact.session_id for s in sealed})

    def heard(self, session_ids: Iterable[str]) -> None:
        """Wake the followers of these sessions: something was written there, in this process or another."""
        for session_id in self._watches.keys() & session_ids:
            for watch in self._watches[session_id]:
                watch.notify()

    def reached(self, heads: Mapping[str, int]) -> None:
        """Make those followers of these sessions read who have not read up to the given seq."""
        for session_id, seq in heads.items():
            for watch in self._watches.get(session_id, ()):
                if watch.seen < seq:
                    watch.notify()

    @property
    def session_ids(self) -> list[str]:
        """The sessions that somebody follows."""
        return list(self._watches)

    def wake(self) -> None:
        """Wake all followers: what they may read could have changed."""
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()

    def delta(self, session_id: str, delta: Delta) -> None:
        """Pass progress on to the followers of a session."""
        for watch in self._watches.get(session_id, ()):
            watch.push(delta)

    @contextmanager
    def watch(self, session_id: str) -> Generator[Watch]:
        """Follow a session from now on."""
        watch = Watch()
        self._watches[session_id].add(watch)
        self.is_followed.set()
        try:
            yield watch
        finally:
            self._watches[session_id].discard(watch)
            if not self._watches[session_id]:
                del self._watches[session_id]
            if not self._watches:
                self.is_followed.clear()
