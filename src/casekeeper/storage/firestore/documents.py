"""Documents, read from Firestore; their figures come from the search index, which has them in columns."""

from collections.abc import Sequence
from datetime import datetime

from casekeeper.clock import to_us
from casekeeper.documents.document import CasefileCounts, Document, DocumentSummary, Upload
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.chunks import chunked, whole
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Fields, Query
from casekeeper.storage.firestore.rows import summary_of, upload_of
from casekeeper.storage.firestore.search import FirestoreSearch

# So many values Firestore takes in one "in".
_IN_MAX = 30


class FirestoreDocuments:
    """Implements `DocumentStore`."""

    def __init__(self, store: Firestore, index: FirestoreSearch) -> None:
        self._store = store
        self._index = index

    async def document(self, casefile_id: str, document_id: str) -> Document | None:
        row = await self._row(casefile_id, document_id)
        try:
            return await whole(self._store, row) if row else None
        except KeyError:  # deleted while it was read
            return None

    async def raw(self, casefile_id: str, document_id: str) -> bytes | None:
        row = await self._row(casefile_id, document_id)
        if row is None or row["raw_chunks"] is None:
            return None
        try:
            return await chunked(self._store, casefile_id, f"{document_id}-raw", row["raw_chunks"])
        except KeyError:  # likewise
            return None

    async def _row(self, casefile_id: str, document_id: str) -> Fields | None:
        found = await self._store.one(at.document(casefile_id, document_id))
        return None if found is None or found.fields.get("deleted_us") is not None else found.fields

    async def documents(
        self, casefile_id: str, kind: str | None, before: tuple[int, str] | None, limit: int
    ) -> Sequence[DocumentSummary]:
        found = await self._store.query(
            Query(
                "documents",
                at.casefile(casefile_id),
                where=() if kind is None else (("kind", "==", kind),),
                order=(("created_us", "desc"), ("document_id", "desc")),
                after=before,
                limit=limit,
            )
        )
        return [summary_of(one.fields) for one in found]

    async def known(self, casefile_id: str, digests: Sequence[str]) -> dict[str, str]:
        paths = {at.digest(casefile_id, sha256): sha256 for sha256 in digests}
        found = await self._store.get(paths)
        return {paths[path]: str(one.fields["document_id"]) for path, one in found.items()}

    async def attached(self, casefile_id: str, document_ids: Sequence[str]) -> Sequence[DocumentSummary]:
        place, found = at.casefile(casefile_id), list[DocumentSummary]()
        for start in range(0, len(document_ids), _IN_MAX):
            some = list(document_ids[start : start + _IN_MAX])
            rows = await self._store.query(Query("documents", place, where=(("parent_id", "in", some),)))
            found += [summary_of(one.fields) for one in rows]
        return found

    async def counts(self, casefile_id: str) -> CasefileCounts:
        return await self._index.counts(casefile_id)

    async def upload(self, upload_id: str) -> Upload | None:
        found = await self._store.one(at.upload(upload_id))
        return upload_of(found.fields) if found else None

    async def old_uploads(self, before: datetime, limit: int) -> Sequence[Upload]:
        where = (("created_us", "<", to_us(before)),)
        found = await self._store.query(
            Query("uploads", where=where, order=(("created_us", "asc"),), limit=limit)
        )
        return [upload_of(one.fields) for one in found]
