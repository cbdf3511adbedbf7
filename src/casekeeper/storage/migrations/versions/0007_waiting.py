"""Operations can wait: owned by nobody, until a time or a word, and taken up again by any process."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, type_, default in (
        ("attempt", sa.BigInteger(), "1"),
        ("wake_us", sa.BigInteger(), None),
        ("tainted", sa.BigInteger(), "0"),
        ("approved", sa.BigInteger(), "0"),
        ("held", sa.Text(), None),
    ):
        op.add_column(
            "open_operations", sa.Column(name, type_, nullable=default is None, server_default=default)
        )
    op.drop_index("open_operations_session", "open_operations")
    for name, where, *columns in (
        ("running", "owner <> ''", "session_id"),
        ("inside", "parent_event_id IS NOT NULL", "root_event_id"),
        ("due", "wake_us IS NOT NULL AND owner = ''", "wake_us"),
        ("waiting_in", "owner = ''", "casefile_id", "user_id"),
        ("waiting_of", "owner = ''", "user_id"),
        ("waiting_at", "owner = ''", "session_id"),
    ):
        op.create_index(
            f"open_operations_{name}",
            "open_operations",
            columns,
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
