"""Column types of all tables, and the schema beyond tables: triggers, functions, full-text search.

Each concept's tables are with what is written to them and read from them. Instants are whole microseconds since 1970;
indexes ascend only.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Text, text

metadata = MetaData()
"""The tables of those concepts that were imported; the stores import all of them."""


def string(name: str, *, null: bool = False, key: bool = False) -> "Column[str]":
    """A column of texts."""
    return Column(name, Text, nullable=null, primary_key=key)


def integer(name: str, *, null: bool = False, key: bool = False, default: str | None = None) -> "Column[int]":
    """A column of numbers up to 63 bits, which the database never draws by itself."""
    return Column(
        name, BigInteger, nullable=null, primary_key=key, autoincrement=False, server_default=default
    )


def binary(name: str, *, null: bool = False) -> "Column[bytes]":
    """A column of bytes."""
    return Column(name, LargeBinary, nullable=null)


def row_id() -> "Column[int]":
    """The number that the database gives a row."""
    # SQLite makes a rowid of an INTEGER key only; PostgreSQL gets its BIGINT.
    return Column("rid", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


def partial(name: str, where: str, *columns: str, unique: bool = False) -> Index:
    """An index of some rows."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


def partial_on_sqlite(name: str, where: str, *columns: str) -> Index:
    """An index of some rows on SQLite and of all on PostgreSQL."""
    return Index(name, *columns, sqlite_where=text(where))


SQLITE_TRIGGERS = (
    # The record is append-only: the database itself refuses anything else.
    """CREATE TRIGGER events_no_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
    """CREATE TRIGGER events_no_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
)
"""What the tables cannot say, for SQLite."""

SQLITE_SEARCH = (
    # `scope` is the casefile as one word, so that a search never walks other casefiles' postings, and the marks.
    """CREATE VIRTUAL TABLE document_search USING fts5(
    title, sender, recipients, cc, bcc, filenames, body, scope,
    content='documents', content_rowid='rid', tokenize='unicode61 remove_diacritics 2')""",
)
"""Full-text search, for SQLite."""

POSTGRES_TRIGGERS = (
    """CREATE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'events are append-only'; END $$""",
    """CREATE TRIGGER events_unchanged BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_append_only()""",
    "ALTER TABLE events ADD CONSTRAINT events_session FOREIGN KEY (session_id) REFERENCES sessions (session_id)",
)
"""What the tables cannot say, for PostgreSQL."""

POSTGRES_SEARCH = (
    """CREATE TABLE document_words (rid BIGINT PRIMARY KEY, words tsvector NOT NULL, title tsvector NOT NULL,
    sender tsvector NOT NULL, people tsvector NOT NULL, cc tsvector NOT NULL, bcc tsvector NOT NULL,
    filenames tsvector NOT NULL, marks tsvector NOT NULL)""",
    "CREATE INDEX document_words_words ON document_words USING gin (words)",
    "CREATE INDEX document_words_marks ON document_words USING gin (marks)",
)
"""Full-text search, for PostgreSQL."""

PLACE_BITS = 20
"""The lower bits of a fact's `rid` on PostgreSQL, which count the facts of a transaction."""


def postgres_place(base: int) -> str:
    """The function that makes a fact's `rid` from the number of its transaction and its own number within that.

    `base` is for servers that number transactions anew (`postgres.tail`).
    """
    return f"""CREATE OR REPLACE FUNCTION event_place(transaction BIGINT, n BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE
    AS $$ SELECT (transaction << {PLACE_BITS}) + n + {base} $$"""


POSTGRES_TAIL = (
    # For processes of older versions, which insert facts without a `rid`.
    f"""ALTER TABLE events ALTER COLUMN rid SET DEFAULT
    event_place(pg_current_xact_id()::text::bigint, nextval('events_rid_seq') & {2**PLACE_BITS - 1})""",
)
"""The order of commits, for PostgreSQL (docs/decisions/0019)."""
