"""Documents of the casefile, of any kind."""

from typing import Annotated

from pydantic import Field

from casekeeper.acl import Effect
from casekeeper.documents.document import CasefileCounts, Document, DocumentSummary
from casekeeper.ids import DocumentId
from casekeeper.operations.context import MDSContext
from casekeeper.operations.tools import tool
from casekeeper.paging import DEFAULT_LIMIT, Limit, Page


@tool(effects={Effect.READ})
async def document_list(
    call: MDSContext,
    kind: Annotated[str | None, Field(max_length=40, description="mail, note or file.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Page[DocumentSummary]:
    """List the casefile's documents, newest filed first."""
    return await call.documents.page(kind, limit, cursor)


@tool(effects={Effect.READ})
async def document_get(call: MDSContext, document_id: DocumentId) -> Document:
    """Get one document with its text."""
    return await call.documents.get(document_id)


@tool(effects={Effect.READ})
async def casefile_summary(call: MDSContext) -> CasefileCounts:
    """Say what the casefile holds: counts by kind, bytes, the period of its mail, and who wrote most."""
    return await call.documents.counts()
