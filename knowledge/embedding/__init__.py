"""Dense vectors of passages and questions, from an endpoint or from a model in this process (OpenVINO on a CPU)."""

from knowledge.embedding.embedding import Embedder, open_embedder
from knowledge.embedding.encoder import compile_encoder, read_tokenizer
from knowledge.embedding.errors import EmbeddingUnavailable
from knowledge.embedding.model_config import read_model_config
from knowledge.embedding.openvino_cache import GRAPH, TOKENIZER, NotConverted, cached_model, converted_folder
from knowledge.embedding.settings import DEFAULT_FOLDER, EmbedderSettings, hub_folder

__all__ = [
    "DEFAULT_FOLDER",
    "GRAPH",
    "TOKENIZER",
    "Embedder",
    "EmbedderSettings",
    "EmbeddingUnavailable",
    "NotConverted",
    "cached_model",
    "compile_encoder",
    "converted_folder",
    "hub_folder",
    "open_embedder",
    "read_model_config",
    "read_tokenizer",
]
