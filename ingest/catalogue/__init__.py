"""The catalogue of documents in SQL: their versions, states, approvals and the times at which they answer."""

from ingest.catalogue import records, rows
from ingest.catalogue.approvals import ApprovalDecision, Approvals, ChangedWindows
from ingest.catalogue.catalogue import Catalogue
from ingest.catalogue.listing import Listing, Order
from ingest.catalogue.plain_text import is_line, is_plain, plain
from ingest.catalogue.tables import JOBS, SCHEMA, VERSIONS
from ingest.catalogue.validity import known_to_index, midnight, replaced_by_unknown, starts_too_soon
from ingest.catalogue.versions import (
    Dates,
    DecisionRecord,
    DocumentSummary,
    IndexedVersion,
    IndexingResult,
    Job,
    JobState,
    Metadata,
    Received,
    Seen,
    Stage,
    State,
    Upload,
    Version,
    VersionKey,
    Window,
    WindowWritten,
)

__all__ = [
    "JOBS",
    "SCHEMA",
    "VERSIONS",
    "ApprovalDecision",
    "Approvals",
    "Catalogue",
    "ChangedWindows",
    "Dates",
    "DecisionRecord",
    "DocumentSummary",
    "IndexedVersion",
    "IndexingResult",
    "Job",
    "JobState",
    "Listing",
    "Metadata",
    "Order",
    "Received",
    "Seen",
    "Stage",
    "State",
    "Upload",
    "Version",
    "VersionKey",
    "Window",
    "WindowWritten",
    "is_line",
    "is_plain",
    "known_to_index",
    "midnight",
    "plain",
    "records",
    "replaced_by_unknown",
    "rows",
    "starts_too_soon",
]
