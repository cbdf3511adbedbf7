"""`/v1/documents`."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from casekeeper.api.dependencies import GuardedRoute, Inbound
from casekeeper.api.envelope import Envelope
from casekeeper.api.verbs import verb
from casekeeper.documents.document import Document, DocumentSummary
from casekeeper.documents.filing import GetDocument, ListDocuments, Uploaded
from casekeeper.ids import CasefileId
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
