"""Entities as Firestore documents, both ways."""

import json
import zlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from casekeeper.acl import Grant, Role
from casekeeper.casefiles.casefile import Casefile, PublicRole, Status
from casekeeper.clock import from_us, to_us
from casekeeper.documents.document import Document, DocumentSummary, Upload
from casekeeper.identity.accounts import Account, StoredAccount
from casekeeper.identity.credentials import ApiKey, PutKey
from casekeeper.journal.events import Sealed
from casekeeper.journal.operations import Held, OpenedOperation, OpenOperation
from casekeeper.sessions.session import Head, SessionType, UnifiedSession, Visibility
from casekeeper.storage.firestore_values import SERVER_TIME, Fields
from casekeeper.storage.firestore_view import Tail

INLINE_BYTES = 256 * 1024
"""Larger bodies are kept in chunks: a document has at most 1 MiB."""
_CHUNK_BYTES = 900_000


def us(instant: datetime | None) -> int | None:
    """Microseconds of an instant that may be missing."""
    return None if instant is None else to_us(instant)


def instant(us_: int | None) -> datetime | None:
    """The instant of microseconds that may be missing."""
    return None if us_ is None else from_us(us_)


def pieces(data: bytes) -> Iterator[bytes]:
    """Something large, packed, in pieces that a document holds."""
    packed = zlib.compress(data, 1)
    for start in range(0, len(packed), _CHUNK_BYTES):
        yield packed[start : start + _CHUNK_BYTES]


def joined(parts: list[bytes]) -> bytes:
    """What `pieces` took apart."""
    return zlib.decompress(b"".join(parts))


def account_row(stored: StoredAccount) -> Fields:
    """An account's fields."""
    a = stored.account
    return {
        "user_id": a.user_id,
        "pseudonym": a.pseudonym,
        "display_name": a.display_name,
        "password_hash": stored.password_hash,
        "is_operator": a.is_operator,
        "is_active": a.is_active,
        "created_us": to_us(a.created_at),
    }


def account_of(row: Fields) -> StoredAccount:
    """The account in its fields."""
    account = Account(
        user_id=row["user_id"],
        pseudonym=row["pseudonym"],
        display_name=row["display_name"],
        is_operator=row["is_operator"],
        is_active=row["is_active"],
        created_at=from_us(row["created_us"]),
    )
    return StoredAccount(account, row["password_hash"])


def key_row(record: PutKey) -> Fields:
    """An API key's fields."""
    key = record.key
    return {
        "key_id": key.key_id,
        "user_id": key.user_id,
        "name": key.name,
        "digest": record.digest,
        "created_us": to_us(key.created_at),
        "expires_us": us(key.expires_at),
        "revoked_us": us(key.revoked_at),
    }


def key_of(row: Fields) -> ApiKey:
    """The API key in its fields."""
    return ApiKey(
        key_id=row["key_id"],
        user_id=row["user_id"],
        name=row["name"],
        created_at=from_us(row["created_us"]),
        expires_at=instant(row["expires_us"]),
        revoked_at=instant(row["revoked_us"]),
    )


def casefile_row(c: Casefile, before: Fields | None) -> Fields:
    """A casefile's fields; a tombstone stays one."""
    kept = before or {"deleted_us": None, "is_to_erase": False}
    return {
        "casefile_id": c.casefile_id,
        "title": c.title,
        "description": c.description,
        "tags": list(c.tags),
        "status": c.status.value,
        "public_role": c.public_role.value,
        "owner": c.owner,
        "version": c.version,
        "created_us": to_us(c.created_at),
        "updated_us": to_us(c.updated_at),
        "record_session_id": c.record_session_id,
        "deleted_us": kept["deleted_us"],
        "is_to_erase": kept["is_to_erase"],
    }


def casefile_of(row: Fields) -> Casefile:
    """The casefile in its fields."""
    return Casefile(
        casefile_id=row["casefile_id"],
        title=row["title"],
        description=row["description"],
        tags=row["tags"],
        status=Status(row["status"]),
        public_role=PublicRole(row["public_role"]),
        owner=row["owner"],
        version=row["version"],
        created_at=from_us(row["created_us"]),
        updated_at=from_us(row["updated_us"]),
        record_session_id=row["record_session_id"],
    )


def grant_row(g: Grant, created_us: int) -> Fields:
    """A grant's fields, with when its casefile was made."""
    return {
        "user_id": g.user_id,
        "casefile_id": g.casefile_id,
        "role": g.role.value,
        "expires_us": us(g.expires_at),
        "granted_by": g.granted_by,
        "granted_us": to_us(g.granted_at),
        "note": g.note,
        "created_us": created_us,
    }


def grant_of(row: Fields) -> Grant:
    """The grant in its fields."""
    return Grant(
        casefile_id=row["casefile_id"],
        user_id=row["user_id"],
        role=Role(row["role"]),
        expires_at=instant(row["expires_us"]),
        granted_by=row["granted_by"],
        granted_at=from_us(row["granted_us"]),
        note=row["note"],
    )


def is_live(grant: Fields, now_us: int) -> bool:
    """Whether a grant counts at that instant."""
    return grant["expires_us"] is None or grant["expires_us"] > now_us


def session_row(s: UnifiedSession) -> Fields:
    """A session's fields; where its chain stands is in its newest fact."""
    return {
        "session_id": s.session_id,
        "casefile_id": s.casefile_id,
        "user_id": s.user_id,
        "session_type": s.session_type.value,
        "visibility": s.visibility.value,
        "title": s.title,
        "auto": s.auto,
        "metadata": json.dumps(s.metadata).encode(),
        "created_us": to_us(s.created_at),
        "closed_us": None,
    }


def session_of(row: Fields, tail: Tail | None) -> UnifiedSession:
    """The session in its fields, with its newest fact."""
    return UnifiedSession(
        session_id=row["session_id"],
        casefile_id=row["casefile_id"],
        user_id=row["user_id"],
        session_type=SessionType(row["session_type"]),
        visibility=Visibility(row["visibility"]),
        title=row["title"],
        auto=row["auto"],
        active=row["closed_us"] is None,
        created_at=from_us(row["created_us"]),
        last_activity_at=from_us(tail.last_us if tail else row["created_us"]),
        closed_at=instant(row["closed_us"]),
        head=Head(tail.seq, tail.hash.hex()) if tail else None,
        metadata=json.loads(row["metadata"]),
    )


def open_row(row: OpenOperation, started: Sealed, claim: str | None) -> Fields:
    """An open operation's fields."""
    return {
        "event_id": row.event_id,
        "casefile_id": row.casefile_id,
        "session_id": row.session_id,
        "parent_event_id": row.parent_event_id,
        "root_event_id": row.root_event_id,
        "user_id": row.user_id,
        "actor": row.actor,
        "operation_type": row.operation_type,
        "operation_name": row.operation_name,
        "request_id": row.request_id,
        "owner": row.owner,
        "state": row.state,
        "started_us": to_us(row.started_at),
        "started_seq": started.seq,
        "inputs_commit": started.fact.payload.commit.hex(),
        "claim": claim,
        "stop": None,
        "attempt": row.attempt,
        "wake_us": us(row.wake_at),
        "tainted": row.is_tainted,
        "approved": row.is_approved,
        "held": row.held and row.held.to_text(),
    }


def opened_of(row: Fields) -> OpenedOperation:
    """The open operation in its fields."""
    names = ("event_id", "casefile_id", "session_id", "parent_event_id", "root_event_id", "user_id", "actor")
    names += ("operation_name", "request_id", "owner", "state")
    fields: dict[str, Any] = {name: row[name] for name in names}
    type_, started_at = row["operation_type"], from_us(row["started_us"])
    opened = OpenOperation(
        operation_type=type_,
        started_at=started_at,
        # One that an older version started has none of these.
        attempt=row.get("attempt", 1),
        wake_at=instant(row.get("wake_us")),
        is_tainted=row.get("tainted", False),
        is_approved=row.get("approved", False),
        held=Held.of_text(row.get("held")),
        **fields,
    )
    return OpenedOperation(opened, row["started_seq"], row["inputs_commit"], row.get("stop"))


def document_row(d: Document, raw: bytes | None) -> Fields:
    """A document's fields; its text and its bytes are in chunks."""
    summary = d.model_dump_json(exclude={"text"}).encode()
    return {
        "document_id": d.document_id,
        "casefile_id": d.casefile_id,
        "parent_id": d.parent_id,
        "kind": d.kind,
        "created_us": to_us(d.created_at),
        "deleted_us": None,
        "summary": summary,
        "text_chunks": len(list(pieces(d.text.encode("utf-8", "surrogatepass")))),
        "raw_chunks": None if raw is None else len(list(pieces(raw))),
        # By which the search index of another process catches up.
        "filed_at": SERVER_TIME,
    }


def tombstone_row(row: Fields, at: datetime) -> Fields:
    """What stays of a document: that it was here. Without `created_us` no list has it."""
    kept = {"document_id", "casefile_id", "kind", "size", "sha256", "created_at", "created_by", "event_id"}
    return {
        "document_id": row["document_id"],
        "casefile_id": row["casefile_id"],
        "deleted_us": to_us(at),
        "summary": summary_of(row).model_dump_json(include=kept).encode(),
        "filed_at": SERVER_TIME,
    }


def summary_of(row: Fields) -> DocumentSummary:
    """The document's summary in its fields."""
    return DocumentSummary.model_validate_json(row["summary"])


def document_of(row: Fields, text: bytes) -> Document:
    """The document in its fields and its text."""
    fields = json.loads(row["summary"])
    return Document(**fields, text=text.decode("utf-8", "surrogatepass"))


def upload_row(u: Upload) -> Fields:
    """An upload's fields."""
    return {
        "upload_id": u.upload_id,
        "casefile_id": u.casefile_id,
        "user_id": u.user_id,
        "filename": u.filename,
        "sha256": u.sha256,
        "size": u.size,
        "created_us": to_us(u.created_at),
    }


def upload_of(row: Fields) -> Upload:
    """The upload in its fields."""
    names = ("upload_id", "casefile_id", "user_id", "filename", "sha256", "size")
    return Upload(**{name: row[name] for name in names}, created_at=from_us(row["created_us"]))
