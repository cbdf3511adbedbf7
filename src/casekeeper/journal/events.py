"""Facts: what the record is made of.

`Fact` is what a room writes, `Sealed` the same with its number and hash, `ExecutionEvent` what a reader gets.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from casekeeper.clock import rfc3339, to_us
from casekeeper.journal.chain import commitment, new_salt
from casekeeper.kinds import OperationType
from casekeeper.values import value


class Kind(StrEnum):
    """What a fact says."""

    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    DENIED = "denied"
    OPENED = "opened"
    CLOSED = "closed"
    CASEFILE_CREATED = "casefile_created"
    CASEFILE_UPDATED = "casefile_updated"
    CASEFILE_ARCHIVED = "casefile_archived"
    CASEFILE_DELETED = "casefile_deleted"
    GRANTED = "granted"
    REVOKED = "revoked"
    ROLE_CHANGED = "role_changed"
    EXPIRED = "expired"
    TRANSFERRED = "transferred"
    DOCUMENT_READ = "document_read"
    DOCUMENTS_DELETED = "documents_deleted"
    EXPORTED = "exported"
    IMPORTED = "imported"


TERMINAL = frozenset(
    {Kind.SUCCEEDED, Kind.FAILED, Kind.CANCELLED, Kind.TIMED_OUT, Kind.INTERRUPTED, Kind.DENIED}
)
"""The kinds that end an operation, or refuse it; an operation has exactly one of them."""


@value
class Payload:
    """The erasable part of a fact: its stored bytes, or the blob that holds them, with the salt."""

    salt: bytes
    commit: bytes
    size: int
    body: bytes | None
    blob: str | None = None

    @staticmethod
    def of(body: bytes) -> "Payload":
        """A payload kept beside its header."""
        salt = new_salt()
        return Payload(salt, commitment(salt, body), len(body), body)

    @staticmethod
    def of_fields(**fields: Any) -> "Payload":
        """A payload out of named JSON values; those that are None are left out."""
        return Payload.of(to_json({k: v for k, v in fields.items() if v is not None}, inf_nan_mode="null"))


@value
class Permission:
    """Under which permission an operation was let in, and where that was read."""

    role: str
    source: str
    checked_at: datetime

    def header(self) -> dict[str, str]:
        """As the record writes it."""
        return {"role": self.role, "source": self.source, "checked_at": rfc3339(self.checked_at)}


@value
class Fact:
    """One fact before it has a number. `actor` is the pseudonym of the account whose rights were used.

    `is_tainted`: on the fact that opens an operation or refuses it, that it was asked for after something had been read
    that somebody else may have written, and was judged so; on the fact that ends it, that its answer may follow such
    words. `waited_ms` is how much of the duration it waited, if it did.
    """

    _: KW_ONLY
    casefile_id: str
    session_id: str
    event_id: str
    kind: Kind
    actor: str
    started_at: datetime
    payload: Payload
    ended_at: datetime | None = None
    parent_event_id: str | None = None
    operation_type: OperationType | None = None
    operation_name: str | None = None
    request_id: str | None = None
    permission: Permission | None = None
    is_tainted: bool = False
    usage: dict[str, int | str] | None = None
    error_type: str | None = None
    started_seq: int | None = None
    inputs_commit: str | None = None
    conversation: str | None = None
    waited_ms: int | None = None

    @property
    def at_us(self) -> int:
        """When the fact came to be, in microseconds since 1970."""
        return to_us(self.ended_at or self.started_at)

    @property
    def busy_ms(self) -> int:
        """How long the operation ran without waiting, for the fact that ends it."""
        return max(0, (self.duration_ms or 0) - (self.waited_ms or 0))

    @property
    def duration_ms(self) -> int | None:
        """How long the operation took, for the fact that ends it."""
        if self.ended_at is None:
            return None
        return max(0, (to_us(self.ended_at) - to_us(self.started_at)) // 1000)

    def header(self, seq: int) -> dict[str, Any]:
        """Everything but the payload; keys without a value are left out."""
        header: dict[str, Any] = {
            "v": 1,
            "casefile_id": self.casefile_id,
            "session_id": self.session_id,
            "seq": seq,
            "event_id": self.event_id,
            "kind": self.kind.value,
            "actor": self.actor,
            "started_at": rfc3339(self.started_at),
        }
        for name in _WHERE_THERE_IS_ONE:
            if (held := getattr(self, name)) is not None:
                header[name] = held
        if self.ended_at:
            header["ended_at"] = rfc3339(self.ended_at)
            header["duration_ms"] = self.duration_ms
        if self.permission:
            header["permission"] = self.permission.header()
        if self.is_tainted:
            # The canonical form knows no booleans.
            header["tainted"] = 1
        return header


_WHERE_THERE_IS_ONE = (
    "parent_event_id",
    "operation_type",
    "operation_name",
    "request_id",
    "usage",
    "error_type",
    "started_seq",
    "inputs_commit",
    "conversation",
    "waited_ms",
)


def fact_of(header: Mapping[str, Any], payload: Payload) -> Fact:
    """The fact that a header describes.

    Raises:
        KeyError, TypeError, ValueError: It is no header of a kind known here.
    """
    type_, ended_at, permission = (header.get(name) for name in ("operation_type", "ended_at", "permission"))
    return Fact(
        casefile_id=header["casefile_id"],
        session_id=header["session_id"],
        event_id=header["event_id"],
        kind=Kind(header["kind"]),
        actor=header["actor"],
        started_at=datetime.fromisoformat(header["started_at"]),
        ended_at=datetime.fromisoformat(ended_at) if ended_at else None,
        operation_type=type_ or None,
        permission=_permission_of(permission) if permission else None,
        is_tainted=header.get("tainted") == 1,
        payload=payload,
        **{name: header.get(name) for name in _WHERE_THERE_IS_ONE if name != "operation_type"},
    )


def _permission_of(header: Mapping[str, str]) -> Permission:
    return Permission(header["role"], header["source"], datetime.fromisoformat(header["checked_at"]))


@value
class Sealed:
    """A fact that is on disk, with its number and hash."""

    fact: Fact
    seq: int
    hash: bytes


class Failure(BaseModel):
    """Why an operation did not succeed."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="Stable name of the situation.", examples=["deadline_exceeded"])
    message: str = Field(description="What happened, for people.")
    retryable: bool = Field(default=False, description="Whether the same call may succeed later.")


class ExecutionEvent(BaseModel):
    """One fact of a session's record, as its readers get it.

    `seq` counts from 1 without gaps in a session; `event_id` is common to the facts of one operation.
    """

    seq: int
    session_id: str
    casefile_id: str
    event_id: str
    parent_event_id: str | None = None
    kind: Kind
    operation_type: OperationType | None = None
    operation_name: str | None = None
    actor: str = Field(description="Pseudonym of the account whose rights were used.")
    actor_user_id: str | None = Field(default=None, description="That account's user id.")
    request_id: str | None = None
    started_at: datetime
    ended_at: datetime | None = None
    duration_ms: int | None = None
    usage: dict[str, int | str] | None = None
    permission: dict[str, str] | None = None
    tainted: int | None = Field(
        default=None,
        description="1 where it was asked for after something had been read that somebody else may have written; on the "
        "fact that ends an operation, where its answer may follow such words.",
    )
    waited_ms: int | None = Field(default=None, description="How much of the duration it waited.")
    error_type: str | None = None
    started_seq: int | None = Field(default=None, description="The number of the fact that holds the inputs.")
    inputs_commit: str | None = Field(default=None, description="Commitment of the inputs, hex.")
    conversation: str | None = Field(default=None, description="Digest of the conversation's snapshot, hex.")
    inputs: Any = Field(default=None, description="What was asked; `{blob,size}` above 256 KiB.")
    outputs: Any = Field(default=None, description="What came out; `{blob,size}` above 256 KiB.")
    error: dict[str, Any] | None = None
    hash: str
    v: int = 1


@value
class StoredFact:
    """A fact as a store hands it out: bytes that need no parsing to be passed on."""

    session_id: str
    seq: int
    at_us: int
    header: bytes
    hash: bytes
    actor_user_id: str | None
    salt: bytes | None
    body: bytes | None
    blob: str | None
    size: int
    inputs: bytes | None = None
    inputs_blob: str | None = None
    inputs_size: int = 0

    def json(self) -> bytes:
        """The fact as an `ExecutionEvent` in JSON, put together from the stored bytes.

        Header, payload and inputs are JSON objects already; splicing them costs a microsecond where parsing and
        validating a page of facts would cost a millisecond.
        """
        parts = [self.header[1:-1], b'"hash":"%s"' % self.hash.hex().encode()]
        if self.actor_user_id:
            parts.append(b'"actor_user_id":' + to_json(self.actor_user_id))
        field = b"outputs" if b'"ended_at"' in self.header else b"inputs"
        parts += _members(self.body, self.blob, self.size, field)
        parts += _members(self.inputs, self.inputs_blob, self.inputs_size, b"inputs")
        return b"{" + b",".join(parts) + b"}"


def _members(body: bytes | None, blob: str | None, size: int, field: bytes) -> list[bytes]:
    if blob is not None:
        return [b'"%s":{"blob":"%s","size":%d}' % (field, blob.encode(), size)]
    return [body[1:-1]] if body and body != b"{}" else []
