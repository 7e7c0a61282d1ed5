"""From a question in its conversation to the passages that the caller may read."""

from chatbot.retrieval.reranking import RerankerMissing, RerankerSettings, open_reranker
from chatbot.retrieval.search import Retrieval, RetrievalSettings, SearchResult, quoting_query
from chatbot.retrieval.standalone import EarlierQuestion

__all__ = [
    "EarlierQuestion",
    "RerankerMissing",
    "RerankerSettings",
    "Retrieval",
    "RetrievalSettings",
    "SearchResult",
    "open_reranker",
    "quoting_query",
]
