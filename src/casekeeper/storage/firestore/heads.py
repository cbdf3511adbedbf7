"""The newest facts of followed sessions, read from their casefiles, thirty at a time, instead of session by session."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing

from casekeeper.clock import to_us
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Instant, Query, StoredDocument
from casekeeper.storage.firestore.scans import all_of, chunks
from casekeeper.storage.firestore.sessions import casefile_of
from casekeeper.storage.firestore.timestamps import AHEAD_US
from casekeeper.storage.firestore.view import KnownSessions

_ORDER = (("committed_at", "asc"), ("session_id", "asc"), ("seq", "asc"))
_PAGE = 300
# Followers read their session themselves when they begin, which is not longer ago than that.
_FIRST_US = 10_000_000


class NewestFacts:
    """Remembers up to when it has looked. A fact that is not timely is missed; followers read it at their next heartbeat."""

    def __init__(self, store: Firestore, memory: KnownSessions) -> None:
        self._store = store
        self._memory = memory
        self._known_until: dict[str, int] = {}

    async def heads(self, session_ids: Collection[str]) -> Mapping[str, int]:
        """See `Heads`."""
        now_us = to_us(await self._store.now())
        named = await asyncio.gather(*(casefile_of(self._store, self._memory, one) for one in session_ids))
        casefile_ids = sorted({one for one in named if one is not None})
        known, wanted, heads = self._known_until, set(session_ids), dict[str, int]()
        since = {one: known.get(one, now_us - _FIRST_US) for one in casefile_ids}
        for chunk in chunks(casefile_ids):
            async with aclosing(self._since(chunk, min(since[one] for one in chunk) - AHEAD_US)) as walk:
                async for fact in walk:
                    session_id, seq = fact.fields["session_id"], fact.fields["seq"]
                    if session_id in wanted:
                        heads[session_id] = max(seq, heads.get(session_id, 0))
        # Every commit up to then was seen.
        self._known_until = dict.fromkeys(casefile_ids, now_us)
        return heads

    def _since(self, casefile_ids: Sequence[str], since_us: int) -> AsyncGenerator[StoredDocument]:
        where = (("casefile_id", "in", casefile_ids), ("committed_at", ">=", Instant(since_us)))
        only = ("session_id", "seq", "committed_at")
        return all_of(
            self._store, Query("events", everywhere=True, where=where, order=_ORDER, only=only), _PAGE
        )
