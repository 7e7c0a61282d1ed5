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
from knowledge.model_connection import EndpointFailed, EndpointRefused
from knowledge.model_endpoint import ModelEndpoint, call_address, open_model_endpoint

Cut = Callable[[str], str]
"""Truncates a text to the model's limit."""

SETTING = "EMBEDDER"
QUERY_ATTEMPTS = 2
PASSAGE_ATTEMPTS = 8
ENDS = 2
"""The tokens that the server adds at a text's beginning and end."""


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class _EmbeddingsReply(msgspec.Struct):
    data: list[_Embedding]
    model: str = ""


_REPLIES = msgspec.json.Decoder(_EmbeddingsReply)


@asynccontextmanager
async def open_served(settings: EmbedderSettings) -> AsyncGenerator["EndpointEmbedder"]:
    """Open the configured endpoint and embed a first text there.

    Raises:
        EmbeddingUnavailable: the endpoint denies access, or does not embed with the configured model.
        EmbeddingUnavailable: the folder of the tokenizer cannot be read.
        EmbeddingUnavailable: the endpoint does not answer.
    """
    config = await asyncio.to_thread(read_model_config, settings)
    cut = await asyncio.to_thread(_open_cut, settings, config)
    url = URL(str(settings.url))
    with _translated():
        async with open_model_endpoint(settings, call_address(url, "v1/embeddings"), setting=SETTING) as endpoint:
            embedder = EndpointEmbedder(endpoint, settings, config, cut)
            (vector,) = await embedder.embed_passages(["warm up"])
            embedder.dimensions = len(vector)
            yield embedder


class EndpointEmbedder:
    """Sends a limited number of requests to an endpoint, which batches questions itself; passages are batched here."""

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
        """Return one vector for each question, in order."""
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
        """Return one vector for each passage, in order."""
        step, prefix = self._settings.request_passages, self._config.passage_prefix
        batches = [[prefix + text for text in texts[n : n + step]] for n in range(0, len(texts), step)]
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
        readable = await asyncio.to_thread(lambda: [self._cut(text) for text in texts])
        own: dict[str, object] = {"model": self.name, "input": readable, "encoding_format": "float"}
        with _translated():
            reply = await self._endpoint.ask(
                {**self._settings.extra_body, **own}, within_seconds=within_seconds, most_attempts=most_attempts
            )
        return self._vectors(reply, len(texts))

    def _vectors(self, body: bytes, count: int) -> Vectors:
        try:
            reply = _REPLIES.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise EmbeddingUnavailable(f"{self._endpoint.name}: the reply is not valid") from exc
        # A single-model server may ignore the requested name; some append a release to it.
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
        return self._of_length_one(vectors)

    def _of_length_one(self, vectors: Vectors) -> Vectors:
        array = np.asarray(vectors, np.float64)
        lengths = np.linalg.norm(array, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise EmbeddingUnavailable(f"{self._endpoint.name}: a vector without a direction")
        normalised: Vectors = (array / lengths).tolist()
        return normalised


def _open_cut(settings: EmbedderSettings, config: ModelConfig) -> Cut:
    """Return a function that truncates texts with the model's tokenizer; without tokenizer or limit it does nothing.

    Raises:
        EmbeddingUnavailable: the tokenizer cannot be read.
    """
    if settings.tokenizer is None or config.max_tokens is None:
        return lambda text: text
    file, most = settings.tokenizer / "tokenizer.json", config.max_tokens - ENDS
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as exc:
        raise EmbeddingUnavailable(f"EMBEDDER__TOKENIZER: {file} cannot be read: {exc}") from exc
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)

    def cut(text: str) -> str:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        return text[: encoding.offsets[-1][1]] if encoding.overflowing else text

    return cut


@contextmanager
def _translated() -> Iterator[None]:
    """Translate the errors of an endpoint."""
    try:
        yield
    except EndpointRefused as exc:
        raise EmbeddingUnavailable(str(exc)) from exc
    except EndpointFailed as exc:
        raise EmbeddingUnavailable(str(exc)) from exc
