"""The review of a version before its approval: screening findings and differences, computed one at a time."""

from ingest.review.cpu_limiter import REVIEW_SECONDS, Check, CpuLimiter
from ingest.review.differences import DiffLine, Kind, differences, lines_of, truncated
from ingest.review.findings import FindingKind, PassageFinding, passage_findings

__all__ = [
    "REVIEW_SECONDS",
    "Check",
    "CpuLimiter",
    "DiffLine",
    "FindingKind",
    "Kind",
    "PassageFinding",
    "differences",
    "lines_of",
    "passage_findings",
    "truncated",
]
