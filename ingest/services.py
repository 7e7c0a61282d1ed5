"""What the staff side may use, opened once by `wiring.py`."""

from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from pydantic import BaseModel, PositiveInt

from ingest.catalogue import Approvals, Catalogue
from ingest.jobs import JobBroker, JobClaims
from ingest.metrics import Metrics
from ingest.parsing import Chunker, Parser, Readers
from ingest.review import CpuLimiter
from ingest.uploads import Blobs, Uploads
from knowledge.identity import Authenticator
from knowledge.index import Index


class PipelineSettings(BaseModel, frozen=True):
    """How documents go through the pipeline; `zone` is where the bank's days begin.

    So many documents at once, each with so many passages in the embedder: most have few, and it works best on dozens.
    """

    zone: str = "Asia/Seoul"
    batch: PositiveInt = 64
    at_once: PositiveInt = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a step, a route or a probe may use; only the API needs an authenticator, `ingest load` no delivery.

    The `previewer` is a parser too: whoever looks at a page does not wait behind a file that is being read.
    `review_limiter` runs one comparing or screening of whole texts at a time.
    """

    settings: PipelineSettings
    authenticator: Authenticator | None
    blobs: Blobs
    catalogue: Catalogue
    chunker: Chunker
    decisions: Approvals
    delivery: JobBroker | None
    index: Index
    review_limiter: CpuLimiter
    metrics: Metrics
    parser: Readers
    previewer: Parser
    queue: JobClaims
    uploads: Uploads
    now: Callable[[], float]

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.settings.zone)
