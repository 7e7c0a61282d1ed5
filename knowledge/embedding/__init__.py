"""Dense vectors of passages and questions: a model in process, micro-batched, on a CPU by OpenVINO; or an endpoint."""

from knowledge.embedding.embedding import (
    Embedder,
    EmbedderMissing,
    EmbedderSettings,
    EmbeddingUnavailable,
    open_embedder,
)
from knowledge.embedding.openvino_cache import NotConverted, cached_model

__all__ = [
    "Embedder",
    "EmbedderMissing",
    "EmbedderSettings",
    "EmbeddingUnavailable",
    "NotConverted",
    "cached_model",
    "open_embedder",
]
