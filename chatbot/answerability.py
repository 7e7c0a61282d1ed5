"""Is the answer in these passages? Judged from the two halves of retrieval and one token of the model.

`score` is a logistic model over the best cosine similarity, the best term score and the model's own odds of "yes";
its weights were fitted on half of the golden set (docs/decisions/0002-answerability.md).
"""

import math
from collections.abc import Sequence

from pydantic import BaseModel

from knowledge.passage import Hit

_CLOSE = 1e-4


class AnswerabilitySettings(BaseModel, frozen=True):
    """Weights and threshold; `least_dense` refuses without asking the model: nothing near was found."""

    threshold: float = 0.5
    least_dense: float = 0.78
    bias: float = 0.0
    dense: float = 0.0
    terms: float = 0.0
    probe: float = 1.0


def nothing_near(hits: Sequence[Hit], settings: AnswerabilitySettings) -> bool:
    """Return whether no passage is near enough for an answer to be thinkable."""
    return not hits or max(hit.dense for hit in hits) < settings.least_dense


def score(hits: Sequence[Hit], probability: float, settings: AnswerabilitySettings) -> float:
    """Return the probability in [0, 1] that the passages hold the answer; `probability` is the model's for "yes"."""
    p = min(max(probability, _CLOSE), 1 - _CLOSE)
    z = settings.bias + settings.probe * math.log(p / (1 - p))
    z += settings.dense * (max(hit.dense for hit in hits) - 0.85) * 10
    z += settings.terms * math.log1p(max(hit.terms for hit in hits))
    return 1 / (1 + math.exp(-z))
