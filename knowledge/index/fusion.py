"""Fusion: two ranked lists of different nature, made into one by adding their z-scores.

Reciprocal ranks throw away how far apart the scores are: .859 on ko_autorag_docs, where the terms alone reach .939. Why
z-scores, and where the weights come from, is in docs/decisions/0001-fusion-of-scores.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from pydantic import BaseModel, Field

from knowledge.passage import Language

_LANGUAGE_LEVEL = 20
"""Of so many best passages the mean is how near a language comes to a question."""


class FusionSettings(BaseModel, frozen=True):
    """How many candidates each half names, and how much the dense half counts in each language (the rest is terms)."""

    candidates: int = Field(default=100, ge=1, le=1000)
    dense_weight_ko: float = Field(default=0.4, ge=0, le=1)
    dense_weight_en: float = Field(default=0.65, ge=0, le=1)
    language_balance: float = Field(default=0.5, ge=0, le=1)
    """How much of the lead that an embedder gives to passages in the question's own language is taken away."""

    def dense_weight(self, language: Language) -> float:
        return self.dense_weight_ko if language == "ko" else self.dense_weight_en


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """One candidate: its fused score, and its terms' score (`None`: below their candidates)."""

    point_id: str
    score: float
    terms: float | None


def fuse(dense: Mapping[str, float], terms: Mapping[str, float], *, weight: float, candidates: int) -> list[Fused]:
    """Return every candidate of either half, best first, ordered by weight × z(dense) + (1 - weight) × z(terms).

    A half that named fewer than `candidates` has been exhausted: what it did not name scored 0 there, and counts so in
    its mean. A half that was cut off gives its lowest score to what it did not name. Equal scores: in order of ids.
    """
    everything = sorted(dense.keys() | terms.keys())
    by_dense = _standardised(dense, everything, exhausted=False)
    by_terms = _standardised(terms, everything, exhausted=len(terms) < candidates)
    fused = [
        Fused(
            point_id=point,
            score=weight * by_dense[point] + (1 - weight) * by_terms[point],
            terms=terms.get(point, 0.0 if len(terms) < candidates else None),
        )
        for point in everything
    ]
    return sorted(fused, key=lambda one: -one.score)


def balanced(by_language: Sequence[Mapping[str, float]], *, share: float, candidates: int) -> dict[str, float]:
    """Return the best of several languages' cosines in one scale, less `share` of what sets a language off as a whole.

    A multilingual embedder puts a question nearer to everything in its own language: .02 of .85, more than lies between
    the right passage in the other language and the twentieth in its own.
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
    return dict(sorted(lifted.items(), key=lambda one: (-one[1], one[0]))[:candidates])


def _standardised(scores: Mapping[str, float], everything: list[str], *, exhausted: bool) -> dict[str, float]:
    """Return z-scores for all candidates; a half that cannot tell them apart says 0 of each."""
    if not scores:
        return dict.fromkeys(everything, 0.0)
    floor = 0.0 if exhausted else min(scores.values())
    sample = [scores.get(point, floor) for point in everything] if exhausted else list(scores.values())
    mean, spread = fmean(sample), pstdev(sample)
    if spread < 1e-9:
        return dict.fromkeys(everything, 0.0)
    return {point: (scores.get(point, floor) - mean) / spread for point in everything}
