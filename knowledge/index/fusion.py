"""Fusion of a dense and a lexical ranking by the weighted sum of their z-scores.

Reciprocal rank fusion discards the distances of scores: .859 on ko_autorag_docs, where the terms alone reach .939. Why
z-scores, and where the weights come from, is in docs/decisions/0001-fusion-of-scores.md.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import msgspec
from pydantic import BaseModel, Field

from knowledge.passage import Language

_LANGUAGE_LEVEL = 20
"""The mean cosine of so many best passages is the level of a language for a question."""


class FusionSettings(BaseModel, frozen=True):
    """The number of candidates of each half, and the weight of the dense half in each language (the rest is terms)."""

    candidates: int = Field(default=200, ge=1, le=1000)
    dense_weight_ko: float = Field(default=0.45, ge=0, le=1)
    dense_weight_en: float = Field(default=0.65, ge=0, le=1)
    language_balance: float = Field(default=0.5, ge=0, le=1)
    """The share in [0, 1] that is removed of the embedder's lead for passages in the question's own language."""

    def dense_weight(self, language: Language) -> float:
        """Return the weight of the dense half for a question in this language."""
        return self.dense_weight_ko if language == "ko" else self.dense_weight_en


class Fused(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate: its fused score, and the score of its terms (None where it is below their candidates)."""

    point_id: str
    score: float
    terms: float | None


def fuse(dense: Mapping[str, float], terms: Mapping[str, float], *, weight: float, candidates: int) -> list[Fused]:
    """Return every candidate of either half, best first, ordered by weight × z(dense) + (1 - weight) × z(terms).

    A half with fewer than `candidates` results is exhausted: a point that is not among them has the score 0 there, also
    in the mean. In a half that was cut off such a point has the lowest score. Equal scores are ordered by id.
    """
    points = sorted(dense.keys() | terms.keys())
    by_dense = _standardised(dense, points, exhausted=False)
    by_terms = _standardised(terms, points, exhausted=len(terms) < candidates)
    fused = [
        Fused(
            point_id=point,
            score=weight * by_dense[point] + (1 - weight) * by_terms[point],
            terms=terms.get(point, 0.0 if len(terms) < candidates else None),
        )
        for point in points
    ]
    return sorted(fused, key=lambda candidate: -candidate.score)


def balanced(by_language: Sequence[Mapping[str, float]], *, share: float, candidates: int) -> dict[str, float]:
    """Return the best cosines of several languages on one scale: each is raised by `share` of its language's distance
    to the best level.

    A multilingual embedder gives passages in the question's own language higher cosines: by .02 of .85, more than the
    distance between the right passage in the other language and the twentieth in its own.
    """
    levels = [
        fmean(sorted(scores.values(), reverse=True)[:_LANGUAGE_LEVEL]) if scores else 0.0 for scores in by_language
    ]
    highest = max(levels, default=0.0)
    lifted = {
        point: score + share * (highest - level)
        for scores, level in zip(by_language, levels, strict=True)
        for point, score in scores.items()
    }
    return dict(sorted(lifted.items(), key=lambda item: (-item[1], item[0]))[:candidates])


def _standardised(scores: Mapping[str, float], points: list[str], *, exhausted: bool) -> dict[str, float]:
    """Return the z-scores of all points; 0 for each where the scores do not differ."""
    if not scores:
        return dict.fromkeys(points, 0.0)
    floor = 0.0 if exhausted else min(scores.values())
    sample = [scores.get(point, floor) for point in points] if exhausted else list(scores.values())
    mean = fmean(sample)
    spread = math.sqrt(fmean((score - mean) ** 2 for score in sample))
    if spread < 1e-9:
        return dict.fromkeys(points, 0.0)
    return {point: (scores.get(point, floor) - mean) / spread for point in points}
