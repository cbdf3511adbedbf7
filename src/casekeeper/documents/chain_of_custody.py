"""Chain of custody of filed documents: each read of their raw bytes is recorded, each deletion leaves a tombstone.

Deleting takes a document with all that was attached to it. What they said is gone; the record says that they were
there, from which bytes, and who deleted them and why.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from casekeeper.acl import Action
from casekeeper.casefiles.access import Access, Gate
from casekeeper.casefiles.casefile import CasefileStore
from casekeeper.casefiles.changing import (
    ChangeCommand,
    Changing,
    PlannedChange,
    Present,
    must_not_be_archived,
)
from casekeeper.casefiles.retrying import retried
from casekeeper.clock import Clock
from casekeeper.documents.blobs import BlobStore
from casekeeper.documents.document import (
    INLINE_BYTES,
    DeleteDocuments,
    DocumentStore,
    DocumentSummary,
    DropUpload,
    PutUpload,
    Upload,
)
from casekeeper.documents.filing import GetDocument
from casekeeper.errors import CasefileNotFound, DocumentNotFound, StoreUnavailable
from casekeeper.identity.principal import Principal
from casekeeper.ids import CasefileId, DocumentId, new_event_id
from casekeeper.journal.commits import Commit, Commits, Record
from casekeeper.journal.events import Fact, Kind, Payload
from casekeeper.journal.requests import Ask
from casekeeper.strict import Strict

# What every store writes in one commit.
_AT_ONCE = 200


class DeleteTheDocuments(Strict):
    """Delete documents and what was attached to them, for good. The record keeps that they were there."""

    casefile_id: CasefileId
    document_ids: Annotated[list[DocumentId], Field(min_length=1, max_length=100)]
    reason: Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")] | None = Field(
        default=None, description="Kept on the record."
    )


class DocumentsDeleted(BaseModel):
    """These documents are gone, and what was attached to them."""

    casefile_id: str
    document_ids: list[str]
    deleted: bool = True


class ChainOfCustody:
    """Gives out and deletes documents, and records both."""

    def __init__(
        self,
        gate: Gate,
        changing: Changing,
        casefiles: CasefileStore,
        store: DocumentStore,
        blobs: BlobStore,
        commits: Commits,
        clock: Clock,
        *,
        records_reads: bool = True,
    ) -> None:
        self._gate = gate
        self._changing = changing
        self._casefiles = casefiles
        self._store = store
        self._blobs = blobs
        self._commits = commits
        self._clock = clock
        self._records_reads = records_reads

    async def delete(
        self, caller: Principal, command: DeleteTheDocuments, ask: Ask
    ) -> tuple[DocumentsDeleted, bool]:
        """Delete documents with what was attached to them; a repeat of the same request only answers.

        A document to which hundreds are attached loses these first, so an attempt that breaks off leaves no orphans.

        Raises:
            DocumentNotFound: The casefile has no such document; nothing is deleted.
            RoleTooLow: The caller is no admin; recorded.
        """
        portion: list[DocumentSummary] = []
        is_last = False

        async def decide(present: Present) -> PlannedChange:
            must_not_be_archived(present.casefile)
            family = await self._family(command)
            portion[:] = family if is_last else family[-_AT_ONCE:]
            ids, now = [document.document_id for document in portion], self._clock()
            inputs: dict[str, Any] = {"documents": [_told(document) for document in portion]}
            if command.reason:
                inputs["reason"] = command.reason
            records: list[Record] = [DeleteDocuments(command.casefile_id, ids, now)]
            # Should the process end before it has removed a blob, the blob is swept like an upload that nobody filed.
            records += [PutUpload(_left(document, caller, now)) for document in portion if _is_blob(document)]
            return PlannedChange(present.casefile, Kind.DOCUMENTS_DELETED, records, inputs)

        async def answer(casefile_id: str) -> DocumentsDeleted:
            return DocumentsDeleted(casefile_id=casefile_id, document_ids=command.document_ids)

        change = ChangeCommand(casefile_id=command.casefile_id)
        while True:
            is_last = len(await self._family_if_let_in(caller, command)) <= _AT_ONCE
            part = ask if is_last else Ask(user_id=ask.user_id, route=ask.route, request_id=ask.request_id)
            portion.clear()
            done = await self._changing.change(caller, change, Action.DESTROY, decide, part, answer)
            for document in filter(_is_blob, portion):
                await self._blobs.remove(document.casefile_id, document.document_id)
                await self._commits.commit(Commit(records=(DropUpload(document.document_id),)))
            if is_last:
                return done

    async def _family_if_let_in(
        self, caller: Principal, command: DeleteTheDocuments
    ) -> Sequence[DocumentSummary]:
        access = await self._gate.look(caller, command.casefile_id)
        if access is None or not access.may(Action.DESTROY):
            # `change` refuses, as it does wherever something is changed.
            return ()
        try:
            return await self._family(command)
        except DocumentNotFound:
            # Either `change` says so, or this is a repeat.
            return ()

    async def _family(self, command: DeleteTheDocuments) -> list[DocumentSummary]:
        """The documents that were named, and behind each all that was attached to it."""
        casefile_id = command.casefile_id
        found: dict[str, DocumentSummary] = {}
        for document_id in command.document_ids:
            document = await self._store.document(casefile_id, document_id)
            if document is None:
                raise DocumentNotFound(document_id)
            found[document_id] = document
        above = list(found)
        while above:
            attached = await self._store.attached(casefile_id, above)
            new = {one.document_id: one for one in attached if one.document_id not in found}
            found |= new
            above = list(new)
        return list(found.values())

    async def content(
        self, caller: Principal, command: GetDocument
    ) -> tuple[DocumentSummary, AsyncGenerator[bytes]]:
        """A document and its raw bytes, as they came; that they are read is on the record before they go out.

        Raises:
            DocumentNotFound: The casefile has no such document.
            StoreUnavailable: Its bytes cannot be read.
        """
        casefile_id, document_id = command.casefile_id, command.document_id
        access = await self._gate.enter(caller, casefile_id, Action.READ)
        document = await self._store.document(casefile_id, document_id)
        if document is None:
            raise DocumentNotFound(document_id)
        raw = await self._store.raw(casefile_id, document_id)
        pieces = _whole(raw) if raw is not None else await self._blob(document)
        try:
            if self._records_reads:
                await self._record_read(access, document)
        except BaseException:
            await pieces.aclose()
            raise
        return document, pieces

    async def _blob(self, document: DocumentSummary) -> AsyncGenerator[bytes]:
        try:
            return await self._blobs.stream(document.casefile_id, document.document_id)
        except FileNotFoundError as error:
            # Somebody took the file away, or it was deleted just now.
            if await self._store.document(document.casefile_id, document.document_id) is None:
                raise DocumentNotFound(document.document_id) from error
            raise StoreUnavailable(f"The bytes of {document.document_id} are missing here.") from error

    async def _record_read(self, access: Access, document: DocumentSummary) -> None:
        casefile = await self._casefiles.casefile(access.casefile_id)
        if casefile is None or casefile.record_session_id is None:
            raise CasefileNotFound(access.casefile_id)
        session_id, caller = casefile.record_session_id, access.caller

        async def attempt(again: bool) -> None:
            at, now = await self._gate.entered(access, Action.READ, again=again), self._clock()
            fact = Fact(
                casefile_id=at.casefile_id,
                session_id=session_id,
                event_id=new_event_id(now),
                kind=Kind.DOCUMENT_READ,
                actor=caller.pseudonym,
                started_at=now,
                permission=at.permission,
                payload=Payload.of_fields(inputs=_told(document)),
            )
            await self._commits.commit(Commit((fact,), (at.fence,)))

        await retried(attempt)


async def _whole(raw: bytes) -> AsyncGenerator[bytes]:
    yield raw


def _is_blob(document: DocumentSummary) -> bool:
    return document.size > INLINE_BYTES


def _left(document: DocumentSummary, caller: Principal, now: datetime) -> Upload:
    return Upload(document.document_id, document.casefile_id, caller.user_id, "", "", 0, now)


def _told(document: DocumentSummary) -> dict[str, Any]:
    """A document as the record names it: nothing of what it says."""
    return {"document_id": document.document_id, "sha256": document.sha256, "size": document.size}
