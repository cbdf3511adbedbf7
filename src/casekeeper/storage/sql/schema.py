"""The tables, shared by the SQL stores. Instants are whole microseconds since 1970; indexes ascend only.

Full-text search and the triggers that keep the record append-only are written per database, as DDL.
"""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text

metadata = MetaData()


def _text(name: str, *, null: bool = False, key: bool = False) -> "Column[str]":
    return Column(name, Text, nullable=null, primary_key=key)


def _number(name: str, *, null: bool = False, key: bool = False) -> "Column[int]":
    return Column(name, BigInteger, nullable=null, primary_key=key)


def _bytes(name: str, *, null: bool = False) -> "Column[bytes]":
    return Column(name, LargeBinary, nullable=null)


def _partial(name: str, where: str, *columns: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


def _row_id() -> "Column[int]":
    # SQLite makes a rowid of an INTEGER key only; PostgreSQL gets its BIGINT.
    return Column("rid", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


accounts = Table(
    "accounts",
    metadata,
    _text("user_id", key=True),
    Column("pseudonym", Text, nullable=False, unique=True),
    _text("display_name"),
    _text("password_hash", null=True),
    _number("is_operator"),
    _number("is_active"),
    _number("created_us"),
)

api_keys = Table(
    "api_keys",
    metadata,
    _text("key_id", key=True),
    _text("user_id"),
    _text("name"),
    _text("digest"),
    _number("created_us"),
    _number("expires_us", null=True),
    _number("revoked_us", null=True),
    Index("api_keys_user", "user_id", "created_us"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    _text("digest", key=True),
    _text("family"),
    _text("user_id"),
    _number("expires_us"),
    _number("used_us", null=True),
    Index("refresh_tokens_family", "family"),
    Index("refresh_tokens_user", "user_id"),
    Index("refresh_tokens_expires", "expires_us"),
)

acl_head = Table("acl_head", metadata, _number("id", key=True), _text("epoch"), _number("number"))

acl_feed = Table(
    "acl_feed",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    _text("casefile_id"),
    _text("user_id"),
    _text("kind"),
    _number("at_us"),
    Index("acl_feed_pair", "user_id", "casefile_id", "number"),
)

casefiles = Table(
    "casefiles",
    metadata,
    _text("casefile_id", key=True),
    _text("title"),
    _text("description"),
    _text("tags"),
    _text("status"),
    _text("public_role"),
    _text("owner"),
    _number("version"),
    _number("created_us"),
    _number("updated_us"),
    _text("record_session_id"),
    _number("deleted_us", null=True),
    _number("erased_us", null=True),
    Index(
        "casefiles_to_erase", "deleted_us", sqlite_where=text("deleted_us IS NOT NULL AND erased_us IS NULL")
    ),
)

grants = Table(
    "grants",
    metadata,
    _text("user_id", key=True),
    _text("casefile_id", key=True),
    _text("role"),
    _number("expires_us", null=True),
    _text("granted_by"),
    _number("granted_us"),
    _text("note", null=True),
    # The casefile's, by which a user's casefiles are listed.
    Column("created_us", BigInteger, nullable=False, server_default="0"),
    sa.CheckConstraint("role IN ('viewer', 'editor', 'admin', 'owner')", name="grants_role"),
    Index("grants_casefile", "casefile_id", "user_id"),
    Index("grants_newest", "user_id", "created_us", "casefile_id"),
    Index("grants_expires", "expires_us", sqlite_where=text("expires_us IS NOT NULL")),
)

sessions = Table(
    "sessions",
    metadata,
    _text("session_id", key=True),
    _text("casefile_id"),
    _text("user_id"),
    _text("session_type"),
    _text("visibility"),
    _text("title", null=True),
    _number("auto"),
    _text("metadata"),
    _number("created_us"),
    _number("last_us"),
    _number("closed_us", null=True),
    _number("head_seq"),
    _bytes("head_hash"),
    Index("sessions_casefile", "casefile_id", "created_us", "session_id"),
    Index("sessions_auto", "user_id", "casefile_id", sqlite_where=text("auto = 1 AND closed_us IS NULL")),
)

session_totals = Table(
    "session_totals",
    metadata,
    _text("session_id", key=True),
    _text("operation_type", key=True),
    _text("operation_name", key=True),
    _text("kind", key=True),
    _number("count"),
    _number("busy_ms"),
    _number("tokens"),
    _number("cost_micros"),
)

events = Table(
    "events",
    metadata,
    _row_id(),
    _text("session_id"),
    _number("seq"),
    _text("casefile_id"),
    _text("event_id"),
    _text("parent_event_id", null=True),
    _text("kind"),
    _text("operation_type", null=True),
    _text("operation_name", null=True),
    _text("actor"),
    _text("request_id", null=True),
    _number("at_us"),
    _number("started_seq", null=True),
    _bytes("header"),
    _bytes("commitment"),
    _bytes("hash"),
    sa.CheckConstraint("seq >= 1", name="events_seq"),
    sa.UniqueConstraint("session_id", "seq", name="events_place"),
    Index("events_event", "event_id"),
    Index("events_parent", "parent_event_id", sqlite_where=text("parent_event_id IS NOT NULL")),
    Index("events_tail", "casefile_id", "rid"),
    Index("events_time", "casefile_id", "at_us"),
    Index("events_name", "casefile_id", "operation_name", "operation_type", "at_us"),
    Index("events_kind", "casefile_id", "kind", "at_us"),
    Index("events_actor", "actor", "at_us"),
)

payloads = Table(
    "payloads",
    metadata,
    _text("session_id", key=True),
    _number("seq", key=True),
    _bytes("salt"),
    _bytes("body", null=True),
    _text("blob", null=True),
    _number("size"),
)

open_operations = Table(
    "open_operations",
    metadata,
    _text("event_id", key=True),
    _text("casefile_id"),
    _text("session_id"),
    _text("parent_event_id", null=True),
    _text("root_event_id"),
    _text("user_id"),
    _text("actor"),
    _text("operation_type"),
    _text("operation_name"),
    _text("request_id", null=True),
    _text("owner"),
    _text("state"),
    _number("started_us"),
    _number("heartbeat_us"),
    _number("started_seq"),
    _text("inputs_commit"),
    _text("stop", null=True),
    Column("attempt", BigInteger, nullable=False, server_default="1"),
    _number("wake_us", null=True),
    Column("tainted", BigInteger, nullable=False, server_default="0"),
    Column("approved", BigInteger, nullable=False, server_default="0"),
    _text("held", null=True),
    Index("open_operations_session", "session_id"),
    # What runs is few however many wait, and what waits costs the others nothing.
    _partial("open_operations_running", "owner <> ''", "owner"),
    _partial("open_operations_inside", "parent_event_id IS NOT NULL", "root_event_id"),
    _partial("open_operations_due", "wake_us IS NOT NULL AND owner = ''", "wake_us"),
    _partial("open_operations_waiting_in", "owner = ''", "casefile_id", "user_id"),
    _partial("open_operations_waiting_of", "owner = ''", "user_id"),
)

requests = Table(
    "requests",
    metadata,
    _text("key", key=True),
    _text("fingerprint"),
    _text("made"),
    _number("expires_us", null=True),
    Index("requests_made", "made", sqlite_where=text("expires_us IS NULL")),
    Index("requests_expires", "expires_us", sqlite_where=text("expires_us IS NOT NULL")),
)

conversations = Table(
    "conversations", metadata, _text("session_id", key=True), _text("event_id"), _text("blob")
)

documents = Table(
    "documents",
    metadata,
    _row_id(),
    Column("document_id", Text, nullable=False, unique=True),
    _text("casefile_id"),
    _text("parent_id", null=True),
    _text("kind"),
    _text("title"),
    _text("sender"),
    _text("recipients"),
    _text("cc"),
    _text("bcc"),
    _number("sent_us", null=True),
    _text("labels"),
    _text("filenames"),
    _text("thread_id", null=True),
    _text("message_id", null=True),
    _text("refs"),
    _text("problem", null=True),
    _number("size"),
    _text("sha256"),
    _text("source"),
    _text("metadata"),
    _number("created_us"),
    _text("created_by"),
    _text("event_id"),
    _number("deleted_us", null=True),
    _text("scope"),
    # Last, so that nothing else is read by walking past a long text.
    _text("body"),
    # What was deleted may be brought in again.
    Index(
        "documents_bytes",
        "casefile_id",
        "sha256",
        unique=True,
        sqlite_where=text("deleted_us IS NULL"),
        postgresql_where=text("deleted_us IS NULL"),
    ),
    Index("documents_newest", "casefile_id", "created_us", "document_id"),
    Index(
        "documents_attached",
        "casefile_id",
        "parent_id",
        sqlite_where=text("parent_id IS NOT NULL"),
        postgresql_where=text("parent_id IS NOT NULL"),
    ),
)

document_raw = Table("document_raw", metadata, _text("document_id", key=True), _bytes("data"))

uploads = Table(
    "uploads",
    metadata,
    _text("upload_id", key=True),
    _text("casefile_id"),
    _text("user_id"),
    _text("filename"),
    _text("sha256"),
    _number("size"),
    _number("created_us"),
    Index("uploads_created", "created_us"),
)
