"""Documents and uploads in Firestore; their figures come from the search index, which has them in columns.

A document's text and bytes are in chunks, which are written before the commit that names them.
"""

from collections.abc import Sequence
from datetime import datetime

from casekeeper.clock import to_us
from casekeeper.documents import document as doc
from casekeeper.documents.document import CasefileCounts, Document, DocumentSummary, Upload
from casekeeper.journal.commits import Commit
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.chunks import chunked, chunks_of, put_chunks, whole
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import SERVER_TIME, Fields, Query
from casekeeper.storage.firestore.parts import Ahead, Writes
from casekeeper.storage.firestore.scans import chunks
from casekeeper.storage.firestore.search import FirestoreSearch
from casekeeper.storage.firestore.view import View
from casekeeper.storage.rows import UPLOAD, picked, upload_of, upload_row


def _new_row(d: Document, raw: bytes | None) -> Fields:
    """A document's fields; its text and its bytes are in chunks."""
    summary = d.model_dump_json(exclude={"text"}).encode()
    return {
        "document_id": d.document_id,
        "casefile_id": d.casefile_id,
        "parent_id": d.parent_id,
        "kind": d.kind,
        "created_us": to_us(d.created_at),
        "deleted_us": None,
        "summary": summary,
        "text_chunks": chunks_of(_text(d)),
        "raw_chunks": None if raw is None else chunks_of(raw),
        # By which the search index of another process catches up.
        "filed_at": SERVER_TIME,
    }


def _tombstone(row: Fields, deleted_at: datetime) -> Fields:
    """What stays of a document: that it was here. Without `created_us` no list has it."""
    kept = {"document_id", "casefile_id", "kind", "size", "sha256", "created_at", "created_by", "event_id"}
    return {
        "document_id": row["document_id"],
        "casefile_id": row["casefile_id"],
        "deleted_us": to_us(deleted_at),
        "summary": _summary(row).model_dump_json(include=kept).encode(),
        "filed_at": SERVER_TIME,
    }


def _summary(row: Fields) -> DocumentSummary:
    """The document's summary in its fields."""
    return DocumentSummary.model_validate_json(row["summary"])


def _text(document: Document) -> bytes:
    return document.text.encode("utf-8", "surrogatepass")


async def put_contents(store: Firestore, commit: Commit) -> None:
    """Write the texts and bytes of the documents that a commit adds."""
    digests = {
        at.digest(r.document.casefile_id, r.document.sha256): r
        for r in commit.records
        if isinstance(r, doc.AddDocument)
    }
    known = await store.get(digests) if digests else {}
    for path, r in digests.items():
        if path not in known:
            d = r.document
            await put_chunks(store, d.casefile_id, f"{d.document_id}-text", _text(d))
            if r.raw is not None:
                await put_chunks(store, d.casefile_id, f"{d.document_id}-raw", r.raw)


async def _add_document(view: View, r: doc.AddDocument) -> None:
    d = r.document
    path = at.digest(d.casefile_id, d.sha256)
    if await view.get(path) is not None:
        return
    await view.put(path, {"document_id": d.document_id})
    view.create(at.document(d.casefile_id, d.document_id), _new_row(d, r.raw))
    view.documents.append(r)


async def _delete_documents(view: View, r: doc.DeleteDocuments) -> None:
    for document_id in r.document_ids:
        path = at.document(r.casefile_id, document_id)
        row = await view.get(path)
        if row is None or row.get("deleted_us") is not None:
            continue
        for part, count in (("text", row["text_chunks"]), ("raw", row["raw_chunks"] or 0)):
            for number in range(count):
                await view.delete(at.chunk(r.casefile_id, f"{document_id}-{part}", number))
        # The same bytes may be brought in again.
        await view.delete(at.digest(r.casefile_id, _summary(row).sha256))
        await view.put(path, _tombstone(row, r.at))
    view.documents.append(r)


WRITES: Writes = {
    doc.AddDocument: _add_document,
    doc.DeleteDocuments: _delete_documents,
    doc.PutUpload: lambda view, r: view.put(at.upload(r.upload.upload_id), upload_row(r.upload)),
    doc.DropUpload: lambda view, r: view.delete(at.upload(r.upload_id)),
}
AHEAD: Ahead = {
    doc.AddDocument: lambda r, _: [at.digest(r.document.casefile_id, r.document.sha256)],
    doc.DeleteDocuments: lambda r, _: [at.document(r.casefile_id, one) for one in r.document_ids],
}


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
        return [_summary(one.fields) for one in found]

    async def known(self, casefile_id: str, digests: Sequence[str]) -> dict[str, str]:
        paths = {at.digest(casefile_id, sha256): sha256 for sha256 in digests}
        found = await self._store.get(paths)
        return {paths[path]: str(one.fields["document_id"]) for path, one in found.items()}

    async def attached(self, casefile_id: str, document_ids: Sequence[str]) -> Sequence[DocumentSummary]:
        place, found = at.casefile(casefile_id), list[DocumentSummary]()
        for some in chunks(document_ids):
            rows = await self._store.query(Query("documents", place, where=(("parent_id", "in", some),)))
            found += [_summary(one.fields) for one in rows]
        return found

    async def counts(self, casefile_id: str) -> CasefileCounts:
        return await self._index.counts(casefile_id)

    async def upload(self, upload_id: str) -> Upload | None:
        found = await self._store.one(at.upload(upload_id))
        return upload_of(picked(UPLOAD, found.fields)) if found else None

    async def old_uploads(self, before: datetime, limit: int) -> Sequence[Upload]:
        where = (("created_us", "<", to_us(before)),)
        found = await self._store.query(
            Query("uploads", where=where, order=(("created_us", "asc"),), limit=limit)
        )
        return [upload_of(picked(UPLOAD, one.fields)) for one in found]
