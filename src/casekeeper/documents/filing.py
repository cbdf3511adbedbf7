"""Reading documents and taking uploads: what the doors call."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from casekeeper.acl import Action
from casekeeper.casefiles.access import Access, Gate
from casekeeper.casefiles.casefile import CasefileIsActive
from casekeeper.casefiles.retrying import retried
from casekeeper.clock import Clock
from casekeeper.documents.blobs import BlobStore
from casekeeper.documents.document import (
    Document,
    DocumentStore,
    DocumentSummary,
    DropUpload,
    PutUpload,
    Upload,
    page_of_documents,
)
from casekeeper.errors import ArgumentsInvalid, DocumentNotFound, FieldError
from casekeeper.identity.principal import Principal
from casekeeper.ids import CasefileId, DocumentId, new_upload_id
from casekeeper.journal.commits import Commit, Commits
from casekeeper.journal.requests import Ask, Requests
from casekeeper.paging import DEFAULT_LIMIT, Cursors, Limit, Page
from casekeeper.strict import Strict

UPLOAD_KEPT = timedelta(hours=24)


class ListDocuments(Strict):
    """Documents of a casefile, newest filed first."""

    casefile_id: CasefileId
    kind: Annotated[str, StringConstraints(max_length=40)] | None = None
    limit: Limit = DEFAULT_LIMIT
    cursor: str | None = None


class GetDocument(Strict):
    """One document with its text."""

    casefile_id: CasefileId
    document_id: DocumentId


class Uploaded(BaseModel):
    """Bytes that wait to be filed with `document_import`."""

    upload_id: str
    sha256: str
    size: int = Field(description="Bytes.")


class Filing:
    """Reads documents and takes uploads."""

    def __init__(
        self,
        gate: Gate,
        store: DocumentStore,
        blobs: BlobStore,
        commits: Commits,
        requests: Requests,
        cursors: Cursors,
        clock: Clock,
        *,
        upload_limit: int,
    ) -> None:
        self._gate = gate
        self._store = store
        self._blobs = blobs
        self._commits = commits
        self._requests = requests
        self._cursors = cursors
        self._clock = clock
        self._upload_limit = upload_limit

    async def page(self, caller: Principal, command: ListDocuments) -> Page[DocumentSummary]:
        """A page of a casefile's documents."""
        await self._gate.enter(caller, command.casefile_id, Action.READ)
        return await page_of_documents(
            self._store, self._cursors, command.casefile_id, command.kind, command.limit, command.cursor
        )

    async def get(self, caller: Principal, command: GetDocument) -> Document:
        """One document with its text.

        Raises:
            DocumentNotFound: The casefile has no such document.
        """
        await self._gate.enter(caller, command.casefile_id, Action.READ)
        document = await self._store.document(command.casefile_id, command.document_id)
        if document is None:
            raise DocumentNotFound(command.document_id)
        return document

    async def upload(
        self, caller: Principal, casefile_id: str, filename: str, chunks: AsyncIterator[bytes], ask: Ask
    ) -> tuple[Uploaded, bool]:
        """Keep a body until it is filed, at most 24 hours.

        Raises:
            BodyTooLarge: More bytes than an upload may have; nothing is kept.
            ArgumentsInvalid: The body is empty.
        """
        access = await self._gate.enter(caller, casefile_id, Action.ADD)

        async def make() -> Uploaded:
            return await self._keep(access, filename, chunks, ask)

        return await self._requests.once(ask, make, self._uploaded)

    async def _keep(self, access: Access, filename: str, chunks: AsyncIterator[bytes], ask: Ask) -> Uploaded:
        upload_id, casefile_id = new_upload_id(), access.casefile_id
        sha256, size = await self._blobs.put_stream(casefile_id, upload_id, chunks, self._upload_limit)
        try:
            if not size:
                raise ArgumentsInvalid(errors=(FieldError("body", "is empty: there is nothing to keep"),))
            now = self._clock()
            upload = Upload(upload_id, casefile_id, access.caller.user_id, filename, sha256, size, now)
            await self._commit(access, PutUpload(upload), ask)
        except BaseException:
            await self._blobs.remove(casefile_id, upload_id)
            raise
        return Uploaded(upload_id=upload_id, sha256=sha256, size=size)

    async def _commit(self, access: Access, record: PutUpload, ask: Ask) -> None:
        claim = self._requests.claim(ask, record.upload.upload_id)
        active = CasefileIsActive(access.casefile_id)

        async def attempt(again: bool) -> None:
            at = await self._gate.entered(access, Action.ADD, again=again)
            await self._commits.commit(Commit((), (*claim, at.fence, active), (*claim, record)))

        await retried(attempt)

    async def _uploaded(self, upload_id: str) -> Uploaded:
        upload = await self._store.upload(upload_id)
        if upload is None:
            raise DocumentNotFound(upload_id)
        return Uploaded(upload_id=upload_id, sha256=upload.sha256, size=upload.size)

    async def sweep(self) -> int:
        """Forget uploads that nobody filed within 24 hours; returns how many."""
        old = await self._store.old_uploads(self._clock() - UPLOAD_KEPT, 100)
        for upload in old:
            # Its bytes first: should they be out of reach, the next sweep finds them by what is left.
            await self._blobs.remove(upload.casefile_id, upload.upload_id)
            await self._commits.commit(Commit(records=(DropUpload(upload.upload_id),)))
        return len(old)
