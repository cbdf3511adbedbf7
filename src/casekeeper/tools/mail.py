"""Mail in the casefile."""

from typing import Annotated, Any

from pydantic import Field

from casekeeper.acl import Effect
from casekeeper.documents.document import Document, DocumentSummary
from casekeeper.documents.search import Facets, Hit, Order, QueryText, SearchDocuments
from casekeeper.errors import DocumentNotFound
from casekeeper.ids import DocumentId
from casekeeper.operations.context import MDSContext
from casekeeper.operations.tools import tool

MailLimit = Annotated[int, Field(ge=1, le=100, description="How many mails at most.")]

_TOLD = {"document_id", "title", "sender", "recipients", "cc", "sent_at", "labels", "filenames", "thread_id"}


@tool(effects={Effect.READ})
async def mail_search(
    call: MDSContext,
    query: QueryText,
    limit: MailLimit = 20,
    order: Order = Order.RELEVANCE,
    cursor: str | None = None,
    facets: Annotated[bool, Field(description="Also count senders, years and labels.")] = False,
) -> dict[str, Any]:
    """Search the mail filed in the casefile, in Gmail's query language; best matches first."""
    return await _search(call, query, limit, order=order, cursor=cursor, facets=facets)


@tool(effects={Effect.READ})
async def mail_get(call: MDSContext, document_id: DocumentId) -> Document:
    """Get one mail with its text."""
    return await _mail(call, document_id)


@tool(effects={Effect.READ})
async def mail_thread(call: MDSContext, document_id: DocumentId) -> dict[str, Any]:
    """List the conversation to which a mail belongs, oldest first; at most 500 mails."""
    mails = await call.documents.thread(await _mail(call, document_id))
    return {"messages": [_message(mail) for mail in mails]}


@tool(effects={Effect.READ})
async def gmail_search(call: MDSContext, query: QueryText, max_results: MailLimit = 20) -> dict[str, Any]:
    """Search Gmail. No Google account is connected here, so the mail filed in the casefile is searched instead."""
    return await _search(call, query, max_results)


async def _mail(call: MDSContext, document_id: str) -> Document:
    document = await call.documents.get(document_id)
    if document.kind != "mail":
        raise DocumentNotFound(document_id)
    return document


async def _search(
    call: MDSContext,
    query: str,
    limit: int,
    *,
    order: Order = Order.RELEVANCE,
    cursor: str | None = None,
    facets: bool = False,
) -> dict[str, Any]:
    wanted = SearchDocuments(query=query, kind="mail", limit=limit, order=order, cursor=cursor, facets=facets)
    found = await call.documents.search(wanted)
    answer: dict[str, Any] = {
        "source": "archive",
        "query": query,
        "messages": [_message(hit) for hit in found.items],
        "next_cursor": found.next_cursor,
    }
    if found.facets is not None:
        answer["facets"] = _facets(found.facets)
    return answer


def _message(mail: DocumentSummary) -> dict[str, Any]:
    told = _TOLD | {"snippet", "highlights"} if isinstance(mail, Hit) else _TOLD
    return mail.model_dump(mode="json", include=told)


def _facets(facets: Facets) -> dict[str, Any]:
    return facets.model_dump(mode="json", exclude={"kinds"})
