"""The parts that the staff side uses, opened once by `ingest.wiring`."""

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
    """The bank's time zone, documents under way at once, and passages of one document embedded in one batch.

    Most documents have few passages, and the embedder works best on dozens: so many documents at once.
    """

    zone: str = Field("Asia/Seoul", description="the bank's time zone: when a document's dates begin and end")
    batch: PositiveInt = Field(64, description="passages: of one document, embedded in one batch")
    at_once: PositiveInt = Field(16, description="documents: under way at once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts that steps, routes and probes use; only the API needs `authenticator`.

    `previewer` draws pages for reviewers, who so do not wait behind a file that is being indexed. `review_limiter` runs
    one comparison or screening of whole texts at a time, `downloads` bounds the originals that are being downloaded.
    `now` returns Unix seconds.
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
        """Where the bank's days begin."""
        return ZoneInfo(self.settings.zone)
