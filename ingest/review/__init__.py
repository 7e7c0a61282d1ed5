"""What an approver is shown beside a version: screening findings and differences, computed one at a time."""

from ingest.review.cpu_limiter import REVIEW_SECONDS, CpuLimiter
from ingest.review.differences import Kind, Line, differences, first, lines_of
from ingest.review.findings import Suspicion, suspicions

__all__ = [
    "REVIEW_SECONDS",
    "CpuLimiter",
    "Kind",
    "Line",
    "Suspicion",
    "differences",
    "first",
    "lines_of",
    "suspicions",
]
