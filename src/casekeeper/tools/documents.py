"""Documents of the casefile, of any kind."""

from typing import Annotated

from pydantic import Field

from casekeeper.acl import Effect
from casekeeper.documents.document import CasefileCounts, Document, DocumentSummary
from casekeeper.documents.search import Found, Order, QueryText, SearchDocuments
from casekeeper.ids import DocumentId
from casekeeper.operations.context import MDSContext
from casekeeper.operations.tools import tool
from casekeeper.paging import DEFAULT_LIMIT, Limit, Page

Kind = Annotated[
    str | None, Field(max_length=40, description="mail, note, file, pdf … as a document's kind says.")
]

TEXT_MAX = 1024 * 1024


class DocumentPart(Document):
    """A document with a part of its text."""

    offset: int = Field(description="Where the part begins, in characters.")
    total: int = Field(description="How long the whole text is, in characters.")


@tool(effects={Effect.READ})
async def document_list(
    call: MDSContext, kind: Kind = None, limit: Limit = DEFAULT_LIMIT, cursor: str | None = None
) -> Page[DocumentSummary]:
    """List the casefile's documents, newest filed first."""
    return await call.documents.page(kind, limit, cursor)


@tool(effects={Effect.READ})
async def document_search(
    call: MDSContext,
    query: QueryText,
    kind: Kind = None,
    limit: Limit = 20,
    order: Order = Order.RELEVANCE,
    cursor: str | None = None,
    facets: Annotated[bool, Field(description="Also count kinds, senders, years and labels.")] = False,
) -> Found:
    """Search documents of any kind, in Gmail's query language; best matches first."""
    wanted = SearchDocuments(query=query, kind=kind, limit=limit, order=order, cursor=cursor, facets=facets)
    return await call.documents.search(wanted)


@tool(effects={Effect.READ})
async def document_get(
    call: MDSContext,
    document_id: DocumentId,
    offset: Annotated[int, Field(ge=0, description="Where to begin in the text, in characters.")] = 0,
    limit: Annotated[int, Field(ge=1, le=TEXT_MAX, description="Characters at most.")] = TEXT_MAX,
) -> DocumentPart:
    """Get one document with its text, or with a part of it: a long one is read in parts."""
    document = await call.documents.get(document_id)
    part = document.text[offset : offset + limit]
    fields = document.model_dump(exclude={"text"})
    return DocumentPart(**fields, text=part, offset=offset, total=len(document.text))


@tool(effects={Effect.READ})
async def casefile_summary(call: MDSContext) -> CasefileCounts:
    """Say what the casefile holds: counts by kind, bytes, the period of its mail, and who wrote most."""
    return await call.documents.counts()
