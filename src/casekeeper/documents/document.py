"""Documents: what a casefile holds, and the one handle through which operations reach them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from casekeeper.clock import Clock, to_us
from casekeeper.documents.blobs import BlobStore
from casekeeper.documents.query import Query, parse_query
from casekeeper.errors import DocumentNotFound
from casekeeper.ids import CasefileId, DocumentId, UserId, new_document_id
from casekeeper.journal.stream import Record
from casekeeper.paging import Cursors, Page

INLINE_BYTES = 256 * 1024
"""Raw bytes up to this size are kept in the database, in the commit of their document; larger ones as blobs."""


class DocumentSummary(BaseModel):
    """A document as lists show it."""

    model_config = ConfigDict(frozen=True)

    document_id: DocumentId
    casefile_id: CasefileId
    kind: str = Field(description="mail, note, or file where the bytes could not be read.")
    title: str
    sender: str | None = None
    recipients: list[str] = []
    sent_at: datetime | None = None
    size: int = Field(description="Bytes of the raw document.")
    sha256: str = Field(description="Of the raw bytes, hex.")
    created_at: datetime
    created_by: UserId
    event_id: str = Field(description="The operation that filed it.")


class Document(DocumentSummary):
    """A document with its text."""

    source: str = Field(description="Where it came from: a file name, or the tool that wrote it.")
    metadata: dict[str, Any] = {}
    text: str = ""


class Hit(DocumentSummary):
    """A document that a search found."""

    snippet: str = Field(default="", description="Text around the first words found.")


class CasefileCounts(BaseModel):
    """What a casefile holds, in figures."""

    documents: int
    by_kind: dict[str, int]
    bytes: int
    earliest: datetime | None = Field(default=None, description="Oldest mail's date.")
    latest: datetime | None = Field(default=None, description="Newest mail's date.")
    top_senders: list[tuple[str, int]] = []


@dataclass(frozen=True, slots=True)
class Upload:
    """Bytes that were brought in and not filed yet."""

    upload_id: str
    casefile_id: str
    user_id: str
    filename: str
    sha256: str
    size: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AddDocument(Record):
    """A document with its raw bytes, unless these are a blob. The same bytes twice in a casefile add nothing."""

    document: Document
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class PutUpload(Record):
    """An upload that waits to be filed."""

    upload: Upload


@dataclass(frozen=True, slots=True)
class DropUpload(Record):
    """The upload is not needed any more."""

    upload_id: str


class DocumentStore(Protocol):
    """Documents as a store keeps them."""

    async def document(self, casefile_id: str, document_id: str) -> Document | None: ...

    async def raw(self, casefile_id: str, document_id: str) -> bytes | None:
        """The raw bytes, if they are kept in the database."""
        ...

    async def documents(
        self, casefile_id: str, kind: str | None, before: tuple[int, str] | None, limit: int
    ) -> Sequence[DocumentSummary]:
        """Documents, newest filed first, behind (created_us, document_id)."""
        ...

    async def search(
        self, casefile_id: str, query: Query, kind: str | None, limit: int, offset: int
    ) -> list[Hit]:
        """Best matches first."""
        ...

    async def known(self, casefile_id: str, digests: Sequence[str]) -> set[str]:
        """Which of these sha256 the casefile holds already."""
        ...

    async def counts(self, casefile_id: str) -> CasefileCounts: ...

    async def upload(self, upload_id: str) -> Upload | None: ...

    async def old_uploads(self, before: datetime, limit: int) -> Sequence[Upload]:
        """Uploads that nobody filed."""
        ...


FencedWrite = Callable[[Sequence[Record]], Awaitable[None]]
"""Writes records for a running operation, while it is open and its caller's permission stands."""


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document before it has an id."""

    kind: str
    title: str
    raw: bytes
    sha256: str
    source: str
    text: str = ""
    sender: str | None = None
    recipients: Sequence[str] = ()
    sent_at: datetime | None = None
    metadata: dict[str, Any] | None = None


class CasefileDocuments:
    """The documents of one casefile, for one running operation. It reaches no other casefile, whatever it is asked."""

    def __init__(
        self,
        store: DocumentStore,
        blobs: BlobStore,
        cursors: Cursors,
        clock: Clock,
        *,
        casefile_id: str,
        user_id: str,
        event_id: str,
        write: FencedWrite,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._cursors = cursors
        self._clock = clock
        self._casefile_id = casefile_id
        self._user_id = user_id
        self._event_id = event_id
        self._write = write

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

    async def search(
        self, query: str, kind: str | None = None, limit: int = 20, offset: int = 0
    ) -> list[Hit]:
        """Best matches first; a malformed query is read as well as can be."""
        return await self._store.search(self._casefile_id, parse_query(query), kind, limit, offset)

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

    def open_upload(self, upload: Upload) -> "Any":
        """The upload's bytes as a binary file, to be read off the event loop."""
        return self._blobs.open(self._casefile_id, upload.upload_id)

    async def drop_upload(self, upload: Upload) -> None:
        """Forget an upload that was filed."""
        await self._write((DropUpload(upload.upload_id),))
        await self._blobs.remove(self._casefile_id, upload.upload_id)

    async def add(self, new: Sequence[NewDocument]) -> list[Document]:
        """File documents in one commit; those whose bytes the casefile holds already are left out.

        Blobs are written before the commit that names them, so none is ever missing.
        """
        known = await self._store.known(self._casefile_id, [n.sha256 for n in new])
        added: dict[str, tuple[Document, bytes | None]] = {}
        for item in new:
            if item.sha256 in known or item.sha256 in added:
                continue
            raw: bytes | None = item.raw
            if len(item.raw) > INLINE_BYTES:
                await self._blobs.put(self._casefile_id, item.sha256, item.raw)
                raw = None
            added[item.sha256] = (self._document(item), raw)
        if added:
            await self._write([AddDocument(document, raw) for document, raw in added.values()])
        return [document for document, _ in added.values()]

    def _document(self, item: NewDocument) -> Document:
        now = self._clock()
        return Document(
            document_id=new_document_id(now),
            casefile_id=self._casefile_id,
            kind=item.kind,
            title=item.title,
            sender=item.sender,
            recipients=list(item.recipients),
            sent_at=item.sent_at,
            size=len(item.raw),
            sha256=item.sha256,
            created_at=now,
            created_by=self._user_id,
            event_id=self._event_id,
            source=item.source,
            metadata=item.metadata or {},
            text=item.text,
        )


async def page_of_documents(
    store: DocumentStore, cursors: Cursors, casefile_id: str, kind: str | None, limit: int, cursor: str | None
) -> Page[DocumentSummary]:
    """A page of a casefile's documents, newest filed first."""
    query = f"documents {casefile_id} {kind}"
    before = None
    if cursor:
        created_us, document_id = cursors.open(query, cursor)
        before = (int(created_us), str(document_id))
    rows = await store.documents(casefile_id, kind, before, limit + 1)
    return cursors.page(query, rows, limit, [(to_us(d.created_at), d.document_id) for d in rows])
