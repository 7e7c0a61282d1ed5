"""Dense vectors of passages and questions, from an endpoint or from a model in this process (OpenVINO on a CPU)."""

from knowledge.embedding.embedding import Embedder, open_embedder
from knowledge.embedding.encoder import read_tokenizer
from knowledge.embedding.errors import EmbeddingUnavailable
from knowledge.embedding.hub import fetch_model
from knowledge.embedding.model_config import read_model_config
from knowledge.embedding.openvino_cache import NotConverted, cached_model, convert_model
from knowledge.embedding.settings import DEFAULT_FOLDER, EmbedderSettings

__all__ = [
    "DEFAULT_FOLDER",
    "Embedder",
    "EmbedderSettings",
    "EmbeddingUnavailable",
    "NotConverted",
    "cached_model",
    "convert_model",
    "fetch_model",
    "open_embedder",
    "read_model_config",
    "read_tokenizer",
]
