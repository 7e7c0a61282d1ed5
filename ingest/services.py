"""The components of the staff side, opened once by `ingest.wiring`."""

from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from anyio import Semaphore
from pydantic import BaseModel, Field, PositiveInt

from edge.sign_in import SignIn
from ingest.catalogue import Approvals, Catalogue
from ingest.jobs import JobClaims
from ingest.metrics import Metrics
from ingest.parsing import Chunking, Parser, Readers
from ingest.review import CpuLimiter
from ingest.uploads import Blobs, Uploads
from knowledge.identity import Authenticator
from knowledge.index import Index
from telemetry.siem import Siem


class PipelineSettings(BaseModel, frozen=True):
    """The bank's time zone, the number of documents in progress, and the embedding batch size per document.

    Most documents have few passages, and the embedder is fastest with dozens, hence many documents at once.
    """

    zone: str = Field("Asia/Seoul", description="The dates of documents begin and end at midnight in this time zone.")
    batch: PositiveInt = Field(64, description="passages: This many passages of a document are embedded in one batch.")
    at_once: PositiveInt = Field(16, description="documents: This many documents are processed at once.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The components that pipeline steps, routes and probes use; only the API needs `authenticator`.

    `previewer` renders pages for reviewers without waiting for indexing. `review_limiter` runs one comparison or
    screening of whole texts at a time, `downloads` limits concurrent downloads of originals. `now` returns Unix
    seconds.
    """

    settings: PipelineSettings
    authenticator: Authenticator | None
    approvals: Approvals
    blobs: Blobs
    catalogue: Catalogue
    chunking: Chunking
    downloads: Semaphore
    index: Index
    job_claims: JobClaims
    metrics: Metrics
    now: Callable[[], float]
    parser: Readers
    previewer: Parser
    review_limiter: CpuLimiter
    siem: Siem
    sign_in: SignIn | None
    uploads: Uploads

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that determines when the bank's days begin."""
        return ZoneInfo(self.settings.zone)
