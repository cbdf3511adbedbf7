"""Following a session live: first the facts that are on the record, then new ones as they come.

A follower reads the store when facts were written, not for progress; the reader's permission is checked before anything
is sent. It learns of facts from the commit that wrote them, from other processes through Redis where there is one, and
otherwise from one poll for all followers of the process (`Polling`).
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import Protocol

from casekeeper.background import Every
from casekeeper.errors import Refused
from casekeeper.journal.events import StoredFact
from casekeeper.journal.feed import LiveFeed, Watch
from casekeeper.sessions.manager import CasefileSessionManager, SessionContext
from casekeeper.sessions.streamed import (
    DeltaMerge,
    StreamedBreak,
    StreamedDelta,
    StreamedFact,
    StreamedRefusal,
)

HEARTBEAT = timedelta(seconds=15)
POLL = timedelta(milliseconds=500)
"""How late a follower gets what another process wrote, at most, as long as the store answers at once."""
PAGE = 200
"""How many facts are read at a time."""

Streamed = StreamedFact | StreamedDelta | StreamedBreak | StreamedRefusal | None


class Following:
    """Follows sessions for those who may read them."""

    def __init__(
        self,
        read: Callable[[str, int], Awaitable[Sequence[StoredFact]]],
        manager: CasefileSessionManager,
        live: LiveFeed,
    ) -> None:
        """`read` gives the next facts of a session behind a seq, `PAGE` of them at most."""
        self._read = read
        self._manager = manager
        self._live = live
        self.is_ended = False

    def end(self) -> None:
        """End all streams that follow a session."""
        self.is_ended = True
        self._live.wake()

    async def follow(
        self,
        context: SessionContext,
        after: int,
        heartbeat: timedelta,
        watched: Watch | None,
        until: Callable[[], bool] | None,
    ) -> AsyncGenerator[Streamed]:
        """See `Reading.follow`."""
        order, is_over, clock = DeltaMerge(), False, asyncio.get_running_loop().time
        session_id, every_s = context.session.session_id, heartbeat.total_seconds()
        with nullcontext(watched) if watched else self._live.watch(session_id) as watch:
            watch.has_news, watch.seen, due_s = True, after, clock() + every_s
            while True:
                # Cleared before the read, so that facts announced meanwhile are read next. The start of an operation is
                # announced before its first delta, so it is among what is read now or was read before.
                looks, watch.has_news = watch.has_news, False
                begun = watch.taken()
                rows = await self._read(session_id, after) if looks else ()
                # The same is true of deltas that came meanwhile, unless facts were announced meanwhile.
                begun, perhaps = (begun, watch.taken()) if watch.has_news else (begun + watch.taken(), [])
                is_all = len(rows) < PAGE
                # Each item is checked: a slow client gets the last of a page long after the first.
                for item in order.items(rows, begun, perhaps, is_all=is_all) or (None,):
                    if refusal := await self._refusal(context):
                        yield StreamedRefusal(refusal)
                        return
                    if item is not None:
                        yield item
                        due_s = clock() + every_s
                watch.seen = after = rows[-1].seq if rows else after
                if self.is_ended and not watched:
                    yield StreamedBreak(after)
                    return
                if is_all and is_over:
                    return
                # What was committed before has to be sent: one more read.
                is_over = is_all and until is not None and until()
                watch.has_news = watch.has_news or is_over or not is_all
                if not watch.has_news and not await watch.woken(due_s - clock()):
                    # A read at each heartbeat, in case that news was lost.
                    watch.has_news, due_s = True, clock() + every_s
                    yield None

    async def _refusal(self, context: SessionContext) -> Refused | None:
        try:
            await self._manager.still(context)
        except Refused as refusal:
            return refusal
        return None


class Heads(Protocol):
    """The newest facts of sessions."""

    async def heads(self, session_ids: Collection[str]) -> Mapping[str, int]:
        """The seq of the newest fact of each of these sessions; sessions without news since the last call may be missing.

        Meant to be called for all followed sessions at once, which costs one statement or a few queries.

        Raises:
            StoreUnavailable: It does not answer.
        """
        ...


class Polling:
    """Looks for facts that other processes wrote to the sessions followed in this one, once for all followers.

    Every follower then also checks its reader's permission, because other processes may have changed it and grants may have
    ended; this reads nothing from the store while cached permissions are provably current.
    """

    def __init__(self, store: Heads, live: LiveFeed, every: timedelta = POLL) -> None:
        self._store = store
        self._live = live
        self.looking = Every(every, self._look, name="reading facts of other processes", at_once=False)

    async def _look(self) -> None:
        if not self._live.is_followed.is_set():
            return
        try:
            self._live.reached(await self._store.heads(self._live.session_ids))
        finally:
            self._live.wake()
