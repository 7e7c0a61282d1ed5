"""When a job began its stage, by which the seconds that are left are told; an earlier release does not know it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("ingest_jobs", sa.Column("stage_began_at", sa.Double()))
