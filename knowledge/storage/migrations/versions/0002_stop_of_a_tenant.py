"""The tenant that a stop is of, empty for one of all tenants; what an earlier release writes is of all."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("knowledge_stop_changes", sa.Column("tenant", sa.String(200), nullable=False, server_default=""))
