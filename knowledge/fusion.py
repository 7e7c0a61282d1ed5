"""Fusion: two ranked lists of different nature, made into one by adding their z-scores.

Reciprocal ranks throw away how far apart the scores are: .859 on ko_autorag_docs, where the terms alone reach .939. Why
z-scores, and where the weights come from, is in docs/decisions/0001-fusion-of-scores.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, pstdev

from pydantic import BaseModel, Field

from knowledge.passage import Language


class FusionSettings(BaseModel, frozen=True):
    """How many candidates each half names, and how much the dense half counts in each language (the rest is terms)."""

    candidates: int = Field(default=100, ge=1, le=1000)
    dense_weight_ko: float = Field(default=0.3, ge=0, le=1)
    dense_weight_en: float = Field(default=0.55, ge=0, le=1)

    def dense_weight(self, language: Language) -> float:
        return self.dense_weight_ko if language == "ko" else self.dense_weight_en


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """One candidate: its fused score, and what each half said of it (`None`: below that half's candidates)."""

    point_id: str
    score: float
    dense: float | None
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
            dense=dense.get(point),
            terms=terms.get(point, 0.0 if len(terms) < candidates else None),
        )
        for point in everything
    ]
    return sorted(fused, key=lambda one: -one.score)


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
