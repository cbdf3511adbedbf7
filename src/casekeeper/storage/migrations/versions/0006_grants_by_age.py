"""Grants are listed by their casefile's age and by user, so that a page of them costs the same however many there are."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("grants", sa.Column("created_us", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE grants SET created_us = coalesce("
        "(SELECT c.created_us FROM casefiles c WHERE c.casefile_id = grants.casefile_id), 0)"
    )
    op.drop_index("grants_casefile", table_name="grants")
    op.create_index("grants_casefile", "grants", ["casefile_id", "user_id"])
    op.create_index("grants_newest", "grants", ["user_id", "created_us", "casefile_id"])
