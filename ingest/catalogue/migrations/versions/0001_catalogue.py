"""Documents, versions, jobs, decisions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("tenant", sa.String(100), primary_key=True),
        sa.Column("document_id", sa.String(100), primary_key=True),
        sa.Column("latest", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    _document_versions()
    op.create_table(
        "document_contents",
        sa.Column("tenant", sa.String(100), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("document_id", sa.String(100), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    _ingest_jobs()
    op.create_table(
        "document_decisions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("document_id", sa.String(100), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("decided_by", sa.String(200), nullable=False),
        sa.Column("decided_at", sa.Double, nullable=False),
        sa.Column("detail", sa.Text),
        sa.Column("visible_from", sa.Double),
        sa.Column("visible_until", sa.Double),
    )


def _document_versions() -> None:
    op.create_table(
        "document_versions",
        sa.Column("tenant", sa.String(100), primary_key=True),
        sa.Column("document_id", sa.String(100), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("file_name", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("product", sa.Text),
        sa.Column("link", sa.Text),
        sa.Column("language", sa.String(8)),
        sa.Column("readers", sa.JSON, nullable=False),
        sa.Column("effective_from", sa.Date),
        sa.Column("effective_until", sa.Date),
        sa.Column("format", sa.String(32)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64)),
        sa.Column("detail", sa.Text),
        sa.Column("passages", sa.Integer, nullable=False),
        sa.Column("uploaded_by", sa.String(200), nullable=False),
        sa.Column("uploaded_at", sa.Double, nullable=False),
        sa.Column("approved_by", sa.String(200)),
        sa.Column("approved_at", sa.Double),
        sa.Column("visible_from", sa.Double),
        sa.Column("visible_until", sa.Double),
        sa.Column("window_written", sa.Integer, nullable=False),
        sa.Column("left_out", sa.JSON()),
        sa.ForeignKeyConstraint(["tenant", "document_id"], ["documents.tenant", "documents.document_id"]),
    )
    op.create_index("ix_document_versions_state", "document_versions", ["state"])
    op.create_index("ix_document_versions_sha256", "document_versions", ["sha256"])


def _ingest_jobs() -> None:
    op.create_table(
        "ingest_jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("document_id", sa.String(100), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("claimed_by", sa.String(200)),
        sa.Column("claimed_until", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.UniqueConstraint("tenant", "document_id", "version"),
    )
    op.create_index("ingest_jobs_waiting", "ingest_jobs", ["state", "created_at"])
