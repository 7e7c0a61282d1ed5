"""Find the passages for a question in its conversation that the caller may read."""

from chatbot.retrieval.reranking import RerankerRefused, RerankerSettings, open_reranker
from chatbot.retrieval.search import PASSAGES, Retrieval, SearchResult

__all__ = [
    "PASSAGES",
    "RerankerRefused",
    "RerankerSettings",
    "Retrieval",
    "SearchResult",
    "open_reranker",
]
