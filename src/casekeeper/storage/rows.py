"""Mapping of entities to rows and back, the same in every store: which columns or fields there are and what they hold.

`…_row` makes a row of an entity, `…_of` an entity of the row's values in the order of the names. The values of a row are
None, bool, int, str and bytes; lists and dictionaries are JSON. A store may keep truth as 0 or 1 and JSON as text or
bytes (`sql.statements.encoded`), and give them back so.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from casekeeper.acl import Grant, Role
from casekeeper.acl_feed import Scope
from casekeeper.casefiles.casefile import Casefile, OpenRecordSession, PublicRole, Status
from casekeeper.clock import from_us, to_us
from casekeeper.documents.document import Upload
from casekeeper.identity.accounts import Account, StoredAccount
from casekeeper.identity.credentials import ApiKey, PutKey
from casekeeper.journal.events import Fact, Payload, Sealed
from casekeeper.journal.operations import Held, OpenedOperation, OpenOperation
from casekeeper.journal.things import Put, Thing, body_of, topic_of
from casekeeper.kinds import OperationType
from casekeeper.sessions.session import Head, SessionType, UnifiedSession, Visibility

Values = Sequence[Any]


def us(instant: datetime | None) -> int | None:
    """Microseconds of an instant that may be missing."""
    return None if instant is None else to_us(instant)


def instant(us_: int | None) -> datetime | None:
    """The instant of microseconds that may be missing."""
    return None if us_ is None else from_us(us_)


def picked(names: Sequence[str], row: Mapping[str, Any]) -> Values:
    """The values of these names; None for what an older version did not write."""
    return [row.get(name) for name in names]


def _names(words: str) -> Sequence[str]:
    return tuple(words.split())


def _parsed(stored: Any) -> Any:
    return json.loads(stored) if isinstance(stored, str | bytes) else stored


ACCOUNT = _names("user_id pseudonym display_name password_hash is_operator is_active created_us")


def account_row(stored: StoredAccount) -> dict[str, Any]:
    """An account with its password's hash."""
    account = stored.account
    return {
        "user_id": account.user_id,
        "pseudonym": account.pseudonym,
        "display_name": account.display_name,
        "password_hash": stored.password_hash,
        "is_operator": account.is_operator,
        "is_active": account.is_active,
        "created_us": to_us(account.created_at),
    }


def account_of(values: Values) -> StoredAccount:
    """What `account_row` made."""
    user_id, pseudonym, display_name, password_hash, is_operator, is_active, created_us = values
    account = Account(
        user_id=user_id,
        pseudonym=pseudonym,
        display_name=display_name,
        is_operator=bool(is_operator),
        is_active=bool(is_active),
        created_at=from_us(created_us),
    )
    return StoredAccount(account, password_hash)


KEY = _names("key_id user_id name digest created_us expires_us revoked_us")


def key_row(record: PutKey) -> dict[str, Any]:
    """An API key with its secret's digest."""
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


def key_of(values: Values) -> tuple[ApiKey, str]:
    """The key and the digest."""
    key_id, user_id, name, digest, created_us, expires_us, revoked_us = values
    key = ApiKey(
        key_id=key_id,
        user_id=user_id,
        name=name,
        created_at=from_us(created_us),
        expires_at=instant(expires_us),
        revoked_at=instant(revoked_us),
    )
    return key, digest


CASEFILE = _names(
    "casefile_id title description tags status public_role owner version created_us updated_us "
    "record_session_id"
)


def casefile_row(casefile: Casefile) -> dict[str, Any]:
    """A casefile; whether it is deleted is kept beside."""
    return {
        "casefile_id": casefile.casefile_id,
        "title": casefile.title,
        "description": casefile.description,
        "tags": list(casefile.tags),
        "status": casefile.status.value,
        "public_role": casefile.public_role.value,
        "owner": casefile.owner,
        "version": casefile.version,
        "created_us": to_us(casefile.created_at),
        "updated_us": to_us(casefile.updated_at),
        "record_session_id": casefile.record_session_id,
    }


def casefile_of(values: Values) -> Casefile:
    """What `casefile_row` made."""
    casefile_id, title, description, tags, status, public_role, owner, version, *more = values
    created_us, updated_us, record_session_id = more
    return Casefile(
        casefile_id=casefile_id,
        title=title,
        description=description,
        tags=_parsed(tags),
        status=Status(status),
        public_role=PublicRole(public_role),
        owner=owner,
        version=version,
        created_at=from_us(created_us),
        updated_at=from_us(updated_us),
        record_session_id=record_session_id,
    )


def tags_of(stored: Any) -> frozenset[str]:
    """A casefile's tags alone."""
    return frozenset(_parsed(stored))


GRANT = _names("user_id casefile_id role expires_us granted_by granted_us note")


def grant_row(grant: Grant, created_us: int) -> dict[str, Any]:
    """A grant, and when its casefile was made, by which a user's casefiles are listed."""
    return {
        "user_id": grant.user_id,
        "casefile_id": grant.casefile_id,
        "role": grant.role.value,
        "expires_us": us(grant.expires_at),
        "granted_by": grant.granted_by,
        "granted_us": to_us(grant.granted_at),
        "note": grant.note,
        "created_us": created_us,
    }


def grant_of(values: Values) -> Grant:
    """The grant of `grant_row`."""
    user_id, casefile_id, role, expires_us, granted_by, granted_us, note = values
    return Grant(
        casefile_id=casefile_id,
        user_id=user_id,
        role=Role(role),
        expires_at=instant(expires_us),
        granted_by=granted_by,
        granted_at=from_us(granted_us),
        note=note,
    )


def is_live(expires_us: int | None, now_us: int) -> bool:
    """Whether a grant counts at that instant."""
    return expires_us is None or expires_us > now_us


def scope_of(role: str, expires_us: int | None) -> Scope:
    """A grant as a token carries it."""
    # Whole seconds, rounded down: a token never outlives the grant.
    return Scope(Role(role), None if expires_us is None else expires_us // 1_000_000)


SESSION = _names(
    "session_id casefile_id user_id session_type visibility title auto metadata created_us closed_us"
)


def session_row(session: UnifiedSession) -> dict[str, Any]:
    """A session; where its chain stands is the store's business."""
    return {
        "session_id": session.session_id,
        "casefile_id": session.casefile_id,
        "user_id": session.user_id,
        "session_type": session.session_type.value,
        "visibility": session.visibility.value,
        "title": session.title,
        "auto": session.auto,
        "metadata": session.metadata,
        "created_us": to_us(session.created_at),
        "closed_us": us(session.closed_at),
    }


def record_session(record: OpenRecordSession) -> UnifiedSession:
    """The session that holds a casefile's own record."""
    return UnifiedSession(
        session_id=record.session_id,
        casefile_id=record.casefile_id,
        user_id=record.user_id,
        session_type=SessionType.RECORD,
        visibility=Visibility.PRIVATE,
        created_at=record.at,
        last_activity_at=record.at,
    )


def session_of(values: Values) -> UnifiedSession:
    """The session of `session_row` and where its chain stands: the newest fact's time, number (0: none) and hash."""
    session_id, casefile_id, user_id, session_type, visibility, title, auto, metadata, *more = values
    created_us, closed_us, last_us, head_seq, head_hash = more
    return UnifiedSession(
        session_id=session_id,
        casefile_id=casefile_id,
        user_id=user_id,
        session_type=SessionType(session_type),
        visibility=Visibility(visibility),
        title=title,
        auto=bool(auto),
        active=closed_us is None,
        created_at=from_us(created_us),
        last_activity_at=from_us(last_us),
        closed_at=instant(closed_us),
        head=Head(head_seq, head_hash.hex()) if head_seq else None,
        metadata=_parsed(metadata),
    )


OPENED = _names(
    "event_id casefile_id session_id parent_event_id root_event_id user_id actor operation_type "
    "operation_name request_id owner state started_us started_seq inputs_commit stop attempt wake_us "
    "tainted approved held"
)


def opened_row(operation: OpenOperation, started: Sealed) -> dict[str, Any]:
    """An operation that has started, with where its inputs are."""
    return {
        "event_id": operation.event_id,
        "casefile_id": operation.casefile_id,
        "session_id": operation.session_id,
        "parent_event_id": operation.parent_event_id,
        "root_event_id": operation.root_event_id,
        "user_id": operation.user_id,
        "actor": operation.actor,
        "operation_type": operation.operation_type,
        "operation_name": operation.operation_name,
        "request_id": operation.request_id,
        "owner": operation.owner,
        "state": operation.state,
        "started_us": to_us(operation.started_at),
        "started_seq": started.seq,
        "inputs_commit": started.fact.payload.commit.hex(),
        "stop": None,
        "attempt": operation.attempt,
        "wake_us": us(operation.wake_at),
        "tainted": operation.is_tainted,
        "approved": operation.is_approved,
        "held": operation.held and operation.held.to_text(),
    }


def opened_of(values: Values) -> OpenedOperation:
    """What `opened_row` made, perhaps in an older version."""
    event_id, casefile_id, session_id, parent_event_id, root_event_id, user_id, actor, type_, *more = values
    name, request_id, owner, state, started_us, started_seq, inputs_commit, stop, *waiting = more
    attempt, wake_us, tainted, approved, held = waiting
    operation = OpenOperation(
        event_id=event_id,
        casefile_id=casefile_id,
        session_id=session_id,
        parent_event_id=parent_event_id,
        root_event_id=root_event_id,
        user_id=user_id,
        actor=actor,
        operation_type=type_,
        operation_name=name,
        request_id=request_id,
        owner=owner,
        state=state,
        started_at=from_us(started_us),
        attempt=attempt or 1,
        wake_at=instant(wake_us),
        is_tainted=bool(tainted),
        is_approved=bool(approved),
        held=Held.of_text(held),
    )
    return OpenedOperation(operation, started_seq, inputs_commit, stop)


def event_row(fact: Fact, seq: int, at_us: int, header: bytes, hash_: bytes) -> dict[str, Any]:
    """A fact without its payload."""
    return {
        "session_id": fact.session_id,
        "seq": seq,
        "casefile_id": fact.casefile_id,
        "event_id": fact.event_id,
        "parent_event_id": fact.parent_event_id,
        "kind": fact.kind.value,
        "operation_type": fact.operation_type,
        "operation_name": fact.operation_name,
        "actor": fact.actor,
        "request_id": fact.request_id,
        "at_us": at_us,
        "started_seq": fact.started_seq,
        "header": header,
        "commitment": fact.payload.commit,
        "hash": hash_,
    }


def payload_row(payload: Payload) -> dict[str, Any]:
    """A fact's payload."""
    return {"salt": payload.salt, "body": payload.body, "blob": payload.blob, "size": payload.size}


def totals_of(fact: Fact, type_: OperationType) -> tuple[tuple[str, str, str], tuple[int, int, int, int]]:
    """What a fact that ends an operation adds to its session's totals.

    By type, name and kind: one operation, the milliseconds it took at top level, tokens, and cost in millionths.
    """
    usage = fact.usage or {}
    busy_ms = fact.busy_ms if fact.parent_event_id is None else 0
    tokens = int(usage.get("input_tokens", 0)) + int(usage.get("output_tokens", 0))
    cost_micros = int(Decimal(str(usage.get("cost", 0))) * 1_000_000)
    return (type_, fact.operation_name or "", fact.kind.value), (1, busy_ms, tokens, cost_micros)


UPLOAD = _names("upload_id casefile_id user_id filename sha256 size created_us")


def upload_row(upload: Upload) -> dict[str, Any]:
    """An upload that waits."""
    return {
        "upload_id": upload.upload_id,
        "casefile_id": upload.casefile_id,
        "user_id": upload.user_id,
        "filename": upload.filename,
        "sha256": upload.sha256,
        "size": upload.size,
        "created_us": to_us(upload.created_at),
    }


def upload_of(values: Values) -> Upload:
    """What `upload_row` made."""
    *named, created_us = values
    return Upload(*named, created_at=from_us(created_us))


THING = _names("kind id about state version due_us created_us updated_us body")


def thing_row(record: Put) -> dict[str, Any]:
    """A small thing."""
    thing = record.thing
    return {
        "kind": thing.kind,
        "id": thing.id,
        "about": thing.about.key,
        "state": thing.state,
        "version": thing.version,
        "due_us": us(thing.due_at),
        "created_us": to_us(thing.created_at),
        "updated_us": to_us(thing.updated_at),
        "body": record.body,
    }


def thing_of(values: Values) -> Thing:
    """What `thing_row` made."""
    kind, id_, about, state, version, due_us, created_us, updated_us, body = values
    return Thing(
        kind=kind,
        id=id_,
        about=topic_of(about),
        state=state,
        version=version,
        due_at=instant(due_us),
        created_at=from_us(created_us),
        updated_at=from_us(updated_us),
        body=body_of(body),
    )
