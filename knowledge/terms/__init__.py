"""Sparse vectors: Korean morphemes and English stems with BM25 term weights."""

from knowledge.terms.sparse import Morpheme, SparseTerms, Terms, morphology

__all__ = ["Morpheme", "SparseTerms", "Terms", "morphology"]
