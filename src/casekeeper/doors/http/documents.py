"""`/v1/documents`."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Response
from starlette.responses import StreamingResponse

from casekeeper.documents.custody import DeleteTheDocuments, DocumentsDeleted
from casekeeper.documents.document import Document, DocumentSummary
from casekeeper.documents.filing import GetDocument, ListDocuments, Uploaded
from casekeeper.doors.http.dependencies import GuardedRoute, Inbound
from casekeeper.doors.http.envelope import Envelope
from casekeeper.doors.http.verbs import verb
from casekeeper.ids import CasefileId, DocumentId
from casekeeper.paging import Page

router = APIRouter(prefix="/v1/documents", route_class=GuardedRoute, tags=["documents"])

FileName = Annotated[
    str,
    Query(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f/\\]+$", description="Name of the file."),
]


@verb(router, "/list", Page[DocumentSummary])
async def list_(body: Envelope[ListDocuments], door: Inbound) -> Response:
    """A casefile's documents, newest filed first."""
    door.ask(body)
    return door.answer(await door.server.filing.page(door.caller, body.payload), body)


@verb(router, "/get", Document)
async def get(body: Envelope[GetDocument], door: Inbound) -> Response:
    """One document with its text."""
    door.ask(body)
    return door.answer(await door.server.filing.get(door.caller, body.payload), body)


@verb(router, "/delete", DocumentsDeleted)
async def delete(body: Envelope[DeleteTheDocuments], door: Inbound) -> Response:
    """Delete documents and what was attached to them, for good; the record keeps that they were there."""
    gone, repeated = await door.server.custody.delete(door.caller, body.payload, door.ask(body))
    return door.answer(gone, body, repeated=repeated)


@verb(
    router,
    "/upload",
    Uploaded,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(casefile_id: Annotated[CasefileId, Query()], filename: FileName, door: Inbound) -> Response:
    """Bring bytes in, streamed as the raw body; `document_import` files them within 24 hours."""
    # The bytes themselves are not part of what makes two uploads the same request: they are yet to come.
    ask = door.ask_about(door.sent_request_id(None), f"{casefile_id}\n{filename}".encode())
    chunks = door.stream()
    uploaded, repeated = await door.server.filing.upload(door.caller, casefile_id, filename, chunks, ask)
    return door.answer(uploaded, repeated=repeated)


@router.get(
    "/{document_id}/content",
    operation_id="documents_content",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def content(
    document_id: Annotated[DocumentId, Path()],
    casefile_id: Annotated[CasefileId, Query()],
    door: Inbound,
) -> Response:
    """The raw bytes of a document, as they came; `ETag` is their SHA-256. Reading them leaves a fact."""
    wanted = GetDocument(casefile_id=casefile_id, document_id=document_id)
    document, chunks = await door.server.custody.content(door.caller, wanted)
    headers = {
        # What a stranger wrote must neither run nor be taken for a page of this server.
        "Content-Disposition": _disposition(_file_name(document)),
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
        "Content-Length": str(document.size),
        "ETag": f'"{document.sha256}"',
    }
    media_type = _MEDIA_TYPES.get(document.kind, "application/octet-stream")
    return StreamingResponse(chunks, media_type=media_type, headers=headers)


_MEDIA_TYPES = {"mail": "message/rfc822", "pdf": "application/pdf"}


def _file_name(document: DocumentSummary) -> str:
    if document.kind == "mail":
        return f"{document.title or 'mail'}.eml"
    return document.filenames[0] if document.filenames else document.title


def _disposition(name: str) -> str:
    """RFC 6266: a name in ASCII for old programs, the name itself for all others."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%/' else "_" for c in name)[:150]
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name[:150], safe='')}"
