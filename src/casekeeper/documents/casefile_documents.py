"""The one handle through which operations reach the documents of their casefile."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, closing

from casekeeper.clock import Clock
from casekeeper.documents.blobs import BlobStore
from casekeeper.documents.document import (
    INLINE_BYTES,
    AddDocument,
    CasefileCounts,
    Document,
    DocumentStore,
    DocumentSummary,
    DropUpload,
    FencedWrite,
    NewDocument,
    PutUpload,
    Upload,
    page_of_documents,
)
from casekeeper.documents.search import Found, SearchDocuments, SearchStore, find
from casekeeper.documents.threads import thread_of
from casekeeper.errors import CasefileFull, DocumentNotFound
from casekeeper.ids import DocumentId, new_document_id
from casekeeper.journal.commits import Record
from casekeeper.paging import Cursors, Page
from casekeeper.reading.readers import Arrived, Readers

_AT_A_TIME = 10


class CasefileDocuments:
    """The documents of one casefile, for one running operation. It reaches no other casefile, whatever it is asked."""

    def __init__(
        self,
        store: DocumentStore,
        search: SearchStore,
        blobs: BlobStore,
        readers: Readers,
        cursors: Cursors,
        clock: Clock,
        *,
        casefile_id: str,
        user_id: str,
        event_id: str,
        write: FencedWrite,
        bytes_max: int = 0,
    ) -> None:
        """`bytes_max`: what the casefile may hold; 0 means no limit."""
        self._store = store
        self._search = search
        self._blobs = blobs
        self._readers = readers
        self._cursors = cursors
        self._clock = clock
        self._casefile_id = casefile_id
        self._user_id = user_id
        self._event_id = event_id
        self._write = write
        self._bytes_max = bytes_max
        # What the casefile holds, as far as this operation knows; None before its first document.
        self._held: int | None = None

    async def get(self, document_id: str) -> Document:
        """One document with its text.

        Raises:
            DocumentNotFound: This casefile has no such document.
        """
        document = await self._store.document(self._casefile_id, document_id)
        if document is None:
            raise DocumentNotFound(document_id)
        return document

    async def page(self, kind: str | None, limit: int, cursor: str | None) -> Page[DocumentSummary]:
        """A page of documents, newest filed first."""
        return await page_of_documents(self._store, self._cursors, self._casefile_id, kind, limit, cursor)

    async def search(self, wanted: SearchDocuments) -> Found:
        """A page of what matches; a malformed query is read as well as can be.

        Raises:
            CursorInvalid: The cursor belongs to another search.
        """
        return await find(self._search, self._cursors, self._clock, self._casefile_id, self._user_id, wanted)

    async def thread(self, document: Document) -> list[DocumentSummary]:
        """The conversation to which a mail belongs, oldest first."""
        return await thread_of(self._search, self._casefile_id, document)

    async def counts(self) -> CasefileCounts:
        """What the casefile holds, in figures."""
        return await self._store.counts(self._casefile_id)

    async def upload(self, upload_id: str) -> Upload:
        """The caller's own upload to this casefile.

        Raises:
            DocumentNotFound: There is none: missing, filed already, another's, or of another casefile.
        """
        upload = await self._store.upload(upload_id)
        if upload is None or (upload.casefile_id, upload.user_id) != (self._casefile_id, self._user_id):
            raise DocumentNotFound(upload_id)
        return upload

    async def read_upload(self, upload: Upload) -> AsyncGenerator[list[Arrived]]:
        """What is in an upload, in batches; close the generator."""
        try:
            file = await self._blobs.open(self._casefile_id, upload.upload_id)
        except FileNotFoundError as error:
            # It was filed or swept just now: its bytes go first.
            raise DocumentNotFound(upload.upload_id) from error
        with closing(file):
            async with aclosing(self._readers.read(file, upload.filename)) as batches:
                async for batch in batches:
                    yield batch

    async def drop_upload(self, upload: Upload) -> None:
        """Forget an upload that was filed."""
        # Its bytes first: should they be out of reach, it is found again by what is left.
        await self._blobs.remove(self._casefile_id, upload.upload_id)
        await self._write((DropUpload(upload.upload_id),))

    def next_id(self) -> DocumentId:
        """An id for a document that is to be filed."""
        return new_document_id(self._clock())

    async def keep(self, document_id: DocumentId, chunks: AsyncIterator[bytes], limit: int) -> None:
        """Keep large bytes as a blob for a document that is to be filed."""
        await self._announce(document_id)
        await self._blobs.put_stream(self._casefile_id, document_id, chunks, limit)

    async def _announce(self, document_id: str) -> None:
        # Like an upload, so that a blob whose document never comes is swept as one that nobody filed.
        upload = Upload(document_id, self._casefile_id, self._user_id, "", "", 0, self._clock())
        await self._write((PutUpload(upload),))

    async def known(self, digests: Sequence[str]) -> dict[str, str]:
        """The documents with these sha256 that the casefile holds already: their ids, by sha256."""
        return await self._store.known(self._casefile_id, digests)

    async def add(self, new: Sequence[NewDocument]) -> list[Document]:
        """File documents in one commit; those whose bytes the casefile holds already are left out.

        Blobs are written before the commit that names them, so none is ever missing.

        Raises:
            CasefileFull: The casefile would hold more bytes than it may; none of these is filed.
        """
        known = await self.known([n.sha256 for n in new])
        added: dict[str, tuple[Document, bytes | None]] = {}
        for number, item in enumerate(new):
            if number % _AT_A_TIME == 0:
                # Others get their turn on the event loop.
                await asyncio.sleep(0)
            if item.sha256 in known or item.sha256 in added:
                continue
            document, raw = self._document(item), item.raw
            await self._make_room(document)
            if raw is not None and len(raw) > INLINE_BYTES:
                await self._announce(document.document_id)
                await self._blobs.put(self._casefile_id, document.document_id, raw)
                raw = None
            added[item.sha256] = (document, raw)
        if added:
            records: list[Record] = [AddDocument(document, raw) for document, raw in added.values()]
            records += [DropUpload(one.document_id) for one, _ in added.values() if one.size > INLINE_BYTES]
            await self._write(records)
            for document, _ in added.values():
                if document.size > INLINE_BYTES and not await self._is_filed(document):
                    # Somebody filed the same bytes in between.
                    await self._blobs.remove(self._casefile_id, document.document_id)
        return [document for document, _ in added.values()]

    async def _is_filed(self, document: Document) -> bool:
        return await self._store.document(self._casefile_id, document.document_id) is not None

    async def _make_room(self, document: Document) -> None:
        if not self._bytes_max:
            return
        if self._held is None:
            self._held = (await self._store.counts(self._casefile_id)).bytes
        self._held += document.size
        if self._held > self._bytes_max:
            raise CasefileFull(
                f"A casefile may hold {self._bytes_max:,} bytes here; “{document.source}” needs more."
            )

    def _document(self, item: NewDocument) -> Document:
        now = self._clock()
        return Document(
            document_id=item.document_id or new_document_id(now),
            casefile_id=self._casefile_id,
            kind=item.kind,
            title=item.title,
            parent_id=item.parent_id,
            sender=item.sender,
            recipients=list(item.recipients),
            cc=list(item.cc),
            bcc=list(item.bcc),
            sent_at=item.sent_at,
            labels=list(item.labels),
            filenames=list(item.filenames),
            thread_id=item.thread_id,
            message_id=item.message_id,
            references=list(item.references),
            problem=item.problem,
            size=item.size if item.raw is None else len(item.raw),
            sha256=item.sha256,
            created_at=now,
            created_by=self._user_id,
            event_id=self._event_id,
            source=item.source,
            metadata=item.metadata or {},
            text=item.text,
        )
