"""Creates the tables of withdrawals, stop changes, service keys, and the last comparison of the index with SQL."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "knowledge_withdrawals",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("tenant", sa.String(200), primary_key=True),
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("reason", sa.String(400), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "knowledge_stop_changes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("changed_by", sa.String(310), nullable=False),
        sa.Column("reason", sa.String(400), nullable=False),
        sa.Column("tenant", sa.String(200), nullable=False, server_default=""),
    )
    op.create_table(
        "knowledge_service_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(200), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("roles", sa.String(200), nullable=False),
        sa.Column("made_by", sa.String(310), nullable=False),
        sa.Column("made_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("revoked_by", sa.String(310), nullable=True),
        sa.Column("revoked_at", sa.Double, nullable=True),
    )
    state = op.create_table(
        "knowledge_index_state",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("visible_passages", sa.Integer, nullable=False),
        sa.Column("missing_passages", sa.Integer, nullable=False),
        sa.Column("missing_versions", sa.Integer, nullable=False),
        sa.Column("compared_at", sa.Double, nullable=False),
    )
    op.bulk_insert(
        state, [{"id": 1, "visible_passages": 0, "missing_passages": 0, "missing_versions": 0, "compared_at": 0.0}]
    )
