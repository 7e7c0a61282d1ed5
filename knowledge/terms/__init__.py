"""Sparse vectors: Korean morphemes and English stems with BM25 term weights."""

from knowledge.terms.sparse import SparseTerms, Terms

__all__ = ["SparseTerms", "Terms"]
