"""An operation can be asked to stop by another process than the one that runs it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("open_operations", sa.Column("stop", sa.Text(), nullable=True))
