"""Rank passages by how likely they answer a question, and combine the ranking with a model's choice. No I/O.

The search score counts most. Three corrections are added to it: numbers if the question asks for one, the
question's language, and a penalty for a document's introduction. Their weights were fitted on the golden set and the
FAQs of two banks (docs/decisions/0029).
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from chatbot.quotes.units import unit_for
from knowledge.passage import Hit, Language, Passage

_STATES_NUMBERS: Final = 0.4
"""The weight of ln(1 + count of numbers in the unit), if the question asks for a number."""
_SAME_LANGUAGE: Final = 0.8
_IS_INTRODUCTION: Final = -1.0
_LONGEST_INTRODUCTION: Final = 250
"""A document's first passage with fewer characters only introduces the document."""
_CLOSE: Final = 1.2
"""A candidate whose score is this much lower than the first's is not close to it."""
_MOST_CLOSE: Final = 3
_PRIOR: Final = 1.0
"""The log-odds that each point of a ranking score adds."""
_ASKS_FOR_A_NUMBER: Final = re.compile(
    r"얼마|몇|언제|며칠|금리|이율|한도|수수료|\bhow (?:much|many|long|often|old|soon)\b|\bwhen\b"
    r"|\brates?\b|\bfees?\b|\blimits?\b|\bcosts?\b",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"\d[\d,.]*")
_ASKS_TWO_THINGS: Final = re.compile(
    r"(?:얼마|몇|언제|며칠|어디|어떻게|어떤|무엇|뭐|누구).{0,40}(?:[고며]|[,?])\s.{0,40}(?:얼마|몇|언제|며칠|어디|어떻게|어떤|무엇|뭐|누구)"
    r"|\b(?:how|what|when|where|which|who)\b.{0,80}(?:[,?]|\band)\s{1,2}(?:and\s|also\s)?(?:how|what|when|where|which|who)\b",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A quotable text of source `n` (from 1), and its score in the ranking."""

    n: int
    text: str
    score: float


def rank(
    question: str, hits: Sequence[Hit], language: Language, quoted_before: Collection[str] = ()
) -> tuple[Candidate, ...]:
    """Return a candidate for each hit, likeliest answer first.

    A unit in `quoted_before` is replaced by a part of its passage. A passage with only headings gives no candidate.
    """
    introductions = _introductions([hit.passage for hit in hits])
    asks_for_number = _ASKS_FOR_A_NUMBER.search(question) is not None
    candidates = []
    for n, hit in enumerate(hits, 1):
        unit = unit_for(question, hit.passage, quoted_before)
        score = hit.score
        if asks_for_number:
            score += _STATES_NUMBERS * math.log1p(len(_NUMBER.findall(unit)))
        if hit.passage.language == language:
            score += _SAME_LANGUAGE
        if n in introductions:
            score += _IS_INTRODUCTION
        if unit:
            candidates.append(Candidate(n, unit, score))
    return tuple(sorted(candidates, key=lambda candidate: -candidate.score))


def asks_two_things(question: str) -> bool:
    """Return whether a question joins two interrogatives."""
    return _ASKS_TWO_THINGS.search(question) is not None


def _introductions(passages: Sequence[Passage]) -> frozenset[int]:
    """Return the numbers of short first passages whose document has other passages in the list."""
    documents = Counter(passage.document_id for passage in passages)
    return frozenset(
        n
        for n, passage in enumerate(passages, 1)
        if passage.n == 1 and len(passage.text) < _LONGEST_INTRODUCTION and documents[passage.document_id] > 1
    )


def close_candidates(ranked: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the first candidate, and each of the next two whose score is close to the first's."""
    return tuple(candidate for candidate in ranked[:_MOST_CLOSE] if ranked[0].score - candidate.score < _CLOSE)


def posterior(ranked: Sequence[Candidate], choices: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the probability of each candidate, with the ranking as prior and a model's choices as evidence.

    Each of `choices` holds the model's probability of each candidate, from a prompt in a different order.
    """
    logits = []
    for at, candidate in enumerate(ranked):
        log_probabilities = [math.log(max(choice[at], 1e-6)) for choice in choices]
        logits.append(_PRIOR * candidate.score + math.fsum(log_probabilities) / len(choices))
    exponentials = [math.exp(logit - max(logits)) for logit in logits]
    return tuple(value / math.fsum(exponentials) for value in exponentials)
