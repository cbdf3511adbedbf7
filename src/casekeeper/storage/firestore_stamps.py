"""When facts were committed, by Firestore's own clock, and how they are found by it.

Firestore orders commits: each document carries the instant of the commit that made it, no commit becomes visible for a
read of a later instant any more, and one that begins after another was answered gets a later instant. But it is not
asked by that instant. It is asked by a stamp, which the server takes when it begins with a commit. A fact is *timely* if
stamp and commit are so close that whoever looks by stamps, with this much to spare, has it. One that is not gets a new
stamp before its commit is answered, and stands where that was committed: nobody reads it at its old place, whether he
could see it there or not.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from casekeeper.errors import StoreUnavailable
from casekeeper.storage import firestore_places as at
from casekeeper.storage.firestore_channels import Conflict, Firestore
from casekeeper.storage.firestore_values import SERVER_TIME, Document, Made, Query, Write
from casekeeper.storage.firestore_walks import all_of

AHEAD_US = 2_000_000
"""So long before its commit a stamp may have been taken. Each reader of the newest looks so far back each time."""
BEHIND_US = 100_000
"""So much later than the commit a stamp may be, for the servers have clocks of their own."""

_IMPORTED_US = 300_000_000
"""No commit takes so long: the document was made anew by the import of a backup, and its stamp says when it was written."""

STAMPED = ("committed_at", "is_restamped", "place_us")
"""What of a fact says where it stands."""
# One that was late has the others of its batch beside it.
_LOOKED_AT = 100
_TRIES = 5


def stamp_us(document: Document) -> int | None:
    """The stamp of a fact; None for those of an older layout, which have none."""
    stamp = document.fields.get("committed_at")
    return None if stamp is None else stamp.us


def place_us(document: Document) -> int | None:
    """The instant by which a fact is ordered, the same for every reader; None: it is not timely, and must be stamped anew."""
    if (kept := document.fields.get("place_us")) is not None:
        return kept
    made_us, stamped_us = document.made_us, stamp_us(document) or 0
    if document.fields.get("is_restamped"):
        made_us = document.version.ToMicroseconds()
    if made_us - stamped_us > _IMPORTED_US:
        return stamped_us
    return made_us if _is_timely(made_us - stamped_us) else None


async def stamp_again(store: Firestore, made: Made, writes: Iterable[Write]) -> None:
    """Put facts right that were just written, if their commit was not timely.

    Raises:
        StoreUnavailable: It cannot be done now. Who writes to the session next does it.
    """
    if not _is_timely(made.late_us):
        await _restamp(
            store, [(w.path, made.version) for w in writes if w.fields and "committed_at" in w.fields]
        )


async def put_right(store: Firestore, found: Iterable[Document]) -> None:
    """Stamp those of these facts anew that are not timely; somebody else may be quicker.

    Raises:
        StoreUnavailable: It cannot be done now.
    """
    if late := [(one.path, one.version) for one in found if is_late(one)]:
        await _restamp(store, late)


async def put_end_right(store: Firestore, casefile_id: str, session_id: str) -> None:
    """Stamp the newest facts of a session anew, so far as they are not timely, before something comes behind them.

    Raises:
        StoreUnavailable: It cannot be done now.
    """
    parent, order = at.session(casefile_id, session_id), (("seq", "desc"),)
    newest = Query("events", parent, order=order, only=("seq", *STAMPED))
    late: list[Document] = []
    async for fact in all_of(store, newest, _LOOKED_AT):
        if not is_late(fact):
            break
        late.append(fact)
    await put_right(store, late)


async def _restamp(store: Firestore, facts: Sequence[tuple[str, Any]]) -> None:
    fields = {"is_restamped": True, "committed_at": SERVER_TIME}
    for _ in range(_TRIES):
        try:
            made = await store.commit(
                [Write(path, version, fields, is_partial=True) for path, version in facts]
            )
        except Conflict:
            # Another is at it as well, for some of them perhaps.
            found = await store.get(path for path, _ in facts)
            facts = [(one.path, one.version) for one in found.values() if is_late(one)]
        else:
            facts = [] if _is_timely(made.late_us) else [(path, made.version) for path, _ in facts]
        if not facts:
            return
    raise StoreUnavailable("Firestore takes too long; whether this was written is not known.")


def is_late(fact: Document) -> bool:
    """Whether a fact must be stamped anew."""
    return stamp_us(fact) is not None and place_us(fact) is None


def _is_timely(late_us: int) -> bool:
    return -BEHIND_US <= late_us <= AHEAD_US
