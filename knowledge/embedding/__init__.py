"""Dense vectors of passages and questions: sentence-transformers in process, micro-batched, on OpenVINO where it is
faster.
"""

from knowledge.embedding.embedding import (
    Embedder,
    EmbedderMissing,
    EmbedderSettings,
    EmbeddingUnavailable,
    open_embedder,
)
from knowledge.embedding.openvino_cache import NotConverted, keep_encoder

__all__ = [
    "Embedder",
    "EmbedderMissing",
    "EmbedderSettings",
    "EmbeddingUnavailable",
    "NotConverted",
    "keep_encoder",
    "open_embedder",
]
