"""What a batch of commits sees and changes before any of it is written.

Everything read is remembered with its version, and the versions of all that a decision relied on are checked by the
very commit that writes: either nothing of it has changed, or nothing is written and all is decided anew.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from casekeeper.acl_feed import Change
from casekeeper.documents.document import AddDocument, DeleteDocuments
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Fields, Query, StoredDocument, Write
from casekeeper.storage.firestore.timestamps import STAMPED, is_late, put_end_right
from casekeeper.values import value

# Far more sessions than are at work at a time.
_KEPT = 20_000

Counted = tuple[int, int, int, int]
Totals = dict[tuple[str, str, str], Counted]


@value
class ChainEnd:
    """Where a session's chain stands; the totals are those of all operations that ended in it so far.

    `counted_seq` is the number of the fact that carries them, 0 if there is none. `is_late`: the newest fact
    has to be stamped again before another is added (`timestamps`).
    """

    seq: int
    hash: bytes
    last_us: int
    totals: Totals
    counted_seq: int
    is_late: bool = False


def totals_to_bytes(totals: Totals) -> bytes:
    """As a terminal fact carries them."""
    return json.dumps([[*names, *counted] for names, counted in totals.items()]).encode()


def totals_of(data: bytes) -> Totals:
    """What `totals_to_bytes` wrote."""
    return {(t, n, k): (c, ms, tokens, cost) for t, n, k, c, ms, tokens, cost in json.loads(data)}


async def read_tail(store: Firestore, casefile_id: str, session_id: str) -> ChainEnd | None:
    """The newest fact of a session."""
    parent = at.session(casefile_id, session_id)
    only = ("seq", "hash", "last_us", "totals", *STAMPED)
    found = await store.query(Query("events", parent, order=(("seq", "desc"),), limit=1, only=only))
    if not found:
        return None
    newest = found[0].fields
    # A fact that ends an operation carries the totals up to it; any other says which one does.
    carried: Any = newest["totals"]
    seq = newest["seq"]
    if isinstance(carried, int):
        seq = carried
        carrier = await store.one(at.event(casefile_id, session_id, seq)) if seq else None
        carried = carrier.fields["totals"] if carrier else b"[]"
    totals, late = totals_of(carried), is_late(found[0])
    return ChainEnd(newest["seq"], newest["hash"], newest["last_us"], totals, seq, late)


@dataclass(slots=True)
class KnownSessions:
    """What a process remembers of sessions. A wrong tail costs a try: the number it leads to is taken."""

    tails: dict[str, ChainEnd] = field(default_factory=dict[str, ChainEnd])
    casefiles: dict[str, str] = field(default_factory=dict[str, str])

    def keep(self, tails: dict[str, ChainEnd]) -> None:
        """Remember these tails; past some thousands, forget all others."""
        if len(self.tails) > _KEPT:
            self.tails.clear()
        self.tails.update(tails)

    def forget(self, session_ids: Iterable[str]) -> None:
        """Read these tails anew."""
        for session_id in session_ids:
            self.tails.pop(session_id, None)


class View:
    """One state of the store, with what is to be changed on top."""

    def __init__(self, store: Firestore, memory: KnownSessions) -> None:
        self.store = store
        self.memory = memory
        self.tails: dict[str, ChainEnd] = {}
        self.changes: list[Change] = []
        self.documents: list[AddDocument | DeleteDocuments] = []
        self._read: dict[str, StoredDocument | None] = {}
        self._new: dict[str, Fields | None] = {}
        self._relied: set[str] = set()

    def fork(self) -> "View":
        """The same, to be thrown away if the next commit is refused."""
        view = View(self.store, self.memory)
        view.tails, view.changes, view.documents = (
            self.tails.copy(),
            self.changes.copy(),
            self.documents.copy(),
        )
        view._read, view._new, view._relied = self._read, self._new.copy(), self._relied.copy()
        return view

    async def load(self, paths: Iterable[str]) -> None:
        """Read all of these at once; what is read one by one later costs a round trip each."""
        unknown = [path for path in paths if path not in self._read]
        if unknown:
            found = await self.store.get(unknown)
            self._read.update({path: found.get(path) for path in unknown})

    async def find(self, wanted: Query) -> list[str]:
        """The paths that a query finds; their documents count as read."""
        found = await self.store.query(wanted)
        for document in found:
            self._read.setdefault(document.path, document)
        return [document.path for document in found]

    async def get(self, path: str) -> Fields | None:
        """A document as it is within the batch. The batch stands only if it is still so when it is written."""
        self._relied.add(path)
        if path in self._new:
            return self._new[path]
        await self.load([path])
        found = self._read[path]
        return found.fields if found else None

    async def put(self, path: str, fields: Fields) -> None:
        """Make or replace a document."""
        await self.load([path])
        self._new[path] = fields

    def create(self, path: str, fields: Fields) -> None:
        """Make a document that nobody has read: if there is one, the batch is decided anew."""
        self._new[path] = fields
        self._read.setdefault(path, None)

    async def delete(self, path: str) -> None:
        """Take a document away, if there is one."""
        await self.load([path])
        self._new[path] = None

    def made(self, prefix: str) -> list[tuple[str, Fields]]:
        """What the batch makes or replaces below a path."""
        return [(path, fields) for path, fields in self._new.items() if fields and path.startswith(prefix)]

    async def casefile_of(self, session_id: str) -> str | None:
        """In which casefile a session is; None: there is no such session."""
        known = self.memory.casefiles.get(session_id)
        if known is None:
            place = await self.get(at.session_place(session_id))
            if place is None:
                return None
            known = place["casefile_id"]
            # What was only made in this batch may come to nothing.
            if at.session_place(session_id) not in self._new:
                self.memory.casefiles[session_id] = known
        return known

    async def session(self, session_id: str) -> Fields | None:
        """A session's document."""
        casefile_id = await self.casefile_of(session_id)
        return await self.get(at.session(casefile_id, session_id)) if casefile_id else None

    async def tail(self, casefile_id: str, session_id: str) -> ChainEnd:
        """Where a session's chain stands within the batch."""
        tail = self.tails.get(session_id) or self.memory.tails.get(session_id)
        if tail is None:
            tail = await read_tail(self.store, casefile_id, session_id) or ChainEnd(0, b"", 0, {}, 0)
            if tail.is_late:
                await put_end_right(self.store, casefile_id, session_id)
        # From here on the batch stands on this one: a fact that comes in between takes its next number.
        self.tails[session_id] = tail
        return tail

    def writes(self) -> Sequence[Write]:
        """What has to be written, and checked, for the batch to stand."""
        changes = {path: self._change(path, fields) for path, fields in self._new.items()}
        made = {path: change for path, change in changes.items() if change is not None}
        checks = [self._check(path) for path in self._relied - made.keys()]
        # Without a change there is nothing that has to go together with what was read.
        return [*made.values(), *checks] if made else []

    def _check(self, path: str) -> Write:
        before = self._read[path]
        # There is nothing to change of what is not there; to delete it is refused once it is.
        return Write(path, before.version, only_checks=True) if before else Write(path, None)

    def _change(self, path: str, fields: Fields | None) -> Write | None:
        before = self._read[path]
        if fields is None:
            return Write(path, before.version) if before else None
        if before is not None and before.fields == fields:
            return Write(path, before.version, only_checks=True)
        return Write(path, before.version if before else None, fields)
