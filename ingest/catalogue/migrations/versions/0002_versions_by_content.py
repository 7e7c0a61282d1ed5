"""Versions are looked for by their content, each time originals that nobody knows are looked for."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("ix_document_versions_sha256", "document_versions", ["sha256"])
