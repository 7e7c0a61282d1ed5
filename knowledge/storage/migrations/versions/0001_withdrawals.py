"""The withdrawals and the log of stops. (`if_not_exists`: the tables existed before their migrations.)"""

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
        if_not_exists=True,
    )
    op.create_table(
        "knowledge_stop_changes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("changed_by", sa.String(200), nullable=False),
        sa.Column("reason", sa.String(400), nullable=False),
        if_not_exists=True,
    )
