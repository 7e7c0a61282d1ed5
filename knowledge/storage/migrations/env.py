"""What alembic runs for every owner's steps, inside the transaction that `knowledge.storage.migrate` has opened."""

from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"], version_table=given["version_table"])
with context.begin_transaction():
    context.run_migrations()
