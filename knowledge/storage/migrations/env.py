"""Alembic's environment for every owner's migrations, run in the transaction that `knowledge.storage` opened."""

from alembic import context

attributes = context.config.attributes
context.configure(connection=attributes["connection"], version_table=attributes["version_table"])
with context.begin_transaction():
    context.run_migrations()
