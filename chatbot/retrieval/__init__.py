"""From a question in its conversation to the passages that its caller may read."""

from chatbot.retrieval.reranking import RerankerMissing, RerankerSettings, open_reranker
from chatbot.retrieval.search import Found, Retrieval, RetrievalSettings, Wording

__all__ = [
    "Found",
    "RerankerMissing",
    "RerankerSettings",
    "Retrieval",
    "RetrievalSettings",
    "Wording",
    "open_reranker",
]
