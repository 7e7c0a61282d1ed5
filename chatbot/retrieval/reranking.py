"""Optional reranking: a cross-encoder scores each passage together with the question.

It is off unless RERANKER__URL names a server with a cross-encoder (vLLM, TEI, Cohere, Jina). It changes only the order,
not the permitted passages or their scores. If it is late or fails, the order of retrieval stays.
Nogueira and Cho, "Passage Re-ranking with BERT", 2019.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import ClassVar, Literal, Self

import msgspec
import structlog
from pydantic import AnyHttpUrl, Field, PositiveFloat, model_validator
from yarl import URL

from knowledge.index import indexed_text
from knowledge.model_connection import EndpointAway, EndpointFailed, EndpointRefused
from knowledge.model_endpoint import ModelEndpoint, ModelEndpointSettings, call_address, open_model_endpoint
from knowledge.passage import Hit

log = structlog.get_logger(__name__)


class RerankerRefused(Exception):
    """The endpoint rejects our requests; the message says what to set."""


class RerankerSettings(ModelEndpointSettings, frozen=True):
    """The reranking server, its number of candidates, and the `timeout` in seconds."""

    url: AnyHttpUrl | None = Field(
        None,
        description=(
            "A cross-encoder server at this URL (vLLM, Cohere, Jina, TEI) reranks passages. Without it their "
            "order stays."
        ),
    )
    api: Literal["rerank", "tei"] = Field(
        "rerank", description="The server has this API: `/v1/rerank` (vLLM, Cohere, Jina) or TEI's `/rerank`."
    )
    candidates: ClassVar[int] = 20  # passages: the number to sort
    timeout: PositiveFloat = Field(
        0.5, description="seconds: An answer waits this long for the reranker, then keeps the order of the search."
    )
    at_once: ClassVar[int] = 8  # questions: the most in progress; further ones are not reranked

    @model_validator(mode="after")
    def _named_model(self) -> Self:
        if self.url is not None and self.model is None and self.api == "rerank":
            raise ValueError("a reranking endpoint needs the name of its model: set model")
        return self


class _Score(msgspec.Struct):
    """A text's score, under Cohere's field name or TEI's."""

    index: int
    relevance_score: float | None = None
    score: float | None = None

    @property
    def value(self) -> float | None:
        return self.score if self.relevance_score is None else self.relevance_score


class _Scores(msgspec.Struct):
    results: list[_Score]


_DECODE: Mapping[str, Callable[[bytes], list[_Score]]] = {
    "rerank": lambda reply: msgspec.json.decode(reply, type=_Scores).results,
    "tei": msgspec.json.Decoder(list[_Score]).decode,
}
_PATHS = {"rerank": "v1/rerank", "tei": "rerank"}


class Reranker:
    """Sorts hits by an endpoint's scores, with one request per question."""

    def __init__(self, endpoint: ModelEndpoint, settings: RerankerSettings) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._in_progress = 0

    @property
    def candidates(self) -> int:
        """The number of hits to sort."""
        return self._settings.candidates

    async def order(self, question: str, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits, best first; in the given order if `at_once` is reached or the endpoint fails or is late."""
        if self._in_progress >= self._settings.at_once or len(hits) < 2:
            return list(hits)
        self._in_progress += 1
        try:
            scores = await self.scores(question, [indexed_text(hit.passage) for hit in hits])
        except EndpointFailed as exc:
            log.warning("reranking_failed", error=str(exc))
            return list(hits)
        finally:
            self._in_progress -= 1
        best_first = sorted(range(len(hits)), key=lambda n: -scores[n])
        return [hits[n] for n in best_first]

    async def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return the score of each text in order.

        Raises:
            EndpointFailed: the endpoint fails or is late.
        """
        body: dict[str, object] = {"query": question, "texts": texts}
        if self._settings.api == "rerank":
            body = {"model": self._settings.model, "query": question, "documents": texts, "top_n": len(texts)}
        reply = await self._endpoint.ask(
            {**self._settings.extra_body, **body}, within_seconds=self._settings.timeout, most_attempts=1
        )
        try:
            scores = {score.index: score.value for score in _DECODE[self._settings.api](reply)}
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise EndpointAway(f"{self._endpoint.name}: the reply is not valid") from exc
        ordered = [scores.get(n) for n in range(len(texts))]
        complete = [score for score in ordered if score is not None]
        if len(complete) != len(texts):
            raise EndpointAway(f"{self._endpoint.name}: the reply does not have the requested scores")
        return complete


@asynccontextmanager
async def open_reranker(settings: RerankerSettings) -> AsyncGenerator[Reranker | None]:
    """Open the reranker; yield None if no endpoint is configured.

    An unavailable endpoint does not stop the start: answers do not need it.

    Raises:
        RerankerRefused: the endpoint rejects our requests.
    """
    if settings.url is None:
        yield None
        return
    address = call_address(URL(str(settings.url)), _PATHS[settings.api])
    async with AsyncExitStack() as stack:
        try:
            endpoint = await stack.enter_async_context(open_model_endpoint(settings, address, setting="RERANKER"))
            reranker = Reranker(endpoint, settings)
            await reranker.scores("warm up", ["one", "two"])
        except EndpointRefused as exc:
            raise RerankerRefused(str(exc)) from exc
        except EndpointAway as exc:
            log.warning("reranker_unavailable", error=str(exc))
        yield reranker
