"""Optional reranking: a cross-encoder reads the question and a passage together, and sorts the passages by its score.

Off unless RERANKER__FOLDER names a sentence-transformers cross-encoder. It only sorts: which passages may be read, and
how certain retrieval is of them, was decided before. When it is late or fails, the order stays that of retrieval.
Nogueira and Cho, "Passage Re-ranking with BERT", 2019.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt

from knowledge.index import indexed_text
from knowledge.passage import Hit

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

log = structlog.get_logger(__name__)


class RerankerMissing(Exception):
    """The folder holds no cross-encoder; the message names it."""


class RerankerSettings(BaseModel, frozen=True):
    """Which cross-encoder sorts how many candidates; an answer waits for it at most `timeout` seconds."""

    folder: Path | None = Field(
        None,
        description=(
            "a sentence-transformers cross-encoder that sorts the candidates of a search; without one they stay as "
            "found"
        ),
    )
    candidates: PositiveInt = Field(20, description="passages: how many it sorts")
    timeout: PositiveFloat = Field(0.5, description="seconds: how long an answer waits for it; then the order stays")
    waiting: PositiveInt = Field(
        8, description="questions: the most that wait or are scored; the order of one more stays as it is"
    )


class Reranker:
    """Sorts hits in a thread of its own, one question at a time."""

    def __init__(self, model: "CrossEncoder", thread: ThreadPoolExecutor, settings: RerankerSettings) -> None:
        self._model = model
        self._thread = thread
        self._settings = settings
        self._pending: list[Future[list[float]]] = []

    @property
    def candidates(self) -> int:
        """How many hits it sorts."""
        return self._settings.candidates

    async def order(self, question: str, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits, best first; in the given order where the scores are late or fail."""
        self._pending = [scoring for scoring in self._pending if not scoring.done()]  # a late one runs to its end
        if len(self._pending) >= self._settings.waiting or len(hits) < 2:
            return list(hits)
        pairs = [(question, indexed_text(hit.passage)) for hit in hits]
        scoring = self._thread.submit(self._score, pairs)
        self._pending.append(scoring)
        try:
            async with asyncio.timeout(self._settings.timeout):
                scores = await asyncio.wrap_future(scoring)
        except (TimeoutError, RuntimeError, ValueError, IndexError) as exc:
            log.warning("not_reranked", error=type(exc).__name__)
            return list(hits)
        best_first = sorted(range(len(hits)), key=lambda n: -scores[n])
        return [hits[n] for n in best_first]

    def _score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        scores: list[float] = self._model.predict(list(pairs), show_progress_bar=False).tolist()
        return scores


@asynccontextmanager
async def open_reranker(settings: RerankerSettings) -> AsyncGenerator[Reranker | None]:
    """Load the cross-encoder; None where no folder is named.

    Raises:
        RerankerMissing: the folder holds none, or what would run it is not installed.
    """
    if settings.folder is None:
        yield None
        return
    folder = settings.folder.expanduser()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reranker") as thread:
        yield Reranker(await asyncio.get_running_loop().run_in_executor(thread, _load, folder), thread, settings)


def _load(folder: Path) -> "CrossEncoder":
    if find_spec("sentence_transformers") is None:
        raise RerankerMissing(
            "RERANKER__FOLDER: sentence-transformers is not installed here (docs/operations.md, Reranking)"
        )
    from sentence_transformers import CrossEncoder  # noqa: PLC0415  only for a reranker: seconds, half a gigabyte

    try:
        model: CrossEncoder = CrossEncoder(str(folder), local_files_only=True)
    except (OSError, ValueError) as exc:
        raise RerankerMissing(f"RERANKER__FOLDER: no cross-encoder in {folder}: {exc}") from exc
    if model.num_labels != 1:
        raise RerankerMissing(f"RERANKER__FOLDER: {folder} gives {model.num_labels} scores a pair, not one")
    return model
