"""Dense vectors of passages and questions: sentence-transformers in process, micro-batched, on a CPU by OpenVINO."""

from knowledge.embedding.embedding import (
    Embedder,
    EmbedderMissing,
    EmbedderSettings,
    EmbeddingUnavailable,
    open_embedder,
)
from knowledge.embedding.openvino_cache import NotConverted, cached_encoder

__all__ = [
    "Embedder",
    "EmbedderMissing",
    "EmbedderSettings",
    "EmbeddingUnavailable",
    "NotConverted",
    "cached_encoder",
    "open_embedder",
]
