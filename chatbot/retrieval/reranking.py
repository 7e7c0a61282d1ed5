"""Optional reranking: a cross-encoder reads the question and a passage together, and sorts the passages by its score.

Off unless RERANKER__FOLDER names a sentence-transformers cross-encoder, or RERANKER__URL a server with one. It only
sorts: which passages may be read, and how certain retrieval is of them, was decided before. When it is late or fails,
the order stays that of retrieval. Nogueira and Cho, "Passage Re-ranking with BERT", 2019.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self

import msgspec
import structlog
from pydantic import AnyHttpUrl, Field, PositiveFloat, model_validator
from yarl import URL

from knowledge.index import indexed_text
from knowledge.model_connection import EndpointAway, EndpointFailed, EndpointRefused
from knowledge.model_endpoint import (
    ModelEndpoint,
    ModelEndpointSettings,
    call_address,
    open_model_endpoint,
)
from knowledge.passage import Hit

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

log = structlog.get_logger(__name__)


class RerankerMissing(Exception):
    """The folder holds no cross-encoder, or the endpoint refuses us; the message says what to set."""


class RerankerSettings(ModelEndpointSettings, frozen=True):
    """Which cross-encoder sorts how many candidates; an answer waits for it at most `timeout` seconds."""

    folder: Path | None = Field(
        None,
        description=(
            "a sentence-transformers cross-encoder that sorts the candidates of a search; without one they stay as "
            "found"
        ),
    )
    url: AnyHttpUrl | None = Field(None, description="a server with one in place of a folder: vLLM, Cohere, Jina, TEI")
    api: Literal["rerank", "tei"] = Field(
        "rerank", description="what it speaks: `/v1/rerank` as vLLM, Cohere and Jina, or TEI's own `/rerank`"
    )
    candidates: ClassVar[int] = 20  # passages: how many it sorts
    timeout: PositiveFloat = Field(0.5, description="seconds: how long an answer waits for it; then the order stays")
    waiting: ClassVar[int] = 8  # questions: the most that wait or are scored; the order of one more stays as it is

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.folder is not None and self.url is not None:
            raise ValueError("set the reranker's folder or its url, not both")
        if self.url is not None and self.model is None and self.api == "rerank":
            raise ValueError("a reranking endpoint needs the name of its model: set model")
        return self


class Reranker(Protocol):
    """Sorts the hits of a search."""

    @property
    def candidates(self) -> int:
        """How many hits it sorts."""

    async def order(self, question: str, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits, best first; in the given order where the scores are late or fail."""


class LocalReranker:
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
        return _sorted(hits, scores)

    def _score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        scores: list[float] = self._model.predict(list(pairs), show_progress_bar=False).tolist()
        return scores


class _Score(msgspec.Struct):
    """One score, by Cohere's name or by TEI's."""

    index: int
    relevance_score: float | None = None
    score: float | None = None


class _Scores(msgspec.Struct):
    results: list[_Score]


_DECODE: Mapping[str, Callable[[bytes], list[_Score]]] = {
    "rerank": lambda reply: msgspec.json.decode(reply, type=_Scores).results,
    "tei": msgspec.json.Decoder(list[_Score]).decode,
}
_PATHS = {"rerank": "v1/rerank", "tei": "rerank"}


class ServedReranker:
    """Sorts hits by the scores of an endpoint, one request a question."""

    def __init__(self, endpoint: ModelEndpoint, settings: RerankerSettings) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._waiting = 0

    @property
    def candidates(self) -> int:
        """How many hits it sorts."""
        return self._settings.candidates

    async def order(self, question: str, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits, best first; in the given order where the scores are late or fail."""
        if self._waiting >= self._settings.waiting or len(hits) < 2:
            return list(hits)
        self._waiting += 1
        try:
            scores = await self.scores(question, [indexed_text(hit.passage) for hit in hits])
        except EndpointFailed as exc:
            log.warning("not_reranked", error=str(exc))
            return list(hits)
        finally:
            self._waiting -= 1
        return _sorted(hits, scores)

    async def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return the score of each text, in order.

        Raises:
            EndpointFailed: there are none in time.
        """
        own: dict[str, object] = (
            {"model": self._settings.model, "query": question, "documents": texts, "top_n": len(texts)}
            if self._settings.api == "rerank"
            else {"query": question, "texts": texts}
        )
        reply = await self._endpoint.ask(
            {**self._settings.extra_body, **own}, within_seconds=self._settings.timeout, most_attempts=1
        )
        try:
            found = {
                score.index: score.score if score.relevance_score is None else score.relevance_score
                for score in _DECODE[self._settings.api](reply)
            }
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise EndpointAway(f"{self._endpoint.name}: a reply that cannot be read") from exc
        scores = [score for n in range(len(texts)) if (score := found.get(n)) is not None]
        if len(scores) != len(texts):
            raise EndpointAway(f"{self._endpoint.name}: other scores than asked for")
        return scores


def _sorted(hits: Sequence[Hit], scores: Sequence[float]) -> list[Hit]:
    return [hits[n] for n in sorted(range(len(hits)), key=lambda n: -scores[n])]


@asynccontextmanager
async def open_reranker(settings: RerankerSettings) -> AsyncGenerator[Reranker | None]:
    """Load the cross-encoder, or open its endpoint; None where neither is named.

    An endpoint that is away does not stop the boot: answers do without it.

    Raises:
        RerankerMissing: the folder holds none, or what would run it is not installed; or the endpoint refuses us.
    """
    if settings.url is not None:
        async with _open_endpoint(settings, URL(str(settings.url))) as served:
            yield served
        return
    if settings.folder is None:
        yield None
        return
    folder = settings.folder.expanduser()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reranker") as thread:
        yield LocalReranker(await asyncio.get_running_loop().run_in_executor(thread, _load, folder), thread, settings)


@asynccontextmanager
async def _open_endpoint(settings: RerankerSettings, server: URL) -> AsyncGenerator[ServedReranker]:
    address = call_address(server, _PATHS[settings.api])
    async with AsyncExitStack() as stack:
        try:
            endpoint = await stack.enter_async_context(open_model_endpoint(settings, address, setting="RERANKER"))
            served = ServedReranker(endpoint, settings)
            await served.scores("warm up", ["one", "two"])
        except EndpointRefused as exc:
            raise RerankerMissing(str(exc)) from exc
        except EndpointAway as exc:
            log.warning("reranker_not_there_yet", error=str(exc))
        yield served


def _load(folder: Path) -> "CrossEncoder":
    if find_spec("sentence_transformers") is None:
        raise RerankerMissing(
            "RERANKER__FOLDER: sentence-transformers is not installed here (docs/operations.md, Reranking)"
        )
    if not folder.is_dir():
        raise RerankerMissing(f"RERANKER__FOLDER: no cross-encoder in {folder}: there is no such folder")
    from sentence_transformers import CrossEncoder  # noqa: PLC0415  only for a reranker: seconds, half a gigabyte

    try:
        model: CrossEncoder = CrossEncoder(str(folder), local_files_only=True)
    except (OSError, ValueError) as exc:
        raise RerankerMissing(f"RERANKER__FOLDER: no cross-encoder in {folder}: {exc}") from exc
    if model.num_labels != 1:
        raise RerankerMissing(f"RERANKER__FOLDER: {folder} gives {model.num_labels} scores a pair, not one")
    return model
