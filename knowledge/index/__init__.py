"""The passage index: one filter for every search, dense and sparse halves fused, collections behind an alias."""

from knowledge.index.engine import EmbedderMismatch, IndexInUse, IndexRefused, IndexUnavailable
from knowledge.index.index import Index, indexed_text, open_index
from knowledge.index.settings import IndexSettings, QdrantUrl, ServerSettings

__all__ = [
    "EmbedderMismatch",
    "Index",
    "IndexInUse",
    "IndexRefused",
    "IndexSettings",
    "IndexUnavailable",
    "QdrantUrl",
    "ServerSettings",
    "indexed_text",
    "open_index",
]
