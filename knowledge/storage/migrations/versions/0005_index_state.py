"""What SQL says of the passage index: one row, which `ingest` updates; an earlier release knows nothing of it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
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
