"""What casefiles hold: documents, and bringing them in."""

import hashlib
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

import httpx2

from casekeeper.client import uploads
from casekeeper.client.connection import Connection
from casekeeper.client.errors import unreachable
from casekeeper.client.paging import each
from casekeeper.client.sessions import tool
from casekeeper.client.uploads import OnProgress, Uploadable

if TYPE_CHECKING:
    from casekeeper.client.results import Result
    from casekeeper.documents.chain_of_custody import DocumentsDeleted
    from casekeeper.documents.document import Document, DocumentSummary
    from casekeeper.documents.filing import Uploaded
    from casekeeper.documents.search import Found
    from casekeeper.paging import Page


class Documents:
    """`/v1/documents`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list(
        self,
        casefile_id: str,
        *,
        kind: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> "Page[DocumentSummary]":
        """A page of a casefile's documents, newest filed first."""
        fields = {"casefile_id": casefile_id, "kind": kind, "limit": limit, "cursor": cursor}
        return await self._connection.ask("documents/list", fields)

    def each(self, casefile_id: str, *, kind: str | None = None) -> "AsyncGenerator[DocumentSummary]":
        """All of them, page by page."""
        return each(self._connection, "documents/list", {"casefile_id": casefile_id, "kind": kind})

    async def get(self, casefile_id: str, document_id: str) -> "Document":
        """One document with its text."""
        fields = {"casefile_id": casefile_id, "document_id": document_id}
        return await self._connection.ask("documents/get", fields)

    async def content(self, casefile_id: str, document_id: str) -> AsyncGenerator[bytes]:
        """The raw bytes of a document, as they came, in chunks; reading them leaves a fact on the record.

        Raises:
            Unreachable: The connection broke, or what came is not what was filed.
        """
        http, digest = self._connection.http, hashlib.sha256()
        path = f"/v1/documents/{document_id}/content"
        async with self._connection.stream(
            lambda: http.build_request("GET", path, params={"casefile_id": casefile_id})
        ) as response:
            try:
                async for chunk in response.aiter_bytes():
                    digest.update(chunk)
                    yield chunk
            except httpx2.TransportError as error:
                raise unreachable(self._connection.url, error) from error
            filed = response.headers["ETag"].strip('"')
        if digest.hexdigest() != filed:
            raise unreachable(self._connection.url, EOFError(f"the bytes of {document_id} broke off"))

    async def delete(
        self,
        casefile_id: str,
        document_ids: Sequence[str],
        *,
        reason: str | None = None,
        request_id: str | None = None,
    ) -> "DocumentsDeleted":
        """Delete documents and what was attached to them, for good; the record keeps that they were there."""
        fields = {"casefile_id": casefile_id, "document_ids": list(document_ids), "reason": reason}
        return await self._connection.ask("documents/delete", fields, request_id)

    async def search(
        self,
        casefile_id: str,
        query: str,
        *,
        kind: str | None = None,
        order: str = "relevance",
        facets: bool = False,
        limit: int = 20,
        cursor: str | None = None,
    ) -> "Found":
        """Search in Gmail's query language (docs/search.md). It is an operation, and on the record like any other.

        Raises:
            OperationFailed: The search could not be made.
        """
        from casekeeper.documents.search import Found

        parameters = {
            "query": query,
            "kind": kind,
            "order": order,
            "facets": facets,
            "limit": limit,
            "cursor": cursor,
        }
        operation = tool("document_search", **{k: v for k, v in parameters.items() if v is not None})
        fields = {"casefile_id": casefile_id, "operation": operation}
        result = await self._connection.ask("sessions/execute", fields)
        return Found.model_validate(result.raise_for_failure().outputs)

    async def upload(
        self,
        casefile_id: str,
        data: Uploadable,
        *,
        filename: str | None = None,
        on_progress: OnProgress | None = None,
        request_id: str | None = None,
    ) -> "Uploaded":
        """Bring bytes in, streamed; the tool `document_import` files them within 24 hours.

        A path (also as a string) or bytes are sent again when the connection is lost; an iterator can be read only once.
        """
        return await uploads.upload(self._connection, casefile_id, data, filename, on_progress, request_id)

    async def import_file(
        self,
        casefile_id: str,
        data: Uploadable,
        *,
        filename: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> "Result":
        """Upload a file, named by its path or given as bytes, and file what is in it.

        Cancelling the call cancels the import on the server, too.
        """
        return await uploads.import_file(self._connection, casefile_id, data, filename, on_progress)
