"""Documents know their copies, labels, attachments and conversation, and are found by them."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from casekeeper.documents.exact_terms import HAS, ID, KIND, LABEL, THREAD, exact_term, is_users_label
from casekeeper.storage.sql.schema import POSTGRES_SEARCH, SQLITE_SEARCH

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        op.execute("DROP TABLE document_search")
    op.drop_index("documents_newest", "documents")
    op.rename_table("documents", "documents_before")
    op.create_table(
        "documents",
        sa.Column(
            "rid", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("document_id", sa.Text(), nullable=False),
        sa.Column("casefile_id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("recipients", sa.Text(), nullable=False),
        sa.Column("cc", sa.Text(), nullable=False),
        sa.Column("bcc", sa.Text(), nullable=False),
        sa.Column("sent_us", sa.BigInteger(), nullable=True),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("filenames", sa.Text(), nullable=False),
        sa.Column("thread_id", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("refs", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("deleted_us", sa.BigInteger(), nullable=True),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rid"),
        sa.UniqueConstraint("document_id"),
    )
    _copy(connection)
    op.drop_table("documents_before")
    op.create_index(
        "documents_bytes",
        "documents",
        ["casefile_id", "sha256"],
        unique=True,
        sqlite_where=sa.text("deleted_us IS NULL"),
        postgresql_where=sa.text("deleted_us IS NULL"),
    )
    op.create_index(
        "documents_newest", "documents", ["casefile_id", "created_us", "document_id"], unique=False
    )
    if is_sqlite:
        for statement in SQLITE_SEARCH:
            op.execute(statement)
        op.execute("INSERT INTO document_search(document_search) VALUES ('rebuild')")
    else:
        for statement in POSTGRES_SEARCH:
            op.execute(statement)


def _copy(connection: sa.Connection) -> None:
    before = connection.execute(sa.text("SELECT * FROM documents_before ORDER BY rid"))
    for rows in before.mappings().partitions(500):
        moved = [_moved(dict(row)) for row in rows]
        names = list(moved[0])
        values = ", ".join(f":{name}" for name in names)
        # The names are columns of ours.
        add = f"INSERT INTO documents ({', '.join(names)}) VALUES ({values})"  # noqa: S608
        connection.execute(sa.text(add), moved)


def _moved(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the first schema, which kept in its metadata what columns hold now."""
    metadata = json.loads(row["metadata"])
    cc = metadata.pop("cc", [])
    labels = metadata.pop("labels", [])
    filenames = metadata.pop("attachments", [])
    recipients = row["recipients"].split("\n")
    ids = {name: metadata.pop(name, None) for name in ("thread_id", "message_id", "problem")}
    marks = [exact_term(KIND, row["kind"]), *(exact_term(LABEL, label) for label in labels)]
    marks += [exact_term(HAS, "userlabels")] if any(is_users_label(label) for label in labels) else []
    marks += [exact_term(HAS, "attachment")] if filenames else []
    marks += [
        exact_term(kind, ids[name]) for kind, name in ((ID, "message_id"), (THREAD, "thread_id")) if ids[name]
    ]
    return {
        **row,
        **ids,
        "recipients": "\n".join(recipients[: len(recipients) - len(cc)]),
        "cc": "\n".join(cc),
        "bcc": "",
        "labels": "\n".join(labels),
        "filenames": "\n".join(filenames),
        "refs": "",
        "scope": " ".join((row["scope"], *dict.fromkeys(marks))),
        "metadata": json.dumps(metadata),
    }


def downgrade() -> None:
    raise NotImplementedError("a store goes forward only; restore a backup instead")
