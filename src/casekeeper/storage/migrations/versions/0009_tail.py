"""The facts of a casefile can be read in the order of their commits."""

from alembic import op

from casekeeper.storage.sql.schema import POSTGRES_TAIL, postgres_place

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("events_tail", "events", ["casefile_id", "rid"])
    if op.get_bind().dialect.name == "postgresql":
        # Existing facts keep their numbers, which are smaller than any made from a transaction's number.
        op.execute(postgres_place(0))
        for statement in POSTGRES_TAIL:
            op.execute(statement)
