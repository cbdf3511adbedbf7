"""Schema migrations: which version this casekeeper needs, and how a database is brought to it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

NEWEST = "0009"
"""The newest migration; a store at it needs none."""


def upgrade(connection: "Connection", to: str = "head") -> None:
    """Bring the database behind a connection, which is in a transaction, to a schema."""
    # Alembic takes a quarter of a second to import, which only a migration should cost.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "casekeeper:storage/migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, to)
