"""Load many documents: receive the files, index them concurrently, approve them, and wait until they are active.

There are three targets: this process (`ingest.bulk.local`), this process with Ray (`ingest.bulk.batch`) and the API of
a running process (`ingest.bulk.remote`). After Ctrl-C or kill -9, a new run continues with what is missing.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from ingest.bulk.manifest import SourceFile
from ingest.bulk.progress import LoadDisplay, LoadOutcome
from ingest.bulk.sources import Source
from ingest.catalogue import State
from ingest.errors import IngestError, Unavailable
from ingest.job_runner import UNAVAILABLE
from ingest.parsing import Unreadable
from ingest.pipeline import Write
from knowledge.embedding import EmbeddingUnavailable
from knowledge.index import IndexUnavailable
from telemetry.groups import first_failure

MOST_UNAVAILABLE = 3  # consecutive documents that fail because a dependency is unavailable; then the load stops
SOON_SECONDS = 10.0  # a load waits for versions that become active within this time
POLL_SECONDS = 0.2
_CLOCK_SKEW_SECONDS = 1.0  # between this machine and the API's


class BatchStopped(Exception):
    """`ingest batch` lost its Ray cluster; running it again continues where it stopped."""


class ApiRefused(Exception):
    """The API refused or didn't answer: `code`, a message, and `retryable` if the failure may be temporary."""

    def __init__(self, code: str, detail: str, *, retryable: bool = False) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retryable = retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A received file whose job may be unfinished; `position` is its index in the list of files.

    `write` writes the file's passages to the index if they are already embedded.
    """

    position: int
    outcome: LoadOutcome
    write: Write | None = None


class Target(Protocol):
    """The destination of a load; its methods raise the errors that `attempt` handles."""

    at_once: int
    """Number of documents indexed concurrently."""
    approves: bool
    """Whether drafts are approved; otherwise they wait for an approver."""

    async def receive(self, file: SourceFile) -> LoadOutcome:
        """Receive a file; the outcome has a `job_id` unless its job is known to have ended."""
        ...

    def prepare(self, pending: Sequence[Pending]) -> AsyncGenerator[Pending]:
        """Yield received files as they become ready to be indexed."""
        ...

    async def index(self, pending: Pending) -> LoadOutcome:
        """Index a received file, or wait until a worker has; return its outcome once its job has ended."""
        ...

    async def approve(self, drafts: Sequence[LoadOutcome]) -> list[LoadOutcome]:
        """Approve drafts of one document."""
        ...

    async def refreshed(self, outcome: LoadOutcome) -> LoadOutcome:
        """Return the outcome with the version's current state."""
        ...


async def load(source: Source, target: Target, display: LoadDisplay) -> list[LoadOutcome]:
    """Load files and return their outcomes in order; a failed file doesn't stop the load, an outage does."""
    files = await source.files()
    display.begin(len(files))
    run = _Load(files, source, target, display)
    await run.index(await run.receive())
    if target.approves:
        await run.approve()
        await run.wait_until_active()
    return run.outcomes


async def attempt(outcome: LoadOutcome, step: Awaitable[LoadOutcome]) -> LoadOutcome:
    """Return the step's result, or the outcome with the reason for its failure."""
    try:
        return await step
    except (Unavailable, IndexUnavailable, EmbeddingUnavailable) as exc:
        return replace(outcome, reason=UNAVAILABLE, detail=str(exc))
    except (IngestError, ApiRefused) as exc:
        return replace(outcome, reason=exc.code, detail=exc.detail)
    except Unreadable as exc:
        return replace(outcome, reason=exc.reason.value, detail=exc.detail)
    except OSError as exc:
        return replace(outcome, reason="unreadable_file", detail=exc.strerror)


class _Load:
    """One load: its outcomes so far, and whether an outage has stopped it."""

    def __init__(self, files: Sequence[SourceFile], source: Source, target: Target, display: LoadDisplay) -> None:
        self.outcomes = [LoadOutcome.not_tried(file) for file in files]
        self._files = files
        self._source = source
        self._target = target
        self._display = display
        self._unavailable_in_a_row = 0

    async def receive(self) -> list[Pending]:
        """Receive the files in order, because a document's versions are numbered as they arrive."""
        pending: list[Pending] = []
        for position, file in enumerate(self._files):
            if self._is_stopped:
                break
            outcome = await attempt(LoadOutcome(file=file), self._receive(file))
            if outcome.job_id is None:
                self._record_end(position, outcome)
            else:
                pending.append(Pending(position=position, outcome=outcome))
        return pending

    async def _receive(self, file: SourceFile) -> LoadOutcome:
        async with self._source.on_disk(file):
            return await self._target.receive(file)

    async def index(self, pending: Sequence[Pending]) -> None:
        """Index received files as they become ready, several at once."""
        if self._is_stopped:
            return
        send, receive = anyio.create_memory_object_stream[Pending]()
        with first_failure():
            async with anyio.create_task_group() as group:
                for _ in range(self._target.at_once):
                    group.start_soon(self._index_each, receive.clone(), group.cancel_scope)
                receive.close()
                async with send, aclosing(self._target.prepare(pending)) as prepared:
                    async for file in prepared:
                        await send.send(file)

    async def _index_each(self, receive: MemoryObjectReceiveStream[Pending], scope: anyio.CancelScope) -> None:
        """Index the files of a stream one by one; cancel `scope`, the whole load, if an outage stops it."""
        async with receive:
            async for file in receive:
                self._record_end(file.position, await attempt(file.outcome, self._target.index(file)))
                if self._is_stopped:
                    scope.cancel()

    async def approve(self) -> None:
        """Approve the drafts, one document at a time."""
        drafts = [(n, outcome) for n, outcome in enumerate(self.outcomes) if outcome.is_draft]
        for _, group in groupby(drafts, key=lambda draft: draft[1].document_id):
            document_drafts = list(group)
            if self._is_stopped:
                outcomes = [LoadOutcome.not_tried(outcome.file) for _, outcome in document_drafts]
            else:
                outcomes = await self._target.approve([outcome for _, outcome in document_drafts])
            for (position, _), outcome in zip(document_drafts, outcomes, strict=True):
                self.outcomes[position] = outcome
                self._count_unavailable(outcome)

    async def wait_until_active(self) -> None:
        """Wait until versions that start within SOON_SECONDS are active."""
        now = time.time()
        starts = {n: o.visible_from for n, o in enumerate(self.outcomes) if _begins_before(o, now + SOON_SECONDS)}
        latest = max([now, *filter(None, starts.values())])
        waiting = list(starts)
        with anyio.move_on_after(latest - now + _CLOCK_SKEW_SECONDS):
            while waiting:
                for n in waiting:
                    self.outcomes[n] = await attempt(self.outcomes[n], self._target.refreshed(self.outcomes[n]))
                waiting = [n for n in waiting if self.outcomes[n].state is State.APPROVED]
                if waiting:
                    await anyio.sleep(POLL_SECONDS)

    def _record_end(self, position: int, outcome: LoadOutcome) -> None:
        self.outcomes[position] = outcome
        self._display.end(outcome)
        self._count_unavailable(outcome)

    def _count_unavailable(self, outcome: LoadOutcome) -> None:
        """Count consecutive files that failed in an outage; once the load is stopped, it stays stopped."""
        if self._is_stopped:
            return
        if outcome.reason == UNAVAILABLE:
            self._unavailable_in_a_row += 1
        else:
            self._unavailable_in_a_row = 0

    @property
    def _is_stopped(self) -> bool:
        return self._unavailable_in_a_row >= MOST_UNAVAILABLE


def _begins_before(outcome: LoadOutcome, until: float) -> bool:
    is_approved = outcome.state is State.APPROVED and outcome.reason is None
    return is_approved and outcome.visible_from is not None and outcome.visible_from < until
