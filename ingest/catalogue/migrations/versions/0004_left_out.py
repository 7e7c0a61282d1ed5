"""The number of hidden pieces that a version's text leaves out, by kind."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("document_versions", sa.Column("left_out", sa.JSON()))
