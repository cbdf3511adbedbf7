"""Mail in the casefile."""

from typing import Annotated, Any

from pydantic import Field

from casekeeper.acl import Effect
from casekeeper.documents.document import Document, Hit
from casekeeper.errors import DocumentNotFound
from casekeeper.ids import DocumentId
from casekeeper.operations.context import MDSContext
from casekeeper.operations.tools import tool

MailQuery = Annotated[
    str,
    Field(
        max_length=1000,
        description='Words, "phrases", from: to: subject: after: before:; all must match. Dates: YYYY/MM/DD.',
    ),
]
MailLimit = Annotated[int, Field(ge=1, le=100, description="How many mails at most.")]


@tool(effects={Effect.READ})
async def mail_search(call: MDSContext, query: MailQuery, limit: MailLimit = 20) -> dict[str, Any]:
    """Search the mail filed in the casefile; best matches first."""
    return await _search(call, query, limit)


@tool(effects={Effect.READ})
async def mail_get(call: MDSContext, document_id: DocumentId) -> Document:
    """Get one mail with its text."""
    document = await call.documents.get(document_id)
    if document.kind != "mail":
        raise DocumentNotFound(document_id)
    return document


@tool(effects={Effect.READ})
async def gmail_search(call: MDSContext, query: MailQuery, max_results: MailLimit = 20) -> dict[str, Any]:
    """Search Gmail. No Google account is connected here, so the mail filed in the casefile is searched instead."""
    return await _search(call, query, max_results)


async def _search(call: MDSContext, query: str, limit: int) -> dict[str, Any]:
    hits = await call.documents.search(query, "mail", limit)
    return {"source": "archive", "query": query, "messages": [_message(hit) for hit in hits]}


def _message(hit: Hit) -> dict[str, Any]:
    wanted = {"document_id", "title", "sender", "recipients", "sent_at", "snippet"}
    return hit.model_dump(mode="json", include=wanted)
