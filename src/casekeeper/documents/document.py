"""Documents: what a casefile holds, and the one handle through which operations reach them."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from casekeeper.clock import to_us
from casekeeper.ids import CasefileId, DocumentId, UserId
from casekeeper.journal.commits import About, Record
from casekeeper.paging import Cursors, Page
from casekeeper.values import value

INLINE_BYTES = 256 * 1024
"""Raw bytes up to this size are kept in the database, in the commit of their document; larger ones as blobs.

A blob has the name of its document: no two documents share one, so deleting the one takes nothing from the other.
"""


class DocumentSummary(BaseModel):
    """A document as lists show it."""

    model_config = ConfigDict(frozen=True)

    document_id: DocumentId
    casefile_id: CasefileId
    kind: str = Field(description="mail, note, or file where the bytes could not be read.")
    title: str
    parent_id: DocumentId | None = Field(
        default=None, description="The document to which this one was attached."
    )
    sender: str | None = None
    recipients: list[str] = []
    cc: list[str] = []
    bcc: list[str] = []
    sent_at: datetime | None = None
    labels: list[str] = []
    filenames: list[str] = Field(default=[], description="Of a mail its attachments, else the file's own.")
    thread_id: str | None = None
    message_id: str | None = None
    references: list[str] = Field(default=[], description="Message ids of the mails that it answers.")
    problem: str | None = Field(default=None, description="Why it could not be read, where it could not.")
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


class CasefileCounts(BaseModel):
    """What a casefile holds, in figures."""

    documents: int
    by_kind: dict[str, int]
    bytes: int
    earliest: datetime | None = Field(default=None, description="Oldest mail's date.")
    latest: datetime | None = Field(default=None, description="Newest mail's date.")
    top_senders: list[tuple[str, int]] = []


@value
class Upload:
    """Bytes that were brought in and not filed yet."""

    upload_id: str
    casefile_id: str
    user_id: str
    filename: str
    sha256: str
    size: int
    created_at: datetime


@value
class AddDocument(Record):
    """A document with its raw bytes, unless these are a blob. The same bytes twice in a casefile add nothing."""

    document: Document
    raw: bytes | None

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.document.casefile_id, alone=True),)


@value
class DeleteDocuments(Record):
    """What these documents say is gone for good; that they were there stays. Those that are gone already are left."""

    casefile_id: str
    document_ids: Sequence[str]
    at: datetime

    @property
    def about(self) -> Sequence[About]:
        return (About("casefile", self.casefile_id, alone=True),)


@value
class PutUpload(Record):
    """An upload that waits to be filed."""

    upload: Upload

    @property
    def about(self) -> Sequence[About]:
        upload = self.upload
        return (
            About("casefile", upload.casefile_id, alone=True),
            About("upload", upload.upload_id, alone=True),
        )


@value
class DropUpload(Record):
    """The upload is not needed any more."""

    upload_id: str

    @property
    def about(self) -> Sequence[About]:
        return (About("upload", self.upload_id, alone=True),)


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

    async def known(self, casefile_id: str, digests: Sequence[str]) -> dict[str, str]:
        """The documents with these sha256 that the casefile holds already: their ids, by sha256."""
        ...

    async def attached(self, casefile_id: str, document_ids: Sequence[str]) -> Sequence[DocumentSummary]:
        """The documents that were attached to these, not what was attached to them in turn."""
        ...

    async def counts(self, casefile_id: str) -> CasefileCounts: ...

    async def upload(self, upload_id: str) -> Upload | None: ...

    async def old_uploads(self, before: datetime, limit: int) -> Sequence[Upload]:
        """Uploads that nobody filed."""
        ...


FencedWrite = Callable[[Sequence[Record]], Awaitable[None]]
"""Writes records for a running operation, while it is open and its caller's permission stands."""


@value
class NewDocument:
    """A document to be filed. Where `raw` is None, its bytes are a blob already, named by `document_id`."""

    kind: str
    title: str
    raw: bytes | None
    sha256: str
    source: str
    document_id: DocumentId | None = None
    size: int = 0
    text: str = ""
    parent_id: str | None = None
    sender: str | None = None
    recipients: Sequence[str] = ()
    cc: Sequence[str] = ()
    bcc: Sequence[str] = ()
    sent_at: datetime | None = None
    labels: Sequence[str] = ()
    filenames: Sequence[str] = ()
    thread_id: str | None = None
    message_id: str | None = None
    references: Sequence[str] = ()
    problem: str | None = None
    metadata: dict[str, Any] | None = None


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
