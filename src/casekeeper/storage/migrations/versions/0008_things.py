"""A shelf for small things of any kind, each about a casefile or an account, with a state, a version and a due time."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "things",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("about", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("due_us", sa.BigInteger(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "id"),
    )
    op.create_index("things_newest", "things", ["about", "kind", "created_us", "id"])
    op.create_index("things_state", "things", ["about", "kind", "state", "created_us", "id"])
    due = sa.text("due_us IS NOT NULL")
    for name, columns in (("things_due", ["due_us", "id"]), ("things_due_of_kind", ["kind", "due_us", "id"])):
        op.create_index(name, "things", columns, sqlite_where=due, postgresql_where=due)
