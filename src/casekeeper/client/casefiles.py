"""Casefiles, and who may enter them."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from casekeeper.client.connection import Connection
from casekeeper.client.paging import each
from casekeeper.client.sessions import Operation

if TYPE_CHECKING:
    from casekeeper.casefiles.casefile import CasefileView
    from casekeeper.casefiles.commands import Deleted
    from casekeeper.casefiles.permissions import ChangedGrant, GrantView
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
        return await self._connection.ask("casefiles/create", fields, request_id)

    async def get(self, casefile_id: str) -> "CasefileView":
        """A casefile as the caller sees it."""
        return await self._connection.ask("casefiles/get", {"casefile_id": casefile_id})

    async def list(
        self, *, status: StatusName | None = None, limit: int | None = None, cursor: str | None = None
    ) -> "Page[CasefileView]":
        """A page of the casefiles of which the caller is a member, newest first."""
        fields = {"status": status, "limit": limit, "cursor": cursor}
        return await self._connection.ask("casefiles/list", fields)

    def each(self, *, status: StatusName | None = None) -> "AsyncGenerator[CasefileView]":
        """All of them, page by page."""
        return each(self._connection, "casefiles/list", {"status": status})

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
        return await self._connection.ask("casefiles/update", fields, request_id)

    async def delete(
        self, casefile_id: str, *, expected_version: int | None = None, request_id: str | None = None
    ) -> "Deleted":
        """Delete a casefile: for everybody, for good."""
        fields = {"casefile_id": casefile_id, "expected_version": expected_version}
        return await self._connection.ask("casefiles/delete", fields, request_id)


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
        return await self._connection.ask("permissions/grant", fields, request_id)

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
        return await self._connection.ask("permissions/revoke", fields, request_id)

    async def list(
        self, casefile_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> "Page[GrantView]":
        """A page of who has access, by user id."""
        fields = {"casefile_id": casefile_id, "limit": limit, "cursor": cursor}
        return await self._connection.ask("permissions/list", fields)

    def each(self, casefile_id: str) -> "AsyncGenerator[GrantView]":
        """All of them, page by page."""
        return each(self._connection, "permissions/list", {"casefile_id": casefile_id})

    async def check(
        self, casefile_id: str, operation: Operation | None = None, *, user_id: str | None = None
    ) -> "Verdict":
        """Whether somebody may run an operation (or read, if none is given), and if not, why. Runs nothing."""
        fields = {"casefile_id": casefile_id, "operation": operation, "user_id": user_id}
        return await self._connection.ask("permissions/check", fields)

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
        return await self._connection.ask("permissions/transfer", fields, request_id)
