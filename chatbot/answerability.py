"""Whether passages hold the answer to a question, from both scores of retrieval and one token of the model (pure).

`score` is a logistic regression over the best term score, the cosine of the nearest passage, the share of the
question's topics that no passage names, and the model's log-odds of "yes"; how its weights were fitted on three banks'
documents: docs/decisions/0002-answerability.md.
"""

import math
from collections.abc import Sequence

from pydantic import BaseModel, Field

from knowledge.passage import Hit, Language

_CLIP = 1e-4
"""Probabilities are clipped to [1e-4, 1 - 1e-4] before their log-odds are taken."""


class AnswerabilitySettings(BaseModel, frozen=True):
    """Weights and threshold; below `least_dense`, the least cosine, the model is not asked: nothing near was found."""

    threshold: float = Field(0.45, description="ratio: how probable it must be that the passages hold the answer")
    least_dense: float = Field(
        0.78, description="ratio: the least cosine of the nearest passage; below it the model is not asked"
    )
    bias: float = Field(-4.131, description="weight: the constant of the fit")
    first: float = Field(0.453, description="weight: of the model's log-odds for the first passage")
    likeliest: float = Field(
        0.0, description="weight: of its log-odds for the likeliest of the first three; 0 asks about the first alone"
    )
    dense: float = Field(1.042, description="weight: of the nearest passage's cosine, as 20 x (cosine - 0.85)")
    terms: float = Field(2.186, description="weight: of the highest term score, as ln(1 + score)")
    unknown: float = Field(-3.557, description="weight: of the share of the question's topics that no passage names")
    english: float = Field(
        1.48, description="weight: added for English questions, to which the model says yes less readily"
    )


def nothing_near(hits: Sequence[Hit], settings: AnswerabilitySettings) -> bool:
    """Return whether no passage is near enough to the question to hold its answer."""
    return not hits or max(hit.dense for hit in hits) < settings.least_dense


def score(
    hits: Sequence[Hit],
    probabilities: Sequence[float],
    unknown: float,
    language: Language,
    settings: AnswerabilitySettings,
) -> float:
    """Return the probability in [0, 1] that the passages hold the answer.

    `probabilities` are the model's of "yes" to the passages probed so far, at least one, in their order; `unknown` is
    the share in [0, 1] of the question's topics that no passage names.
    """
    z = settings.bias + settings.first * log_odds(probabilities[0])
    z += settings.likeliest * log_odds(max(probabilities))
    z += settings.dense * nearness(max(hit.dense for hit in hits))
    z += settings.terms * math.log1p(max(hit.terms for hit in hits))
    z += settings.unknown * unknown + settings.english * (language == "en")
    return 1 / (1 + math.exp(-z))


def settled(score: float, settings: AnswerabilitySettings) -> bool:
    """Return whether no further passage needs to be probed: the score is enough, or the others count nothing in it."""
    return score >= settings.threshold or not settings.likeliest


def nearness(cosine: float) -> float:
    """Return a cosine on a scale of its own: 0 at .85, 1 at .90 (e5's cosines lie between .78 and .95)."""
    return 20 * (cosine - 0.85)


def log_odds(probability: float) -> float:
    """Return ln(p / (1 - p)) of the clipped probability."""
    p = min(max(probability, _CLIP), 1 - _CLIP)
    return math.log(p / (1 - p))
