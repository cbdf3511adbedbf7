"""The tail on Firestore: facts in the order of their commit times, found by their stamps (`timestamps`)."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from heapq import heappop, heappush
from time import monotonic
from typing import Any

from casekeeper.clock import to_us
from casekeeper.errors import PositionInvalid, PositionOfAnotherEpoch, StoreUnavailable
from casekeeper.journal.events import Kind
from casekeeper.journal.tail import CasefilesWithNews, Position, TailFact
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.events import FirestoreEvents
from casekeeper.storage.firestore.messages import Instant, Query, StoredDocument
from casekeeper.storage.firestore.scans import all_of
from casekeeper.storage.firestore.timestamps import (
    AHEAD_US,
    BEHIND_US,
    SETTLED_US,
    STAMPED,
    is_late,
    place_us,
    put_right,
    stamp_us,
)
from casekeeper.values import value

_HEADER = ("session_id", "seq", "at_us", "header", "hash", "actor", "event_id", "kind")
_ORDER = (("committed_at", "asc"), ("session_id", "asc"), ("seq", "asc"))
# 200 facts of 256 KiB fit into one answer.
_PAGE_MAX = 200
# Consumers poll, and each poll would pay for one more document. No process lives through a restore (docs/backup.md).
_EPOCH_S = 10.0
# A writer gives up long before.
_LEFT_US = 30_000_000


@value
class _Place:
    """Right behind a fact. Facts of layout 1 come first, session by session; their places have no `us`."""

    us: int | None
    session_id: str = ""
    seq: int = 0

    @property
    def text(self) -> str:
        return f"{'' if self.us is None else self.us}~{self.session_id}~{self.seq}"

    @staticmethod
    def of(text: str) -> "_Place":
        try:
            us, session_id, seq = text.split("~")
            return _Place(int(us) if us else None, session_id, int(seq))
        except ValueError as error:
            raise PositionInvalid from error


class FirestoreTail:
    """Implements `Tail`."""

    def __init__(
        self, store: Firestore, events: FirestoreEvents, *, has_unstamped: bool, left_us: int = _LEFT_US
    ) -> None:
        """`has_unstamped`: the store may have facts of layout 1.

        `left_us`: a late fact that is older than this many microseconds was abandoned by its writer.
        """
        self._store = store
        self._events = events
        self._left_us = left_us
        self._first = _Place(None if has_unstamped else 0)
        self._known_epoch = ("", float("-inf"))

    async def read(
        self, casefile_id: str, after: Position | None, limit: int, *, payloads: bool = False
    ) -> tuple[Sequence[TailFact], Position]:
        epoch = await self._epoch(after)
        place = _Place.of(after.place) if after else self._first
        only = None if payloads else (*_HEADER, *STAMPED)
        found: list[tuple[_Place, StoredDocument]] = []
        if place.us is None:
            found = await self._unstamped(casefile_id, place, limit, only)
            place = found[-1][0] if len(found) == limit else _Place(0)
        if place.us is not None:
            more, place = await self._stamped(casefile_id, place.us, place, limit - len(found), only)
            found += more
        facts = await self._events.stored([one for _, one in found], payloads=payloads)
        named = ((Position(epoch, there.text), one.fields) for there, one in found)
        read = [
            TailFact(position, row["event_id"], Kind(row["kind"]), fact)
            for (position, row), fact in zip(named, facts, strict=True)
        ]
        return read, Position(epoch, place.text)

    async def end(self, casefile_id: str) -> Position:
        epoch, now = await asyncio.gather(self._epoch(None), self._store.now())
        return Position(epoch, _Place(to_us(now) - SETTLED_US).text)

    async def casefiles_with_news(self, after: Position, facts: int = 1_000) -> CasefilesWithNews:
        epoch = await self._epoch(after)
        since_us = _Place.of(after.place).us or 0
        # Two queries, because an index on the stamp alone would limit the store to 500 facts a second.
        looks = [self._looked_at(since_us, facts, is_terminal=one) for one in (False, True)]
        looked = await asyncio.gather(*looks)
        reached_us = max(since_us, min(reached for _, reached, _ in looked))
        named = {one for some, *_ in looked for one in some}
        is_all = all(one for *_, one in looked)
        return CasefilesWithNews(named, Position(epoch, _Place(reached_us).text), is_all)

    async def _epoch(self, after: Position | None) -> str:
        epoch, until = self._known_epoch
        if monotonic() > until:
            head = await self._store.one(at.FEED_HEAD)
            assert head is not None, "an open store has a feed"
            epoch = head.fields["epoch"]
            self._known_epoch = (epoch, monotonic() + _EPOCH_S)
        if after is not None and after.epoch != epoch:
            raise PositionOfAnotherEpoch
        return epoch

    async def _stamped(
        self, casefile_id: str, since_us: int, behind: _Place, limit: int, only: tuple[str, ...] | None
    ) -> tuple[list[tuple[_Place, StoredDocument]], _Place]:
        """Facts in the order of commit times, up to the time of which the first page was complete.

        Later pages may show later commits, but then there may be others that earlier pages would have shown by now.
        """
        here = ("casefile_id", "==", casefile_id)
        walk = self._by_stamp(here, since_us, min(limit + 10, _PAGE_MAX), only)
        waiting: list[tuple[int, str, int, StoredDocument]] = []
        found: list[tuple[_Place, StoredDocument]] = []
        until_us, is_all = 0, False
        async with aclosing(walk):
            async for page, read_us, is_all in walk:
                until_us = until_us or read_us - SETTLED_US
                for one in _timely(page):
                    if one[:3] > (since_us, behind.session_id, behind.seq):
                        heappush(waiting, one)
                # Facts on pages to come have later stamps, and so no earlier commit times.
                reached_us = until_us if is_all else min(until_us, (stamp_us(page[-1]) or 0) - BEHIND_US)
                while waiting and waiting[0][0] < reached_us and len(found) < limit:
                    us, session_id, seq, fact = heappop(waiting)
                    found.append((_Place(us, session_id, seq), fact))
                await self._put_right(page, until_us)
                if len(found) == limit:
                    return found, found[-1][0]
        return found, max(_Place(until_us), behind, key=lambda place: place.us or 0)

    async def _looked_at(self, since_us: int, facts: int, *, is_terminal: bool) -> tuple[set[str], int, bool]:
        """The casefiles of facts committed since then, up to when they are complete, and whether these are all."""
        wanted, named, count, until_us = ("is_terminal", "==", is_terminal), set[str](), 0, 0
        only = ("casefile_id", "session_id", "seq", *STAMPED)
        walk = self._by_stamp(wanted, since_us, min(facts, _PAGE_MAX), only)
        async with aclosing(walk):
            async for page, read_us, is_all in walk:
                until_us = until_us or read_us - SETTLED_US
                # Late facts become readable soon.
                news = (one for one in page if (place_us(one) or since_us) >= since_us)
                named.update(one.fields["casefile_id"] for one in news)
                count += len(page)
                if is_all:
                    break
                reached_us = (stamp_us(page[-1]) or 0) - BEHIND_US
                if count >= facts and reached_us > since_us:
                    return named, min(reached_us, until_us), False
        return named, until_us, True

    async def _by_stamp(
        self, which: tuple[str, str, Any], since_us: int, size: int, only: tuple[str, ...] | None
    ) -> AsyncGenerator[tuple[list[StoredDocument], int, bool]]:
        """Facts that may have been committed since then, in pages, each with its `read_time` and whether it is the last."""
        start = ("committed_at", ">=", Instant(max(0, since_us - AHEAD_US)))
        wanted = Query("events", everywhere=True, where=(which, start), order=_ORDER, limit=size, only=only)
        while True:
            page, read_us = await self._store.query_at(wanted)
            is_last = len(page) < size
            yield page, read_us, is_last
            if is_last:
                return
            last = page[-1].fields
            # The first pages may hold nothing but the margin, however busy the casefile is.
            size = min(2 * size, _PAGE_MAX)
            wanted = replace(wanted, after=tuple(last[name] for name, _ in _ORDER), limit=size)

    async def _put_right(self, page: Sequence[StoredDocument], now_us: int) -> None:
        """Stamp late facts again whose writer has not: its process ended at that moment."""
        left = [one for one in page if is_late(one) and now_us - one.made_us > self._left_us]
        if left:
            with suppress(StoreUnavailable):
                await put_right(self._store, left)

    async def _unstamped(
        self, casefile_id: str, behind: _Place, limit: int, only: tuple[str, ...] | None
    ) -> list[tuple[_Place, StoredDocument]]:
        """Facts of layout 1, session by session."""
        found: list[tuple[_Place, StoredDocument]] = []
        inside, order = at.casefile(casefile_id), (("session_id", "asc"),)
        where = (("session_id", ">=", behind.session_id),)
        sessions = Query("sessions", inside, where=where, order=order, only=("session_id",))
        async with aclosing(all_of(self._store, sessions, _PAGE_MAX)) as walk:
            async for session in walk:
                session_id = session.fields["session_id"]
                after = behind.seq if session_id == behind.session_id else 0
                async for fact in self._unstamped_of(
                    casefile_id, session_id, after, limit - len(found), only
                ):
                    found.append((_Place(None, session_id, fact.fields["seq"]), fact))
                if len(found) == limit:
                    break
        return found

    async def _unstamped_of(
        self, casefile_id: str, session_id: str, after: int, limit: int, only: tuple[str, ...] | None
    ) -> AsyncGenerator[StoredDocument]:
        parent, order = at.session(casefile_id, session_id), (("seq", "asc"),)
        facts = Query("events", parent, order=order, after=(after,), only=only)
        async with aclosing(all_of(self._store, facts, min(limit, _PAGE_MAX))) as walk:
            async for fact in walk:
                # From the first fact of layout 2 on, all have stamps.
                if stamp_us(fact) is not None or limit == 0:
                    return
                yield fact
                limit -= 1


def _timely(page: Sequence[StoredDocument]) -> Iterator[tuple[int, str, int, StoredDocument]]:
    for one in page:
        if (us := place_us(one)) is not None:
            yield us, one.fields["session_id"], one.fields["seq"], one
