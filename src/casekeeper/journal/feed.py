"""Following a record live. A wake-up only says "read again": what is read comes from the store, so nothing is
lost or doubled whatever happens to the wake-up. Deltas (progress, pieces of an answer) are passed on, never kept.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from casekeeper.journal.events import Sealed

# A reader this far behind loses the oldest deltas (never facts): progress is worth nothing late.
_DELTAS_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a running operation's progress."""

    event_id: str
    data: Any


class Watch:
    """One follower of one session."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._deltas: deque[Delta] = deque(maxlen=_DELTAS_KEPT)

    def wake(self) -> None:
        """Tell the follower that there is something to read."""
        self._woken.set()

    def push(self, delta: Delta) -> None:
        """Hand the follower a piece of progress."""
        self._deltas.append(delta)
        self._woken.set()

    async def wait(self, timeout_s: float) -> list[Delta] | None:
        """The deltas since the last call, as soon as there is any news; None if the time passed without."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        except TimeoutError:
            return None
        self._woken.clear()
        return self.taken()

    def taken(self) -> list[Delta]:
        """The deltas since the last call."""
        deltas = list(self._deltas)
        self._deltas.clear()
        return deltas


class LiveFeed:
    """Who follows which session, within this process."""

    def __init__(self) -> None:
        self._watches: defaultdict[str, set[Watch]] = defaultdict(set)

    def announce(self, sealed: Sequence[Sealed]) -> None:
        """Wake the followers of the sessions in which these facts were written."""
        self.heard({s.fact.session_id for s in sealed})

    def heard(self, session_ids: Iterable[str]) -> None:
        """Wake the followers of these sessions: something was written there, in this process or another."""
        for session_id in self._watches.keys() & session_ids:
            for watch in self._watches[session_id]:
                watch.wake()

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
        try:
            yield watch
        finally:
            self._watches[session_id].discard(watch)
            if not self._watches[session_id]:
                del self._watches[session_id]
