"""Casefiles, who may enter them, and what they hold."""

import hashlib
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import httpx2

from casekeeper.client import uploads, verbs
from casekeeper.client.connection import Connection
from casekeeper.client.errors import unreachable
from casekeeper.client.paging import each
from casekeeper.client.uploads import OnProgress, Uploadable
from casekeeper.client.work import Operation, tool

if TYPE_CHECKING:
    from casekeeper.casefiles.casefile import CasefileView
    from casekeeper.casefiles.commands import Deleted
    from casekeeper.casefiles.permissions import ChangedGrant, GrantView
    from casekeeper.client.results import Result
    from casekeeper.documents.custody import DocumentsDeleted
    from casekeeper.documents.document import Document, DocumentSummary
    from casekeeper.documents.filing import Uploaded
    from casekeeper.documents.search import Found
    from casekeeper.execution.explain import Verdict
    from casekeeper.paging import Page

RoleName = Literal["viewer", "editor", "admin", "owner"]
PublicRoleName = Literal["none", "viewer"]
StatusName = Literal["active", "archived"]


class Casefiles:
    """`/v1/casefiles`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
        self,
        title: str,
        *,
        description: str | None = None,
        tags: Sequence[str] | None = None,
        public_role: PublicRoleName | None = None,
        request_id: str | None = None,
    ) -> "CasefileView":
        """A new casefile; the caller is its owner."""
        fields = {"title": title, "description": description, "tags": tags, "public_role": public_role}
        return await self._connection.ask(verbs.CREATE_CASEFILE, fields, request_id)

    async def get(self, casefile_id: str) -> "CasefileView":
        """A casefile as the caller sees it."""
        return await self._connection.ask(verbs.GET_CASEFILE, {"casefile_id": casefile_id})

    async def list(
        self, *, status: StatusName | None = None, limit: int | None = None, cursor: str | None = None
    ) -> "Page[CasefileView]":
        """A page of the casefiles of which the caller is a member, newest first."""
        fields = {"status": status, "limit": limit, "cursor": cursor}
        return await self._connection.ask(verbs.LIST_CASEFILES, fields)

    def each(self, *, status: StatusName | None = None) -> "AsyncGenerator[CasefileView]":
        """All of them, page by page."""
        return each(self._connection, verbs.LIST_CASEFILES, {"status": status})

    async def update(
        self,
        casefile_id: str,
        *,
        title: str | None = None,
        description: str | None = None,
        tags: Sequence[str] | None = None,
        public_role: PublicRoleName | None = None,
        status: StatusName | None = None,
        expected_version: int | None = None,
        request_id: str | None = None,
    ) -> "CasefileView":
        """Change what is given. With `expected_version`, only if nobody has changed the casefile since."""
        fields = {
            "casefile_id": casefile_id,
            "title": title,
            "description": description,
            "tags": tags,
            "public_role": public_role,
            "status": status,
            "expected_version": expected_version,
        }
        return await self._connection.ask(verbs.UPDATE_CASEFILE, fields, request_id)

    async def delete(
        self, casefile_id: str, *, expected_version: int | None = None, request_id: str | None = None
    ) -> "Deleted":
        """Delete a casefile: for everybody, for good."""
        fields = {"casefile_id": casefile_id, "expected_version": expected_version}
        return await self._connection.ask(verbs.DELETE_CASEFILE, fields, request_id)


class Permissions:
    """`/v1/permissions`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def grant(
        self,
        casefile_id: str,
        user_id: str,
        role: RoleName,
        *,
        expires_at: datetime | None = None,
        note: str | None = None,
        wait: Literal["effective", "none"] | None = None,
        expected_version: int | None = None,
        request_id: str | None = None,
    ) -> "ChangedGrant":
        """Give a user a role, or change the one they have; what a lower one does not cover is stopped."""
        fields = {
            "casefile_id": casefile_id,
            "user_id": user_id,
            "role": role,
            "expires_at": expires_at,
            "note": note,
            "wait": wait,
            "expected_version": expected_version,
        }
        return await self._connection.ask(verbs.GRANT, fields, request_id)

    async def revoke(
        self,
        casefile_id: str,
        user_id: str,
        *,
        wait: Literal["effective", "none"] | None = None,
        expected_version: int | None = None,
        request_id: str | None = None,
    ) -> "ChangedGrant":
        """Take a user's role away, and say what was stopped; `wait="none"` answers before all of it has ended."""
        fields = {
            "casefile_id": casefile_id,
            "user_id": user_id,
            "wait": wait,
            "expected_version": expected_version,
        }
        return await self._connection.ask(verbs.REVOKE, fields, request_id)

    async def list(
        self, casefile_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> "Page[GrantView]":
        """A page of who has access, by user id."""
        fields = {"casefile_id": casefile_id, "limit": limit, "cursor": cursor}
        return await self._connection.ask(verbs.LIST_GRANTS, fields)

    def each(self, casefile_id: str) -> "AsyncGenerator[GrantView]":
        """All of them, page by page."""
        return each(self._connection, verbs.LIST_GRANTS, {"casefile_id": casefile_id})

    async def check(
        self, casefile_id: str, operation: Operation | None = None, *, user_id: str | None = None
    ) -> "Verdict":
        """Whether somebody may run an operation (or read, if none is given), and if not, why. Runs nothing."""
        fields = {"casefile_id": casefile_id, "operation": operation, "user_id": user_id}
        return await self._connection.ask(verbs.CHECK, fields)

    async def transfer(
        self,
        casefile_id: str,
        user_id: str,
        *,
        expected_version: int | None = None,
        request_id: str | None = None,
    ) -> "CasefileView":
        """Make another user the owner; the former owner stays as admin."""
        fields = {"casefile_id": casefile_id, "user_id": user_id, "expected_version": expected_version}
        return await self._connection.ask(verbs.TRANSFER, fields, request_id)


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
        return await self._connection.ask(verbs.LIST_DOCUMENTS, fields)

    def each(self, casefile_id: str, *, kind: str | None = None) -> "AsyncGenerator[DocumentSummary]":
        """All of them, page by page."""
        return each(self._connection, verbs.LIST_DOCUMENTS, {"casefile_id": casefile_id, "kind": kind})

    async def get(self, casefile_id: str, document_id: str) -> "Document":
        """One document with its text."""
        fields = {"casefile_id": casefile_id, "document_id": document_id}
        return await self._connection.ask(verbs.GET_DOCUMENT, fields)

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
        return await self._connection.ask(verbs.DELETE_DOCUMENTS, fields, request_id)

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
        result = await self._connection.ask(verbs.EXECUTE, fields)
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
