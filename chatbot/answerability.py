"""Whether passages hold the answer to a question: a logistic regression over retrieval and the model's "yes" (pure).

Its weights hold for the embedder, model and probe that they were fitted with (`calibration.py`,
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
"""The probability of "yes" of a model that has no opinion; it says yes less readily in English."""
_SURE = 0.99
"""The probability of "yes" that hardly any probe exceeds."""


class Evidence(StrEnum):
    """What the passages are worth as an answer to a question."""

    CERTAIN = "certain"
    NEAR = "near"
    NONE = "none"


class AnswerabilityWeights(BaseModel, frozen=True, extra="forbid"):
    """The fitted values; what each means stands in `AnswerabilitySettings`."""

    threshold: float
    near: float
    least_dense: float
    bias: float
    first: float
    likeliest: float
    dense: float
    terms: float
    unknown: float
    english: float


MODELS_WORD = AnswerabilityWeights(
    threshold=0.5, near=0.1, least_dense=-1, bias=0, first=1, likeliest=0, dense=0, terms=0, unknown=-4, english=0
)
"""Where nothing was fitted with what is served: a question is answered if the model itself says rather yes than no, the
less readily the more of its topics even the passage with most of them lacks."""


class AnswerabilitySettings(BaseModel, frozen=True):
    """Values of an operator's own in place of the calibration's; those that are not set are the calibration's."""

    threshold: float | None = Field(
        None, description="ratio: how probable it must be that the passages hold the answer"
    )
    near: float | None = Field(
        None, description="ratio: how probable it must be so that they are shown as near, without certainty"
    )
    least_dense: float | None = Field(
        None, description="ratio: the least cosine of the nearest passage; below it the model is not asked"
    )

    def over(self, weights: AnswerabilityWeights) -> AnswerabilityWeights:
        """Return the weights with the values that are set here."""
        return weights.model_copy(update=self.model_dump(exclude_none=True))


def nothing_near(hits: Sequence[Hit], weights: AnswerabilityWeights) -> bool:
    """Return whether no passage is near enough to the question to hold its answer."""
    return not hits or max(hit.dense for hit in hits) < weights.least_dense


def score(
    hits: Sequence[Hit],
    probabilities: Sequence[float],
    unknown: float,
    language: Language,
    weights: AnswerabilityWeights,
) -> float:
    """Return the probability in [0, 1] that the passages hold the answer.

    `probabilities` are the model's of "yes" to the passages probed so far, at least one, in their order; `unknown` is
    the share in [0, 1] of the question's topics that even the passage with most of them lacks.
    """
    z = weights.bias + weights.first * log_odds(probabilities[0])
    z += weights.likeliest * log_odds(max(probabilities))
    z += weights.dense * nearness(max(hit.dense for hit in hits))
    z += weights.terms * math.log1p(max(hit.terms for hit in hits))
    z += weights.unknown * unknown + weights.english * (language == "en")
    return (1 + math.tanh(z / 2)) / 2  # the logistic function, without its overflow


def evidence(score: float, weights: AnswerabilityWeights) -> Evidence:
    """Return what a score makes of the passages."""
    if score >= weights.threshold:
        return Evidence.CERTAIN
    return Evidence.NEAR if score >= weights.near else Evidence.NONE


def evidence_of_search(
    hits: Sequence[Hit], unknown: float, language: Language, weights: AnswerabilityWeights
) -> Evidence | None:
    """Return what the passages are worth by the search alone; None where the model's word decides."""
    if not hits or weights.dense == weights.terms == 0:  # nothing was fitted with what is served
        return None
    if score(hits, [_UNDECIDED[language]], unknown, language, weights) >= weights.threshold:
        return Evidence.CERTAIN
    return Evidence.NONE if score(hits, [_SURE], unknown, language, weights) < weights.near else None


def nearness(cosine: float) -> float:
    """Return a cosine on a scale of its own: 0 at .85, 1 at .90 (e5's cosines lie between .78 and .95)."""
    return 20 * (cosine - 0.85)


def log_odds(probability: float) -> float:
    """Return ln(p / (1 - p)) of the clipped probability."""
    p = min(max(probability, _CLIP), 1 - _CLIP)
    return math.log(p / (1 - p))
