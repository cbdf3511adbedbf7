"""Deletions too large for one write to Firestore: the contents of deleted casefiles, and what has expired.

Every part can be repeated, so a sweep that breaks off is ended by the next one.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from casekeeper.casefiles.casefile import EraseContents
from casekeeper.clock import to_us
from casekeeper.journal.commits import ForgetExpired
from casekeeper.journal.things import Topic
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import CommitConflict, Firestore
from casekeeper.storage.firestore.messages import SERVER_TIME, Fields, Query, StoredDocument, Write
from casekeeper.storage.firestore.search import FirestoreSearch
from casekeeper.storage.firestore.timestamps import STAMPED, place_us

_PAGE = 300
_EMPTY = {"salt": None, "body": None, "chunks": 0, "blob": None, "size": 0}


class FirestoreUpkeep:
    """Erases and forgets."""

    def __init__(self, store: Firestore, index: FirestoreSearch) -> None:
        self._store = store
        self._index = index

    async def __call__(self, record: EraseContents | ForgetExpired) -> None:
        if isinstance(record, EraseContents):
            await self._erase(record.casefile_id)
        else:
            await self._forget(to_us(record.now))

    async def _erase(self, casefile_id: str) -> None:
        place = at.casefile(casefile_id)
        for session in await self._store.query(Query("sessions", place, only=("session_id",))):
            await self._erase_payloads(session.path)
        mine = (("casefile_id", "==", casefile_id),)
        await self._delete(Query("conversations", where=mine))
        await self._delete(Query("uploads", where=mine))
        # Whatever their next version would have been: who is about to write it finds them gone.
        things = Query("things", where=(("about", "==", Topic("casefile", casefile_id).key),), only=())
        await self._delete(things, is_blind=True)
        # Without grants it is in nobody's list any more, not even to be passed over.
        for collection in ("documents", "digests", "chunks", "grants"):
            await self._delete(Query(collection, place, only=()))
        await self._index.erase(casefile_id)
        gone: dict[str, Any] = {
            "title": "",
            "description": "",
            "tags": [],
            "is_to_erase": False,
            "erased_at": SERVER_TIME,
        }
        await self._store.commit([Write(place, None, gone, is_blind=True, is_partial=True)])

    async def _erase_payloads(self, session: str) -> None:
        after: tuple[int, ...] | None = None
        while True:
            only = ("seq", *STAMPED)
            page = Query("events", session, order=(("seq", "asc"),), after=after, limit=_PAGE, only=only)
            found = await self._store.query(page)
            if found:
                await self._store.commit(
                    [Write(one.path, None, _emptied(one), is_blind=True, is_partial=True) for one in found]
                )
            if len(found) < _PAGE:
                return
            after = (found[-1].fields["seq"],)

    async def _forget(self, now_us: int) -> None:
        for collection in ("requests", "refresh_tokens"):
            with suppress(CommitConflict):  # claimed anew: it has not expired
                await self._delete(Query(collection, where=(("expires_us", "<", now_us),)))

    async def _delete(self, wanted: Query, *, is_blind: bool = False) -> None:
        while found := await self._page(wanted):
            await self._store.commit([Write(one.path, one.version, is_blind=is_blind) for one in found])

    async def _page(self, wanted: Query) -> Sequence[StoredDocument]:
        return await self._store.query(
            Query(wanted.collection, wanted.parent, where=wanted.where, limit=_PAGE, only=wanted.only)
        )


def _emptied(fact: StoredDocument) -> Fields:
    # Its place among the facts of the casefile is the time of its last change, which must not become this one.
    return {**_EMPTY, "place_us": place_us(fact)} if fact.fields.get("is_restamped") else _EMPTY
