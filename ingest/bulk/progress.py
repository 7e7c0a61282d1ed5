"""The output of a load: one line per document and a summary table."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Table

from ingest.bulk.manifest import SourceFile
from ingest.catalogue import State, VersionKey

NOT_TRIED = "not_tried"  # the reason of a document that was not tried because the load stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOutcome:
    """The state of a file in a load; `reason` is set if it failed or was not tried.

    `was_there`: it was indexed before this load. `visible_from` is the start of its version (Unix seconds).
    """

    file: SourceFile
    key: VersionKey | None = None
    job_id: str | None = None
    state: State | None = None
    passages: int = 0
    was_there: bool = False
    reason: str | None = None
    detail: str | None = None
    visible_from: float | None = None

    @classmethod
    def not_tried(cls, file: SourceFile) -> "LoadOutcome":
        """Return the outcome of a file that was not tried because the load stopped."""
        return cls(file=file, reason=NOT_TRIED)

    @property
    def document_id(self) -> str | None:
        """The document of a received file."""
        return self.key.document_id if self.key else None

    @property
    def is_draft(self) -> bool:
        """Whether it is indexed and waits for approval."""
        return self.state is State.INDEXED and self.reason is None

    def __str__(self) -> str:
        if self.reason is None:
            return f"{self.file.name}: {self.passages} passages, {self._novelty}"
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.file.name}: {self.reason}{detail}"

    @property
    def _novelty(self) -> str:
        """Whether the file is a new document, a new version of one, or unchanged since it was loaded."""
        version = self.key.version if self.key else 1
        if self.was_there:
            return "already loaded, expired" if self.state is State.EXPIRED else "already loaded"
        return f"version {version}" if version > 1 else "new document"


class LoadDisplay:
    """Print one line per document."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._documents = self._done = self._passages = 0
        self._started_at = time.monotonic()

    def begin(self, documents: int) -> None:
        """Show the number of files to load."""
        self._documents = documents
        self._started_at = time.monotonic()
        self._print(f"loading {documents} documents")

    def end(self, outcome: LoadOutcome) -> None:
        """Show the outcome of one file."""
        self._done += 1
        self._passages += 0 if outcome.was_there else outcome.passages
        rate = self._passages / max(time.monotonic() - self._started_at, 1e-3)
        self._print(f"[{self._done}/{self._documents}] {outcome} ({rate:.1f} passages/s)")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_summary(outcomes: Sequence[LoadOutcome], console: Console, zone: ZoneInfo) -> None:
    """Print the documents and passages by state, and each failed document with its reason."""
    documents, passages = Counter[str](), Counter[str]()
    for outcome in outcomes:
        state = str(outcome.state) if outcome.reason is None and outcome.state else "failed"
        if outcome.reason == NOT_TRIED:
            state = "not tried"
        documents[state] += 1
        passages[state] += outcome.passages
    table = Table("state", "documents", "passages")
    for state, count in sorted(documents.items()):
        table.add_row(state, str(count), str(passages[state]))
    console.print(table)
    for outcome in outcomes:
        if outcome.reason not in {None, NOT_TRIED}:
            console.print(str(outcome), style="red", markup=False, soft_wrap=True)
    if documents["not tried"]:
        console.print(
            "stopped: a store or the embedder is unavailable; run the same command again to continue", style="red"
        )
    _print_waiting(outcomes, console, zone)


def _print_waiting(outcomes: Sequence[LoadOutcome], console: Console, zone: ZoneInfo) -> None:
    drafts = sum(outcome.is_draft for outcome in outcomes)
    if drafts:
        where = "on the staff page, or by the same command with --approved-by NAME (with --url also --approver-token)"
        console.print(f"waiting for approval: {drafts}, {where}", markup=False, soft_wrap=True)
    waiting = [o.visible_from for o in outcomes if o.state is State.APPROVED and o.visible_from is not None]
    if waiting:
        first = datetime.fromtimestamp(min(waiting), zone).strftime("%Y-%m-%d %H:%M")
        console.print(f"{len(waiting)} approved for later, the first from {first}.")
