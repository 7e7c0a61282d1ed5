"""An author of a stop may be the longest tenant and subject; an earlier release goes on as before."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("knowledge_stop_changes") as table:  # SQLite knows no other way
        table.alter_column("changed_by", type_=sa.String(310), existing_type=sa.String(200), existing_nullable=False)
