"""Sparse vectors: Korean morphemes and English stems with BM25 term weights."""

from knowledge.terms.sparse import TERMS_VERSION, Morpheme, SparseTerms, Terms, morphology

__all__ = ["TERMS_VERSION", "Morpheme", "SparseTerms", "Terms", "morphology"]
