"""From a question in its conversation to the passages that the caller may read."""

from chatbot.retrieval.reranking import RerankerRefused, RerankerSettings, open_reranker
from chatbot.retrieval.search import Retrieval, RetrievalSettings, SearchResult

__all__ = [
    "RerankerRefused",
    "RerankerSettings",
    "Retrieval",
    "RetrievalSettings",
    "SearchResult",
    "open_reranker",
]
