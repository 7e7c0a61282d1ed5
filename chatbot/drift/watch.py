"""Watches the questions of this process for drift: counts them in the reference's bins, away from the event loop.

What is kept is bounded: vectors until the next count, and a uniform sample of them in memory, from which an admin can
take a new reference. Nothing of a single question ever leaves the process.
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import msgspec
import structlog
from pydantic import BaseModel, PositiveFloat, PositiveInt

from chatbot.drift.psi import OUTCOMES, Bin, BinCounter, Reference, build_reference
from chatbot.records import SearchFinished, TurnFinished

log = structlog.get_logger(__name__)


class DriftSettings(BaseModel, frozen=True):
    """The `reference` to compare with, nothing is counted without; seconds between counts; what is kept in memory."""

    reference: Path | None = None
    every: PositiveFloat = 5.0
    sample: PositiveInt = 2000
    most_waiting: PositiveInt = 5000


class ReferenceUnreadable(Exception):
    """The file that DRIFT__REFERENCE names is none, or of another embedder: stops the boot."""


def read_reference(path: Path, *, embedder: str) -> Reference:
    """Return a reference that was made with this embedder (blocking).

    Raises:
        ReferenceUnreadable: a sentence that says why not.
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
    """Hears of every question that is looked for and of every answer that ends."""

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
        self._waiting: list[SearchFinished] = []
        self._ended: Counter[str] = Counter()
        self._sample: list[SearchFinished] = []
        self._seen = 0
        self._outcomes: Counter[str] = Counter()
        self._chance = random.Random()  # noqa: S311  which questions are sampled is no secret

    def record_search(self, one: SearchFinished) -> None:
        """Take note of a question (a hook); beyond what may wait, the newest are not counted."""
        self._seen += 1
        if len(self._sample) < self._settings.sample:
            self._sample.append(one)
        elif (place := self._chance.randrange(self._seen)) < len(self._sample):
            self._sample[place] = one
        if self._reference is not None and len(self._waiting) < self._settings.most_waiting:
            self._waiting.append(one)

    def record_turn(self, turn: TurnFinished) -> None:
        """Take note of how an answer ended (a hook)."""
        outcome = turn.outcome if turn.outcome in OUTCOMES else "error"
        self._ended[outcome] += 1
        self._outcomes[outcome] += 1

    async def watch(self) -> None:
        """Count what waits, again and again, for ever."""
        if self._reference is None:
            return
        sketch = BinCounter(self._reference)
        while True:
            await anyio.sleep(self._settings.every)
            batch, self._waiting = self._waiting, []
            ended, self._ended = self._ended, Counter()
            found = await anyio.to_thread.run_sync(sketch.count, batch)
            found.update({("outcome", name): count for name, count in ended.items()})
            self._on_counted(self._reference.id, found)

    async def take_reference(self) -> Reference:
        """Return a reference made of what this process has seen.

        Raises:
            TooFew: it has not seen enough.
        """
        make = partial(
            build_reference, tuple(self._sample), dict(self._outcomes), embedder=self._embedder, now=self._now()
        )
        return await anyio.to_thread.run_sync(make)
