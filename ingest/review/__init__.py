"""What an approver is shown beside a version: screening findings and differences, computed one at a time."""

from ingest.review.cpu_limiter import REVIEW_SECONDS, CpuLimiter
from ingest.review.differences import DiffLine, Kind, differences, first, lines_of
from ingest.review.findings import PassageFinding, passage_findings

__all__ = [
    "REVIEW_SECONDS",
    "CpuLimiter",
    "DiffLine",
    "Kind",
    "PassageFinding",
    "differences",
    "first",
    "lines_of",
    "passage_findings",
]
