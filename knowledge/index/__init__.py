"""The passage index: one filter for every search, dense and sparse halves fused, collections behind an alias."""

from knowledge.index.index import (
    EmbedderMismatch,
    Index,
    IndexSettings,
    IndexUnavailable,
    indexed_text,
    open_index,
    visible_filter,
)

__all__ = [
    "EmbedderMismatch",
    "Index",
    "IndexSettings",
    "IndexUnavailable",
    "indexed_text",
    "open_index",
    "visible_filter",
]
