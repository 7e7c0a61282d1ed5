"""Is the answer in these passages? Judged from the two halves of retrieval and one token of the model.

`score` is a logistic model over the best term score, the share of the question's topics that no passage names, and the
model's own odds of "yes", passage by passage; how its weights were fitted stands in
docs/decisions/0002-answerability.md.
"""

import math
from collections.abc import Sequence

from pydantic import BaseModel

from knowledge.passage import Hit, Language

_CLOSE = 1e-4


class AnswerabilitySettings(BaseModel, frozen=True):
    """Weights and threshold; `least_dense` refuses without asking the model: nothing near was found."""

    threshold: float = 0.4
    least_dense: float = 0.78
    bias: float = -7.236
    first: float = 0.522
    """Of the model's log-odds for the first passage."""
    likeliest: float = 0.127
    """Of its log-odds for the likeliest one."""
    terms: float = 4.171
    unknown: float = -4.405
    english: float = 2.03
    """Added for English questions: the model says yes to them less readily, and their term scores are lower."""


def nothing_near(hits: Sequence[Hit], settings: AnswerabilitySettings) -> bool:
    """Return whether no passage is near enough for an answer to be thinkable."""
    return not hits or max(hit.dense for hit in hits) < settings.least_dense


def score(
    hits: Sequence[Hit],
    probabilities: Sequence[float],
    unknown: float,
    language: Language,
    settings: AnswerabilitySettings,
) -> float:
    """Return the probability in [0, 1] that the passages hold the answer.

    `probabilities` are the model's for "yes" to the passages asked so far, at least one, in their order; `unknown` is
    the share of the question's topics that no passage names.
    """
    z = settings.bias + settings.first * log_odds(probabilities[0])
    z += settings.likeliest * log_odds(max(probabilities))
    z += settings.terms * math.log1p(max(hit.terms for hit in hits))
    z += settings.unknown * unknown + settings.english * (language == "en")
    return 1 / (1 + math.exp(-z))


def log_odds(probability: float) -> float:
    """Return ln(p / (1 - p)), bounded: a model that is quite sure is no surer than that."""
    p = min(max(probability, _CLOSE), 1 - _CLOSE)
    return math.log(p / (1 - p))
