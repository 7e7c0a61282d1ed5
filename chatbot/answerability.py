"""Estimate whether passages answer a question: a logistic regression over search scores and the model's "yes" (pure).

The weights are valid only for the embedder, model and probe that they were fitted with (`calibration.py`,
docs/decisions/0002-answerability.md).
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum

from pydantic import BaseModel, Field

from knowledge.passage import Hit, Language

_CLIP = 1e-4
"""Probabilities are clipped to [1e-4, 1 - 1e-4] before their log-odds are taken."""
_UNDECIDED: Mapping[Language, float] = {"ko": 0.5, "en": 0.16}
"""The probability of "yes" from a model without an opinion: lower in English."""
_SURE = 0.99
"""A probability of "yes" that very few probes exceed."""


class Evidence(StrEnum):
    """How likely the passages are to hold the answer."""

    CERTAIN = "certain"
    NEAR = "near"
    NONE = "none"


class AnswerabilityWeights(BaseModel, frozen=True, extra="forbid"):
    """The fitted weights and thresholds; `AnswerabilitySettings` describes the thresholds."""

    threshold: float
    near: float
    least_dense: float
    bias: float
    first: float  # of the log-odds of "yes" for the first passage
    likeliest: float  # of the largest log-odds of "yes"
    dense: float  # of the largest cosine
    terms: float  # of the largest score of shared terms
    unknown: float  # of the share of the question's topics that the passages lack
    english: float  # of a question in English


UNCALIBRATED_WEIGHTS = AnswerabilityWeights(
    threshold=0.5, near=0.1, least_dense=-1, bias=0, first=1, likeliest=0, dense=0, terms=0, unknown=-4, english=0
)
"""The weights if no calibration fits: the model's "yes" must be more likely than its "no". Each topic of the question
that the passages lack lowers the probability."""


class AnswerabilitySettings(BaseModel, frozen=True):
    """The operator's overrides of the calibration's thresholds; an unset value keeps the calibration's."""

    threshold: float | None = Field(
        None,
        description="ratio: An answer is certain if the passages hold it with at least this probability.",
    )
    near: float | None = Field(None, description="ratio: Passages are shown as uncertain from this probability.")
    least_dense: float | None = Field(
        None, description="ratio: A question is refused if its nearest passage has a lower cosine."
    )

    def override(self, weights: AnswerabilityWeights) -> AnswerabilityWeights:
        """Return the weights with these overrides applied."""
        return weights.model_copy(update=self.model_dump(exclude_none=True))


def nothing_near(hits: Sequence[Hit], weights: AnswerabilityWeights) -> bool:
    """Return whether every passage is too far from the question to hold its answer."""
    return not hits or max(hit.dense for hit in hits) < weights.least_dense


def score(
    hits: Sequence[Hit],
    probabilities: Sequence[float],
    unknown_share: float,
    language: Language,
    weights: AnswerabilityWeights,
) -> float:
    """Return the probability in [0, 1] that the passages hold the answer.

    `probabilities` are those of "yes" for the passages probed so far, at least one, in order. `unknown_share` is the
    share in [0, 1] of the question's topics that are missing from the passage that has most of them.
    """
    z = weights.bias + weights.first * log_odds(probabilities[0])
    z += weights.likeliest * log_odds(max(probabilities))
    z += weights.dense * nearness(max(hit.dense for hit in hits))
    z += weights.terms * math.log1p(max(hit.terms for hit in hits))
    z += weights.unknown * unknown_share + weights.english * (language == "en")
    return (1 + math.tanh(z / 2)) / 2  # the logistic function, without overflow


def evidence_of_score(score: float, weights: AnswerabilityWeights) -> Evidence:
    """Return the evidence level of a score."""
    if score >= weights.threshold:
        return Evidence.CERTAIN
    return Evidence.NEAR if score >= weights.near else Evidence.NONE


def evidence_of_search(
    hits: Sequence[Hit], unknown_share: float, language: Language, weights: AnswerabilityWeights
) -> Evidence | None:
    """Return the evidence level if the search alone decides it, or None if the model must be asked."""
    is_fitted = weights.dense != 0 or weights.terms != 0
    if not hits or not is_fitted:
        return None
    if score(hits, [_UNDECIDED[language]], unknown_share, language, weights) >= weights.threshold:
        return Evidence.CERTAIN
    highest_score = score(hits, [_SURE], unknown_share, language, weights)
    return Evidence.NONE if highest_score < weights.near else None


def nearness(cosine: float) -> float:
    """Rescale a cosine: .85 becomes 0 and .90 becomes 1 (e5's cosines lie between .78 and .95)."""
    return 20 * (cosine - 0.85)


def log_odds(probability: float) -> float:
    """Return ln(p / (1 - p)) of the clipped probability."""
    p = min(max(probability, _CLIP), 1 - _CLIP)
    return math.log(p / (1 - p))
