"""Which processes are alive, and which operations belong to one that is not.

A process says every few seconds that it lives. An operation whose process has not done so for long enough is an orphan;
so is one whose start this process sent and got no answer to.
"""

import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import partial

from casekeeper.background import Every
from casekeeper.clock import to_us
from casekeeper.errors import StoreUnavailable
from casekeeper.journal.operations import OpenedOperation
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import CommitConflict, Firestore
from casekeeper.storage.firestore.messages import SERVER_TIME, Fields, Instant, Query, Write
from casekeeper.storage.rows import OPENED, opened_of, picked
from casekeeper.storage.unconfirmed import Unconfirmed

_BEAT = timedelta(seconds=3)
# Five beats missed.
_GONE_US = 15_000_000


class Workers:
    """The processes that share a store; this one among them once it has begun."""

    def __init__(self, store: Firestore, unconfirmed: Unconfirmed) -> None:
        self._store = store
        self._unconfirmed = unconfirmed
        self._owner: str | None = None
        self._work = AsyncExitStack()

    async def begin(self, owner: str) -> None:
        """From now on this process lives, under this name."""
        if self._owner is None:
            beat = partial(self._beat, owner)
            await beat()
            self._owner = owner
            # While the store is unavailable nobody else can judge us either.
            beating = Every(_BEAT, beat, name="saying that this process lives", at_once=False)
            await self._work.enter_async_context(beating.running())

    async def orphans(self, owner: str, limit: int) -> Sequence[OpenedOperation]:
        """Running operations without a process, children before their parents. `owner` is this process."""
        await self.begin(owner)
        asked = self._unconfirmed.event_ids
        found = await self._store.query(Query("open_operations", where=(("state", "==", "running"),)))
        rows = [one.fields for one in found]
        lost_here = {row["event_id"] for row in rows if self._is_lost(row)}
        self._unconfirmed.looked(asked, lost_here)
        living = await self._living({row["owner"] for row in rows})
        lost = [row for row in rows if row["owner"] not in living or row["event_id"] in lost_here]
        # The deepest first: an operation never ends before those inside it.
        lost.sort(key=lambda row: (row["started_us"], row["started_seq"]), reverse=True)
        return [opened_of(picked(OPENED, row)) for row in lost[:limit]]

    async def sweeps(self) -> bool:
        """Whether this process sweeps: it is the one that did, or has just taken the place of one that is gone."""
        found = await self._store.one(at.SWEEPER)
        holder = found.fields["owner"] if found else None
        if holder == self._owner or holder in await self._living({holder} if holder else set()):
            return holder == self._owner
        try:
            taken = Write(at.SWEEPER, found.version if found else None, {"owner": self._owner})
            await self._store.commit([taken])
        except CommitConflict:
            # Another was quicker.
            return False
        return True

    async def close(self) -> None:
        """This process ends."""
        await self._work.aclose()
        if self._owner is None:
            return
        with suppress(StoreUnavailable):
            await self._store.commit([Write(at.worker(self._owner), None, is_blind=True)])

    def _is_lost(self, row: Fields) -> bool:
        return self._unconfirmed.is_lost(row["event_id"], row["owner"], row.get("attempt", 1))

    async def _living(self, owners: set[str]) -> set[str]:
        found = await self._store.get([at.worker(owner) for owner in owners])
        now = await self._store.now()
        return {w.fields["owner"] for w in found.values() if _lives(w.fields, to_us(now))}

    async def _beat(self, owner: str) -> None:
        fields = {
            "owner": owner,
            "host": socket.gethostname(),
            "process": os.getpid(),
            # Firestore's clock, not ours: those of machines differ.
            "seen": SERVER_TIME,
        }
        await self._store.commit([Write(at.worker(owner), None, fields, is_blind=True)])


def _lives(worker: Fields, now_us: int) -> bool:
    # One of an older version stamps it otherwise, and will be gone soon.
    seen = worker.get("seen", Instant(worker.get("seen_us", 0)))
    if seen.us < now_us - _GONE_US:
        return False
    return worker["host"] != socket.gethostname() or _runs(worker["process"])


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
