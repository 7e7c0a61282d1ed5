"""Fusion of a dense and a lexical ranking by the weighted sum of their z-scores.

Reciprocal rank fusion discards the distances between scores: it reaches an nDCG of .859 on ko_autorag_docs, where the
terms alone reach .939. docs/decisions/0001-fusion-of-scores.md explains the z-scores and the weights.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import msgspec
from pydantic import BaseModel, Field

from knowledge.passage import Language

_LANGUAGE_LEVEL = 20
"""The level of a language for a question is the mean cosine of this many of its best passages."""


class FusionSettings(BaseModel, frozen=True):
    """The number of candidates of each half, and the weight of the dense half; the lexical half has the rest."""

    candidates: int = Field(default=200, ge=1, le=1000)
    dense_weight_ko: float = Field(default=0.45, ge=0, le=1)
    dense_weight_en: float = Field(default=0.65, ge=0, le=1)
    language_balance: float = Field(default=0.5, ge=0, le=1)
    """The share in [0, 1] that is removed from the embedder's preference for the question's own language."""

    def dense_weight(self, language: Language) -> float:
        """Return the weight of the dense half for a question in this language."""
        return self.dense_weight_ko if language == "ko" else self.dense_weight_en


class Fused(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate: its fused score and its term score (None if the lexical half was cut off before it)."""

    point_id: str
    score: float
    terms: float | None


def fuse(dense: Mapping[str, float], terms: Mapping[str, float], *, weight: float, candidates: int) -> list[Fused]:
    """Return every candidate of either half, best first by weight × z(dense) + (1 - weight) × z(terms), then by id.

    The lexical half is complete if it has fewer than `candidates` results; then a point that it lacks scores 0 there,
    and counts in the mean. Otherwise, and in the dense half, a missing point gets the half's lowest score.
    """
    points = sorted(dense.keys() | terms.keys())
    are_terms_complete = len(terms) < candidates
    by_dense = _standardised(dense, points, is_complete=False)
    by_terms = _standardised(terms, points, is_complete=are_terms_complete)
    fused = [
        Fused(
            point_id=point,
            score=weight * by_dense[point] + (1 - weight) * by_terms[point],
            terms=terms.get(point, 0.0 if are_terms_complete else None),
        )
        for point in points
    ]
    return sorted(fused, key=lambda candidate: -candidate.score)


def balanced(by_language: Sequence[Mapping[str, float]], *, share: float, candidates: int) -> dict[str, float]:
    """Return the `candidates` best cosines of several languages, on one scale.

    Each cosine is raised by `share` of the distance between its language's level and the highest level. A multilingual
    embedder scores passages in the question's own language higher by .02 (of .85): more than the distance between the
    right passage in the other language and the twentieth in the question's own.
    """
    levels = [_level(scores) for scores in by_language]
    highest = max(levels, default=0.0)
    raised: dict[str, float] = {}
    for scores, level in zip(by_language, levels, strict=True):
        raised |= {point: score + share * (highest - level) for point, score in scores.items()}
    best_first = sorted(raised.items(), key=lambda item: (-item[1], item[0]))
    return dict(best_first[:candidates])


def _level(scores: Mapping[str, float]) -> float:
    return fmean(sorted(scores.values(), reverse=True)[:_LANGUAGE_LEVEL]) if scores else 0.0


def _standardised(scores: Mapping[str, float], points: list[str], *, is_complete: bool) -> dict[str, float]:
    """Return the z-scores of all points, or zeros if all scores are equal; see `fuse` for missing points."""
    if not scores:
        return dict.fromkeys(points, 0.0)
    floor = 0.0 if is_complete else min(scores.values())
    sample = [scores.get(point, floor) for point in points] if is_complete else list(scores.values())
    mean = fmean(sample)
    spread = math.sqrt(fmean((score - mean) ** 2 for score in sample))
    if spread < 1e-9:
        return dict.fromkeys(points, 0.0)
    return {point: (scores.get(point, floor) - mean) / spread for point in points}
