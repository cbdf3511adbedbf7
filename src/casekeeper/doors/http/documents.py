"""Bytes of documents, in and out."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Response
from starlette.responses import StreamingResponse

from casekeeper.documents.document import DocumentSummary
from casekeeper.documents.filing import GetDocument
from casekeeper.doors.http.dependencies import GuardedRoute, Inbound
from casekeeper.doors.http.envelope import Json
from casekeeper.ids import CasefileId, DocumentId
from casekeeper.journal.requests import Body
from casekeeper.verbs import VERBS

router = APIRouter(route_class=GuardedRoute, tags=["documents"])

FileName = Annotated[
    str,
    Query(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f/\\]+$", description="Name of the file."),
]


_UPLOAD = VERBS["documents/upload"]


@router.post(
    _UPLOAD.path,
    operation_id=_UPLOAD.operation_id,
    description=_UPLOAD.summary,
    response_model=None,
    response_class=Json,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(casefile_id: Annotated[CasefileId, Query()], filename: FileName, door: Inbound) -> Response:
    """Keep the bytes that are streamed as the raw body."""
    # The bytes themselves are not part of what makes two uploads the same request: they are yet to come.
    asked = Body(lambda: [casefile_id, filename], f"{casefile_id}\n{filename}".encode)
    ask = door.ask_about(_UPLOAD, asked)
    chunks = door.stream()
    uploaded, repeated = await door.server.documents.filing.upload(
        door.caller, casefile_id, filename, chunks, ask
    )
    return door.answer(uploaded, repeated=repeated)


@router.get(
    "/v1/documents/{document_id}/content",
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
    document, chunks = await door.server.documents.custody.content(door.caller, wanted)
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
