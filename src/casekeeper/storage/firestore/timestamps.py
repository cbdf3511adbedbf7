"""The times of commits on Firestore, and how facts are found by them.

The order of facts is that of their documents' commit times, which Firestore guarantees: a read sees every commit up to
its own `read_time`, and a commit that begins after another was acknowledged has a later time. Queries cannot ask for
commit times, though. They ask for a *stamp*, a field that the server fills in when it begins with a commit. A fact is
*timely* if its stamp and its commit time are so close that readers, who look by stamps with that much margin, cannot miss
it. A fact that is not timely is stamped again before its commit is acknowledged, and its place is the time of that second
commit. Readers ignore it at its first place even if they see it there, so that all of them read it at the same place.
"""

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import Any

from casekeeper.errors import StoreUnavailable
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import CommitConflict, Firestore
from casekeeper.storage.firestore.messages import SERVER_TIME, Made, Query, StoredDocument, Write
from casekeeper.storage.firestore.scans import all_of

AHEAD_US = 2_000_000
"""How long before its commit time the stamp of a timely fact may have been taken; readers look back that far."""
BEHIND_US = 100_000
"""How much later than its commit time the stamp of a timely fact may be: servers have clocks of their own."""
SETTLED_US = 250_000
"""How long before their `read_time` readers stop: in the emulator, commits become visible up to some 20 ms late."""
STAMPED = ("committed_at", "is_restamped", "place_us")
"""The fields that decide about a fact's place."""

# No commit takes that long: the document was made anew by the import of a backup, and its stamp is older.
_IMPORTED_US = 300_000_000
_LOOKED_AT = 100
_TRIES = 5


def stamp_us(fact: StoredDocument) -> int | None:
    """The stamp of a fact; None for those of layout 1, which have none."""
    stamp = fact.fields.get("committed_at")
    return None if stamp is None else stamp.us


def place_us(fact: StoredDocument) -> int | None:
    """The time by which a fact is ordered, the same for every reader; None: it is not timely, and not readable yet."""
    if (kept := fact.fields.get("place_us")) is not None:
        return kept
    made_us, stamped_us = fact.made_us, stamp_us(fact) or 0
    if fact.fields.get("is_restamped"):
        made_us = fact.version.ToMicroseconds()
    if made_us - stamped_us > _IMPORTED_US:
        return stamped_us
    return made_us if _is_timely(made_us - stamped_us) else None


def is_late(fact: StoredDocument) -> bool:
    """Whether a fact has to be stamped again."""
    return stamp_us(fact) is not None and place_us(fact) is None


async def stamp_again(store: Firestore, made: Made, writes: Iterable[Write]) -> None:
    """Stamp the facts among the writes of a commit again if it was not timely; call it before acknowledging the commit.

    Raises:
        StoreUnavailable: They could not be stamped. The next commit to their session does it.
    """
    if not _is_timely(made.late_us):
        facts = (write.path for write in writes if write.fields and "committed_at" in write.fields)
        await _restamp(store, [(path, made.version) for path in facts])


async def put_right(store: Firestore, facts: Iterable[StoredDocument]) -> None:
    """Stamp those of these facts again that are late; safe to call from several processes.

    Raises:
        StoreUnavailable: They could not be stamped.
    """
    await _restamp(store, [(one.path, one.version) for one in facts if is_late(one)])


async def put_end_right(store: Firestore, casefile_id: str, session_id: str) -> None:
    """Stamp the newest facts of a session again so far as they are late; call it before adding a fact to it.

    Raises:
        StoreUnavailable: They could not be stamped.
    """
    parent, order = at.session(casefile_id, session_id), (("seq", "desc"),)
    newest = Query("events", parent, order=order, only=("seq", *STAMPED))
    late: list[StoredDocument] = []
    async with aclosing(all_of(store, newest, _LOOKED_AT)) as walk:
        async for fact in walk:
            if not is_late(fact):
                break
            late.append(fact)
    await put_right(store, late)


async def _restamp(store: Firestore, facts: Sequence[tuple[str, Any]]) -> None:
    fields = {"is_restamped": True, "committed_at": SERVER_TIME}
    for _ in range(_TRIES):
        if not facts:
            return
        try:
            made = await store.commit(
                [Write(path, version, fields, is_partial=True) for path, version in facts]
            )
        except CommitConflict:
            # Another process stamps some of them as well.
            found = await store.get(path for path, _ in facts)
            facts = [(one.path, one.version) for one in found.values() if is_late(one)]
        else:
            facts = [] if _is_timely(made.late_us) else [(path, made.version) for path, _ in facts]
    if facts:
        raise StoreUnavailable("Firestore takes too long; whether this was written is not known.")


def _is_timely(late_us: int) -> bool:
    return -BEHIND_US <= late_us <= AHEAD_US
