"""Runs the migrations. Alembic takes a quarter of a second to import, which only a migration should cost."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade(connection: Connection, to: str = "head") -> None:
    """Bring the database behind a connection, which is in a transaction, to a schema."""
    config = Config()
    config.set_main_option("script_location", "casekeeper:storage/migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, to)
