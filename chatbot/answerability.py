"""Is the answer in these passages? Judged from the two halves of retrieval and one token of the model.

`score` is a logistic model over the best term score, the share of the question's topics that no passage names, and the
model's own odds of "yes"; how its weights were fitted stands in docs/decisions/0002-answerability.md.
"""

import math
from collections.abc import Sequence

from pydantic import BaseModel

from knowledge.passage import Hit

_CLOSE = 1e-4


class AnswerabilitySettings(BaseModel, frozen=True):
    """Weights and threshold; `least_dense` refuses without asking the model: nothing near was found."""

    threshold: float = 0.3
    least_dense: float = 0.78
    bias: float = -4.98
    probe: float = 0.53
    terms: float = 1.70
    unknown: float = -0.75


def nothing_near(hits: Sequence[Hit], settings: AnswerabilitySettings) -> bool:
    """Return whether no passage is near enough for an answer to be thinkable."""
    return not hits or max(hit.dense for hit in hits) < settings.least_dense


def score(hits: Sequence[Hit], probability: float, unknown: float, settings: AnswerabilitySettings) -> float:
    """Return the probability in [0, 1] that the passages hold the answer.

    `probability` is the model's for "yes", `unknown` the share of the question's topics that no passage names.
    """
    p = min(max(probability, _CLOSE), 1 - _CLOSE)
    z = settings.bias + settings.probe * math.log(p / (1 - p))
    z += settings.terms * math.log1p(max(hit.terms for hit in hits))
    z += settings.unknown * unknown
    return 1 / (1 + math.exp(-z))
