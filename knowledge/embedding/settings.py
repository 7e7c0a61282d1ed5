"""Selects the embedder: a sentence-transformers folder, a model of a hub at a pinned commit, or an endpoint."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import AnyHttpUrl, Field, model_validator

from knowledge.embedding.encoder import DType
from knowledge.model_endpoint import ModelEndpointSettings

DEFAULT_FOLDER = "e5-small"
"""The default folder, below the folder of weights; `llm-server fetch e5-small` creates it."""


def hub_name(model: str, revision: str) -> str:
    """Return our name for a hub's model at a commit."""
    return f"{model}@{revision[:12]}"


def hub_folder(model: str, revision: str) -> str:
    """Return the folder name of a hub's model at a commit, below the folder of weights."""
    return hub_name(model, revision).replace("/", "--")


class EmbedderSettings(ModelEndpointSettings, frozen=True):
    """The embedder: a `folder`, a hub's `model` at a `revision`, or the `url` of an endpoint that serves a `model`.

    A core with bfloat16 embeds 3,700 tokens a second, and a short query in 9 ms; a CPU without it computes in float32.
    """

    folder: Path | None = Field(
        None,
        description="The embedder is this sentence-transformers folder. Default: `e5-small` in WEIGHTS_DIR.",
    )
    url: AnyHttpUrl | None = Field(
        None,
        description="An OpenAI-compatible server at this URL (vLLM, TEI, OpenAI) embeds texts, in place of a folder.",
    )
    model: str | None = Field(
        None, description="The endpoint or the hub knows the model by this name. Collections record it."
    )
    revision: str | None = Field(
        None, pattern=r"^[0-9a-f]{40}$", description="The hub's model at this commit, as `llm-server fetch` brings it."
    )
    tokenizer: Path | None = Field(
        None,
        description=(
            "An endpoint's tokenizer, prefixes and input length are read from this folder. Default: passages are "
            "counted by `e5-small`'s."
        ),
    )
    query_prefix: str | None = Field(
        None, description="This text precedes a question. Default: the model's configuration."
    )
    passage_prefix: str | None = Field(
        None, description="This text precedes a passage. Default: the model's configuration."
    )
    query_timeout: ClassVar[float] = 2.0  # seconds; an endpoint's deadline for a question
    passage_timeout: ClassVar[float] = 30.0  # seconds; the same for a batch of passages, retries included
    requests: ClassVar[int] = 4  # max concurrent passage requests per endpoint
    request_passages: ClassVar[int] = 32  # max passages per request to an endpoint
    # Two threads would synchronise dozens of times per text, and wait each time for a core that vLLM uses.
    threads: ClassVar[int] = 1  # OpenVINO threads per worker
    dtype: DType = Field("bfloat16", description="A folder's model computes in this type if the machine can.")
    window: ClassVar[float] = 0.002  # seconds; questions that arrive within it are embedded together in this process
    query_batch: ClassVar[int] = 16  # max questions per batch in this process
    # Long passages are limited further by `BATCH_BYTES`, to keep the wait of questions short.
    passage_batch: ClassVar[int] = 8  # max passages per batch in this process
    queue: ClassVar[int] = 256  # max waiting requests with questions; further ones are rejected at once
    # Workers share one model of 440 MB, and each further one takes 110 MB. Two workers double the throughput, two
    # threads of one worker do not.
    workers: ClassVar[int] = 1  # concurrent worker threads in this process

    @model_validator(mode="after")
    def _source_is_unique(self) -> Self:
        if sum((self.folder is not None, self.url is not None, self.revision is not None)) > 1:
            raise ValueError("set one of the embedder's folder, url and revision (of a hub's model)")
        if not self.model and self.url is not None:
            raise ValueError("an embedding endpoint needs the name of its model: set model")
        if not self.model and self.revision is not None:
            raise ValueError("a revision needs the name of the hub's model: set model")
        if self.model and self.folder is None and self.url is None and self.revision is None:
            raise ValueError("model is set, but not its place: set folder, url, or the hub's revision")
        return self

    @property
    def name(self) -> str:
        """The name that a collection records; embedders with different vectors must have different names."""
        if self.revision is not None:
            return hub_name(self.model or "", self.revision)
        if self.model:
            return self.model
        return "" if self.folder is None else self.folder.name

    def with_folder_in(self, weights: Path) -> "EmbedderSettings":
        """Return the settings with the folder set below `weights`, unless a folder or an endpoint is configured."""
        if self.folder is not None or self.url is not None:
            return self
        name = DEFAULT_FOLDER if self.revision is None else hub_folder(self.model or "", self.revision)
        return self.model_copy(update={"folder": weights.expanduser() / name})
