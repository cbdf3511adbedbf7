"""`/v1/documents`."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from casekeeper.api.dependencies import Caller, Door, GuardedRoute, Wired
from casekeeper.api.envelope import Answer, Envelope
from casekeeper.documents.document import Document, DocumentSummary
from casekeeper.documents.filing import GetDocument, ListDocuments, Uploaded
from casekeeper.ids import CasefileId, new_request_id
from casekeeper.journal.requests import Ask
from casekeeper.paging import Page

router = APIRouter(prefix="/v1/documents", route_class=GuardedRoute, tags=["documents"])

FileName = Annotated[
    str,
    Query(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f/\\]+$", description="Name of the file."),
]


@router.post("/list", operation_id="documents_list", response_model=Answer[Page[DocumentSummary]])
async def list_(body: Envelope[ListDocuments], caller: Caller, server: Wired, door: Door) -> Response:
    """A casefile's documents, newest filed first."""
    door.ask(body, caller)
    return door.answer(await server.filing.page(caller, body.payload), body)


@router.post("/get", operation_id="documents_get", response_model=Answer[Document])
async def get(body: Envelope[GetDocument], caller: Caller, server: Wired, door: Door) -> Response:
    """One document with its text."""
    door.ask(body, caller)
    return door.answer(await server.filing.get(caller, body.payload), body)


@router.post(
    "/upload",
    operation_id="documents_upload",
    response_model=Answer[Uploaded],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(
    casefile_id: Annotated[CasefileId, Query()], filename: FileName, caller: Caller, server: Wired, door: Door
) -> Response:
    """Bring bytes in, streamed as the raw body; `document_import` files them within 24 hours."""
    sent = door.request_id(None)
    request_id = door.request.state.request_id = sent or new_request_id()
    # The body itself is not part of what makes two uploads the same request: it has not been read yet.
    body = f"{casefile_id}\n{filename}".encode()
    ask = Ask(caller.user_id, door.request.url.path, request_id, body, is_repeatable=sent is not None)
    chunks = door.request.stream()
    uploaded, repeated = await server.filing.upload(caller, casefile_id, filename, chunks, ask)
    return door.answer(uploaded, repeated=repeated)
