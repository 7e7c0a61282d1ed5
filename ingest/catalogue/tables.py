"""The catalogue's tables (SQLite and PostgreSQL). Instants are Unix seconds, as in the index; days are dates."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Date,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from knowledge.storage import Schema

METADATA = MetaData()
SCHEMA = Schema(owner="ingest", package="ingest.catalogue", tables=METADATA)

DOCUMENTS = Table(
    "documents",
    METADATA,
    Column("tenant", String(100), primary_key=True),
    Column("document_id", String(100), primary_key=True),
    Column("latest", Integer, nullable=False),
    Column("updated_at", Double, nullable=False),
)

VERSIONS = Table(
    "document_versions",
    METADATA,
    Column("tenant", String(100), primary_key=True),
    Column("document_id", String(100), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("file_name", Text, nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("title", Text),
    Column("product", Text),
    Column("link", Text),
    Column("language", String(8)),
    Column("readers", JSON, nullable=False),
    Column("effective_from", Date),
    Column("effective_until", Date),
    Column("format", String(32)),
    Column("state", String(16), nullable=False, index=True),
    Column("reason", String(64)),
    Column("detail", Text),
    Column("passages", Integer, nullable=False, default=0),
    Column("left_out", JSON),
    Column("uploaded_by", String(200), nullable=False),
    Column("uploaded_at", Double, nullable=False),
    Column("approved_by", String(200)),
    Column("approved_at", Double),
    Column("visible_from", Double),
    Column("visible_until", Double),
    # A `WindowWritten`, because the index is written after the catalogue, and a crash may come in between.
    Column("window_written", Integer, nullable=False, default=1),
    ForeignKeyConstraint(["tenant", "document_id"], ["documents.tenant", "documents.document_id"]),
)

CONTENTS = Table(
    # One row per content of a tenant; its primary key makes simultaneous uploads of the same bytes one version.
    "document_contents",
    METADATA,
    Column("tenant", String(100), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("document_id", String(100), nullable=False),
    Column("version", Integer, nullable=False),
)

JOBS = Table(
    "ingest_jobs",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(100), nullable=False),
    Column("document_id", String(100), nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("claimed_by", String(200)),
    Column("claimed_until", Double, nullable=False, default=0.0),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    UniqueConstraint("tenant", "document_id", "version"),
    Index("ingest_jobs_waiting", "state", "created_at"),
)

DECISIONS = Table(
    # The decisions, which are never changed or deleted. `detail` is the reason, or the new title or days.
    "document_decisions",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("tenant", String(100), nullable=False),
    Column("document_id", String(100), nullable=False),
    Column("version", Integer, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("decided_by", String(200), nullable=False),
    Column("decided_at", Double, nullable=False),
    Column("detail", Text),
    Column("visible_from", Double),
    Column("visible_until", Double),
)
