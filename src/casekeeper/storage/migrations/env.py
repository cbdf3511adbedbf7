"""Alembic's entry: runs the migrations on the connection that it is given."""

from alembic import context

from casekeeper.storage.sql.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
