"""The catalogue of documents in SQL: their versions, states, approvals and the times at which they answer."""

from ingest.catalogue import records, rows
from ingest.catalogue.approvals import ApprovalDecision, Approvals, ChangedWindows
from ingest.catalogue.catalogue import Catalogue
from ingest.catalogue.tables import DECISIONS, JOBS, SCHEMA, VERSIONS
from ingest.catalogue.validity import is_late, midnight
from ingest.catalogue.versions import (
    Dates,
    DocumentSummary,
    Indexed,
    IndexTold,
    Job,
    JobState,
    Metadata,
    Received,
    Stage,
    State,
    Upload,
    Version,
    VersionKey,
    Window,
)

__all__ = [
    "DECISIONS",
    "JOBS",
    "SCHEMA",
    "VERSIONS",
    "ApprovalDecision",
    "Approvals",
    "Catalogue",
    "ChangedWindows",
    "Dates",
    "DocumentSummary",
    "IndexTold",
    "Indexed",
    "Job",
    "JobState",
    "Metadata",
    "Received",
    "Stage",
    "State",
    "Upload",
    "Version",
    "VersionKey",
    "Window",
    "is_late",
    "midnight",
    "records",
    "rows",
]
