"""An embedding model behind an OpenAI-compatible `/v1/embeddings` (vLLM's pooling runner, TEI, OpenAI)."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import msgspec
import numpy as np
from tokenizers import Tokenizer
from yarl import URL

from knowledge.embedding.encoder import Vectors
from knowledge.embedding.errors import EmbeddingUnavailable
from knowledge.embedding.model_config import ModelConfig, read_model_config
from knowledge.embedding.settings import EmbedderSettings
from knowledge.model_connection import EndpointFailed
from knowledge.model_endpoint import ModelEndpoint, call_address, open_model_endpoint

Cut = Callable[[str], str]
"""Truncates a text to the model's limit."""

SETTING = "EMBEDDER"
QUERY_ATTEMPTS = 2
PASSAGE_ATTEMPTS = 8
ADDED_TOKENS = 2
"""The special tokens that the server adds to a text."""


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class _EmbeddingsReply(msgspec.Struct):
    data: list[_Embedding]
    model: str = ""


_REPLIES = msgspec.json.Decoder(_EmbeddingsReply)


@asynccontextmanager
async def open_served(settings: EmbedderSettings) -> AsyncGenerator["EndpointEmbedder"]:
    """Open the configured endpoint and embed a first text with it.

    Raises:
        EmbeddingUnavailable: the endpoint does not answer, denies access or serves another model, or the tokenizer's
            folder cannot be read.
    """
    config = await asyncio.to_thread(read_model_config, settings)
    cut = await asyncio.to_thread(_open_cut, settings, config)
    url = URL(str(settings.url))
    with _translate_errors():
        async with open_model_endpoint(settings, call_address(url, "v1/embeddings"), setting=SETTING) as endpoint:
            embedder = EndpointEmbedder(endpoint, settings, config, cut)
            (vector,) = await embedder.embed_passages(["warm up"])
            embedder.dimensions = len(vector)
            yield embedder


class EndpointEmbedder:
    """Implements `Embedder` by an endpoint, which batches questions itself; passages are batched here."""

    def __init__(self, endpoint: ModelEndpoint, settings: EmbedderSettings, config: ModelConfig, cut: Cut) -> None:
        self.name = settings.name
        self.dimensions = 0  # until the first vector
        self._endpoint = endpoint
        self._settings = settings
        self._config = config
        self._cut = cut
        self._waiting_requests = 0
        self._requests = asyncio.Semaphore(settings.requests)

    async def embed_queries(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return []
        if self._waiting_requests >= self._settings.queue:
            raise EmbeddingUnavailable(f"{self._waiting_requests} requests are waiting for the embedder")
        self._waiting_requests += 1
        try:
            prefixed = [self._config.query_prefix + text for text in texts]
            return await self._embed(
                prefixed, within_seconds=self._settings.query_timeout, most_attempts=QUERY_ATTEMPTS
            )
        finally:
            self._waiting_requests -= 1

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        prefixed = [self._config.passage_prefix + text for text in texts]
        size = self._settings.request_passages
        batches = [prefixed[start : start + size] for start in range(0, len(texts), size)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._embed_batch(batch)) for batch in batches]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [vector for task in tasks for vector in task.result()]

    async def _embed_batch(self, texts: list[str]) -> Vectors:
        async with self._requests:
            return await self._embed(
                texts, within_seconds=self._settings.passage_timeout, most_attempts=PASSAGE_ATTEMPTS
            )

    async def _embed(self, texts: list[str], *, within_seconds: float, most_attempts: int) -> Vectors:
        truncated = await asyncio.to_thread(lambda: [self._cut(text) for text in texts])
        body: dict[str, object] = {"model": self.name, "input": truncated, "encoding_format": "float"}
        with _translate_errors():
            reply = await self._endpoint.ask(
                self._settings.extra_body | body, within_seconds=within_seconds, most_attempts=most_attempts
            )
        return self._vectors(reply, len(texts))

    def _vectors(self, body: bytes, count: int) -> Vectors:
        """Return the `count` vectors of a reply, in the order of the request, scaled to length 1."""
        try:
            reply = _REPLIES.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise EmbeddingUnavailable(f"{self._endpoint.name}: the reply is not valid") from exc
        # A server with one model may ignore the requested name; some append a release to it.
        if reply.model and not reply.model.startswith(self.name):
            raise EmbeddingUnavailable(
                f"{self._endpoint.name} embeds with {reply.model}, not with {self.name}: set EMBEDDER__MODEL"
            )
        vectors = [item.embedding for item in sorted(reply.data, key=lambda item: item.index)]
        sizes = {len(vector) for vector in vectors}
        if len(vectors) != count or len(sizes) != 1:
            raise EmbeddingUnavailable(f"{self._endpoint.name}: the reply does not have the requested vectors")
        if self.dimensions and sizes != {self.dimensions}:
            raise EmbeddingUnavailable(
                f"{self._endpoint.name}: {self.name} gives vectors of {sizes.pop()} dimensions, not of "
                f"{self.dimensions}: look at EMBEDDER__MODEL"
            )
        return self._unit_vectors(vectors)

    def _unit_vectors(self, vectors: Vectors) -> Vectors:
        array = np.asarray(vectors, np.float64)
        lengths = np.linalg.norm(array, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise EmbeddingUnavailable(f"{self._endpoint.name}: a vector without a direction")
        normalised: Vectors = (array / lengths).tolist()
        return normalised


def _open_cut(settings: EmbedderSettings, config: ModelConfig) -> Cut:
    """Return a function that truncates texts to the model's limit, or returns them unchanged if the limit is unknown.

    Raises:
        EmbeddingUnavailable: the tokenizer cannot be read.
    """
    if settings.tokenizer is None or config.max_tokens is None:
        return lambda text: text
    file = settings.tokenizer / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as exc:
        raise EmbeddingUnavailable(f"EMBEDDER__TOKENIZER: {file} cannot be read: {exc}") from exc
    tokenizer.no_padding()
    tokenizer.enable_truncation(config.max_tokens - ADDED_TOKENS)

    def cut(text: str) -> str:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        if not encoding.overflowing:
            return text
        _, end_of_last_token = encoding.offsets[-1]
        return text[:end_of_last_token]

    return cut


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Translate the errors of an endpoint to EmbeddingUnavailable."""
    try:
        yield
    except EndpointFailed as exc:
        raise EmbeddingUnavailable(str(exc)) from exc
