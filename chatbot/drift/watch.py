"""Count the questions of this process in the bins of a drift reference, in a worker thread.

Memory is bounded: it holds the vectors since the last count, and a uniform sample of all vectors (reservoir sampling,
Vitter's algorithm R, 1985) for a new reference. Only counts and references leave the process.
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import anyio
import msgspec
import structlog
from pydantic import BaseModel, Field

from chatbot.drift.psi import OUTCOMES, Bin, BinCounter, Reference, build_reference
from chatbot.records import SearchFinished, TurnFinished

log = structlog.get_logger(__name__)


class DriftSettings(BaseModel, frozen=True):
    """The reference, and the limits of searches in memory."""

    reference: Path | None = Field(
        None, description="Counts questions in the bins of this reference file. Without it nothing is counted."
    )
    every: ClassVar[float] = 5.0  # seconds: the interval of counts
    sample: ClassVar[int] = 2000  # searches: kept in memory for a new reference
    most_waiting: ClassVar[int] = 5000  # searches: kept in memory for the next count


class ReferenceUnreadable(Exception):
    """The DRIFT__REFERENCE file is not a valid reference or is for another embedder; the process does not start."""


def read_reference(path: Path, *, embedder: str) -> Reference:
    """Read a reference, which must have been made with `embedder` (blocking).

    Raises:
        ReferenceUnreadable: the file is not a valid reference, or is for another embedder.
    """
    try:
        reference = msgspec.json.decode(path.read_bytes(), type=Reference)
    except (OSError, msgspec.MsgspecError) as exc:
        raise ReferenceUnreadable(f"DRIFT__REFERENCE: {path} is not a valid reference: {exc}") from exc
    if reference.embedder != embedder:
        raise ReferenceUnreadable(
            f"DRIFT__REFERENCE: {path} was made with {reference.embedder} and questions are embedded with {embedder}: "
            "take a new one (docs/runbooks/drift.md)"
        )
    return reference


class DriftWatch:
    """Collects and counts searches and the outcomes of answers."""

    def __init__(
        self,
        settings: DriftSettings,
        reference: Reference | None,
        *,
        embedder: str,
        on_counted: Callable[[str, Counter[Bin]], None],
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._reference = reference
        self._embedder = embedder
        self._on_counted = on_counted
        self._now = now
        self._uncounted: list[SearchFinished] = []
        self._uncounted_outcomes: Counter[str] = Counter()
        self._sample: list[SearchFinished] = []
        self._searches = 0
        self._outcomes: Counter[str] = Counter()
        self._random = random.Random()  # noqa: S311  not security-relevant

    def record_search(self, search: SearchFinished) -> None:
        """Queue a search for the next count (at most `most_waiting`), and offer it to the sample (a hook)."""
        self._searches += 1
        if len(self._sample) < self._settings.sample:
            self._sample.append(search)
        elif (index := self._random.randrange(self._searches)) < len(self._sample):
            self._sample[index] = search
        if self._reference is not None and len(self._uncounted) < self._settings.most_waiting:
            self._uncounted.append(search)

    def record_turn(self, turn: TurnFinished) -> None:
        """Record an answer's outcome for the next count (a hook)."""
        outcome = turn.result.label if turn.result.label in OUTCOMES else "error"
        self._uncounted_outcomes[outcome] += 1
        self._outcomes[outcome] += 1

    async def watch(self) -> None:
        """Count the recorded searches every `every` seconds until cancelled; without a reference return at once."""
        if self._reference is None:
            return
        counter = BinCounter(self._reference)
        while True:
            await anyio.sleep(self._settings.every)
            searches, self._uncounted = self._uncounted, []
            outcomes, self._uncounted_outcomes = self._uncounted_outcomes, Counter()
            counts = await anyio.to_thread.run_sync(counter.count, searches)
            counts.update({("outcome", name): count for name, count in outcomes.items()})
            self._on_counted(self._reference.id, counts)

    async def take_reference(self) -> Reference:
        """Build a reference from the searches and outcomes of this process.

        Raises:
            TooFewQuestions: there were fewer searches than `LEAST_QUESTIONS`.
        """
        make = partial(
            build_reference, tuple(self._sample), dict(self._outcomes), embedder=self._embedder, now=self._now()
        )
        return await anyio.to_thread.run_sync(make)
