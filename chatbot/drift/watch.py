"""Watches the questions of this process for drift: counts them in the reference's bins, in a worker thread.

Memory is bounded: the vectors since the last count, and a uniform sample of all (reservoir sampling, Vitter's algorithm
R, 1985), from which an operator can take a new reference. Only counts and references leave the process.
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
    """What questions are compared with, and how much of them is kept in memory."""

    reference: Path | None = Field(
        None, description="a reference window: questions are counted in its bins; without one nothing is counted"
    )
    every: ClassVar[float] = 5.0  # seconds: between two counts
    sample: ClassVar[int] = 2000  # searches: kept in memory for a new reference
    most_waiting: ClassVar[int] = 5000  # searches: kept in memory for the next count


class ReferenceUnreadable(Exception):
    """The file that DRIFT__REFERENCE names is no reference, or one of another embedder; ends the boot."""


def read_reference(path: Path, *, embedder: str) -> Reference:
    """Return a reference that was made with this embedder (blocking).

    Raises:
        ReferenceUnreadable: the message says why.
    """
    try:
        reference = msgspec.json.decode(path.read_bytes(), type=Reference)
    except (OSError, msgspec.MsgspecError) as exc:
        raise ReferenceUnreadable(f"DRIFT__REFERENCE: {path} is no reference: {exc}") from exc
    if reference.embedder != embedder:
        raise ReferenceUnreadable(
            f"DRIFT__REFERENCE: {path} was made with {reference.embedder} and questions are embedded with {embedder}: "
            "take a new one (docs/runbooks/drift.md)"
        )
    return reference


class DriftWatch:
    """Collects every search and the outcome of every answer, and counts them."""

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
        self._random = random.Random()  # noqa: S311  which questions are sampled is no secret

    def record_search(self, search: SearchFinished) -> None:
        """Keep a search for the next count, up to `most_waiting` of them, and perhaps in the sample (a hook)."""
        self._searches += 1
        if len(self._sample) < self._settings.sample:
            self._sample.append(search)
        elif (index := self._random.randrange(self._searches)) < len(self._sample):
            self._sample[index] = search
        if self._reference is not None and len(self._uncounted) < self._settings.most_waiting:
            self._uncounted.append(search)

    def record_turn(self, turn: TurnFinished) -> None:
        """Keep an answer's outcome for the next count (a hook)."""
        outcome = turn.result.label if turn.result.label in OUTCOMES else "error"
        self._uncounted_outcomes[outcome] += 1
        self._outcomes[outcome] += 1

    async def watch(self) -> None:
        """Count what was recorded, every `every` seconds, for ever; without a reference return at once."""
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
        """Return a reference made from the searches and outcomes of this process.

        Raises:
            TooFewQuestions: there were too few searches.
        """
        make = partial(
            build_reference, tuple(self._sample), dict(self._outcomes), embedder=self._embedder, now=self._now()
        )
        return await anyio.to_thread.run_sync(make)
