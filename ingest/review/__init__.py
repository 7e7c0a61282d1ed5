"""The review of a version before approval: screening findings and changes, computed one at a time."""

from ingest.review.changes import Change, changes
from ingest.review.cpu_limiter import REVIEW_SECONDS, CpuLimiter
from ingest.review.findings import PassageFinding, passage_findings

__all__ = ["REVIEW_SECONDS", "Change", "CpuLimiter", "PassageFinding", "changes", "passage_findings"]
