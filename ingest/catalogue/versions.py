"""The catalogue's values: documents, their versions with metadata and state, and the jobs that index them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from enum import IntEnum, StrEnum
from hashlib import sha256

from knowledge.access import EVERY_CUSTOMER
from knowledge.passage import Language


class State(StrEnum):
    """The state of a version: `indexed` is a draft; `active` and `expired` are derived from the time, never stored."""

    RECEIVED = "received"
    INDEXED = "indexed"
    APPROVED = "approved"
    ACTIVE = "active"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


class JobState(StrEnum):
    """The state of a job: `failed` is a fault of the file, `dead` a repeated fault on our side."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"


class WindowWritten(IntEnum):
    """The part of a version's window that the index has; START: the start, but not the current end.

    The numbers are stored (`document_versions.window_written`).
    """

    NOTHING = 0
    WHOLE = 1
    START = 2


class Decision(StrEnum):
    """The kinds of decision about a version; a rollback makes one version `rolled_back` and a new one `restored`."""

    APPROVED = "approved"
    REJECTED = "rejected"
    DATED = "dated"
    EXPIRED = "expired"
    ROLLED_BACK = "rolled_back"
    RESTORED = "restored"
    DELETED = "deleted"
    TITLED = "titled"
    DISMISSED = "dismissed"


class Stage(StrEnum):
    """The stages of the pipeline, as a job reports them."""

    RECEIVE = "receive"
    PARSE = "parse"
    EMBED = "embed"
    UPSERT = "upsert"
    VERIFY = "verify"
    ACTIVATE = "activate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """A document's metadata, given by staff; both dates are days in the bank's zone, `effective_until` included.

    `link` is the address of the bank's public page about it.
    """

    title: str | None = None
    product: str | None = None
    link: str | None = None
    language: Language | None = None
    readers: tuple[str, ...] = (EVERY_CUSTOMER,)
    effective_from: date | None = None
    effective_until: date | None = None

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of the metadata; the order of the readers does not change it."""
        fields = asdict(self) | {"readers": sorted(self.readers)}
        return sha256(json.dumps(fields, ensure_ascii=False, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dates:
    """The first and the last day of a version's validity, both included; None: no bound."""

    effective_from: date | None
    effective_until: date | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen(Dates):
    """The dates and the title that an approver was shown; `title` None matches any title."""

    title: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionKey:
    """Names one version of one document of one tenant."""

    tenant: str
    document_id: str
    version: int

    def __str__(self) -> str:
        return f"{self.document_id} v{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The half-open interval in which customers may read a version, in Unix seconds; `visible_until` may be missing."""

    version: int
    visible_from: float
    visible_until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An original with its metadata; a missing `document_id` is derived from `path`, or else from the content.

    `path` is the file's path in a loaded folder, so that a changed file becomes a new version of the same document.
    `sha256` and `size` (in bytes) are set once the bytes are stored. With `again`, the bytes of an expired version
    become a new version.
    """

    tenant: str
    file_name: str
    metadata: Metadata
    uploaded_by: str
    document_id: str | None = None
    path: str = ""
    sha256: str = ""
    size: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a document; instants are Unix seconds, `size` is in bytes, `passages` a count.

    `left_out` is the number of pieces that its file hides, by kind (`ingest.parsing.LeftOut`).
    """

    key: VersionKey
    file_name: str
    sha256: str
    size: int
    metadata: Metadata
    fingerprint: str
    uploaded_by: str
    uploaded_at: float
    state: State
    format: str | None = None
    reason: str | None = None
    detail: str | None = None
    passages: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    approved_by: str | None = None
    approved_at: float | None = None
    visible_from: float | None = None
    visible_until: float | None = None
    window_written: WindowWritten = WindowWritten.WHOLE

    @property
    def window(self) -> Window | None:
        """The window in which customers may read it; None if it was never approved."""
        if self.visible_from is None:
            return None
        return Window(version=self.key.version, visible_from=self.visible_from, visible_until=self.visible_until)

    def state_at(self, now: float) -> State:
        """Return the state at an instant (Unix seconds): an approved version may be active or expired at it."""
        if self.state is not State.APPROVED or self.visible_from is None:
            return self.state
        if self.visible_until is not None and self.visible_until <= max(now, self.visible_from):
            return State.EXPIRED
        return State.ACTIVE if self.visible_from <= now else State.APPROVED


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedVersion:
    """A version that belongs in the index, its number of passages, and its start, if it has one."""

    key: VersionKey
    passages: int
    visible_from: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexingResult:
    """The properties of a version that indexing determines."""

    format: str
    title: str
    language: Language
    passages: int
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The job that indexes one version; `done` of `total` is its progress in the stage; instants are Unix seconds."""

    id: str
    key: VersionKey
    state: JobState
    stage: Stage
    done: int
    total: int
    attempts: int
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """The version and the job of an upload; a repeated upload gets those of the first."""

    version: Version
    job: Job


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """A version's upload or a decision about it: by whom, when (Unix seconds), and the reason, new title or days."""

    event: str
    by: str
    at: float
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSummary:
    """A document in a list: its latest version and the number of its versions."""

    latest: Version
    versions: int
