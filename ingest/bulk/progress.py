"""The output of `ingest load`: a progress bar on a terminal, plain lines elsewhere, and a table at the end."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ingest.bulk.load import MOST_UNAVAILABLE, NOT_TRIED, LoadOutcome, ProgressDisplay
from ingest.catalogue import Stage, State

_STEPS = 1000  # of the bar for a document, so that a long document moves it too
_SILENT_SECONDS = 5.0


class _Passages(ProgressColumn):
    """The passages written so far, and the rate in passages a second."""

    def render(self, task: Task) -> Text:
        if (passages := task.fields["passages"]) is None:
            return Text()
        elapsed = task.elapsed or 0.0
        rate = f", {passages / elapsed:.1f}/s" if elapsed > 0.5 and passages else ""
        return Text(f"{passages} passages{rate}")


class _Documents(ProgressColumn):
    """The documents done, of how many."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['documents']}/{int((task.total or 0) / _STEPS)} documents")


class ProgressBar(ProgressDisplay):
    """The progress bar of a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("loading", total=None, passages=0, documents=0)
        self._parts: dict[str, tuple[int, int]] = {}  # file → (passages done, of how many)
        self._finished = Counter[str]()
        self._approving: TaskID | None = None

    def begin(self, documents: int) -> None:
        self._progress.update(self._task, total=documents * _STEPS)

    def part(self, name: str, stage: Stage, done: int, total: int) -> None:
        if stage in (Stage.EMBED, Stage.UPSERT):
            self._parts[name] = (done, max(total, 1))
            self._draw()

    def end(self, outcome: LoadOutcome) -> None:
        self._parts.pop(outcome.file.name, None)
        self._finished["documents"] += 1
        self._finished["passages"] += 0 if outcome.was_there else outcome.passages
        if outcome.reason is not None:
            self._progress.console.print(f"✗ {outcome.file.name}: {_why(outcome)}", markup=False)
        self._draw()

    def approved(self, done: int, total: int) -> None:
        if self._approving is None:
            self._approving = self._progress.add_task("approving", total=total * _STEPS, passages=None, documents=0)
        self._progress.update(self._approving, completed=done * _STEPS, documents=done)

    def _draw(self) -> None:
        inside = sum(_STEPS * done // total for done, total in self._parts.values())
        self._progress.update(
            self._task,
            completed=self._finished["documents"] * _STEPS + inside,
            documents=self._finished["documents"],
            passages=self._finished["passages"] + sum(done for done, _ in self._parts.values()),
        )


class ProgressLines(ProgressDisplay):
    """One plain line a document, for logs and pipes."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._begun = clock()
        self._written_at = self._begun
        self._documents = 0
        self._done = 0
        self._passages = 0

    def begin(self, documents: int) -> None:
        self._documents = documents
        self._begun = self._clock()
        self._write(f"loading {documents} documents")

    def part(self, name: str, stage: Stage, done: int, total: int) -> None:
        """Write nothing: one line a document is enough."""

    def end(self, outcome: LoadOutcome) -> None:
        self._done += 1
        self._passages += 0 if outcome.was_there else outcome.passages
        elapsed = max(self._clock() - self._begun, 1e-3)
        left = elapsed / self._done * (self._documents - self._done)
        result = _why(outcome) if outcome.reason else f"{outcome.passages} passages"
        known = f", {_before(outcome)}" if outcome.was_there and not outcome.reason else ""
        rate = f"{self._passages / elapsed:.1f} passages/s, {left:.0f} s left"
        self._write(f"[{self._done}/{self._documents}] {outcome.file.name}: {result}{known} ({rate})")
        self._written_at = self._clock()

    def approved(self, done: int, total: int) -> None:
        """Write a line if none was written for _SILENT_SECONDS: approving a few documents takes a moment."""
        if self._clock() - self._written_at >= _SILENT_SECONDS:
            self._write(f"approved {done}/{total}")
            self._written_at = self._clock()


def _before(outcome: LoadOutcome) -> str:
    return "was lost and written again" if outcome.restored else "was there"


@contextmanager
def open_display(console: Console) -> Generator[ProgressDisplay]:
    """Open the display that fits the console."""
    if not console.is_terminal:
        yield ProgressLines(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
        return
    columns = (TextColumn("{task.description}"), BarColumn(), _Documents(), _Passages(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield ProgressBar(progress)


def print_summary(outcomes: Sequence[LoadOutcome], console: Console, zone: ZoneInfo) -> None:
    """Print the documents and passages by state, and each document that failed with its reason."""
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
            console.print(f"{outcome.file.name}: {_why(outcome)}", style="red", markup=False, soft_wrap=True)
    if documents["not tried"]:
        console.print(
            f"stopped: a store or the embedder was unavailable for {MOST_UNAVAILABLE} documents in a row; run the same"
            " command again to continue",
            style="red",
        )
    _print_what_waits(outcomes, console, zone)


def _print_what_waits(outcomes: Sequence[LoadOutcome], console: Console, zone: ZoneInfo) -> None:
    drafts = sum(outcome.state is State.INDEXED and outcome.reason is None for outcome in outcomes)
    if drafts:
        where = "on the staff page, or by the same command with --approved-by NAME"
        console.print(f"waiting for approval: {drafts}, {where}", markup=False, soft_wrap=True)
    waiting = [o.visible_from for o in outcomes if o.state is State.APPROVED and o.visible_from is not None]
    if waiting:
        first = datetime.fromtimestamp(min(waiting), zone).strftime("%Y-%m-%d %H:%M")
        console.print(f"{len(waiting)} approved for later, the first from {first}.")


def _why(outcome: LoadOutcome) -> str:
    return f"{outcome.reason}: {outcome.detail}" if outcome.detail else str(outcome.reason)
