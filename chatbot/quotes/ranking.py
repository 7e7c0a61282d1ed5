"""Ranks passages by how likely they answer a question, and combines the ranking with a model's choice. No I/O.

The search's own score decides. Three things that it does not see are added in its unit, fitted on the golden set and on
the FAQs of two banks (docs/decisions/0029): numbers where one is asked for, the language of the question, and that a
document's opening only introduces the sections behind it.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from chatbot.quotes.units import unit_for
from knowledge.passage import Hit, Language, Passage

_STATES_NUMBERS: Final = 0.4
"""For each power of e of the numbers that a unit states, where one is asked for."""
_SAME_LANGUAGE: Final = 0.8
_INTRODUCES: Final = -1.0
_LONGEST_OPENING: Final = 250
"""Characters of a document's first passage that only introduces the document."""
_CLOSE: Final = 0.8
"""Lead of the first passage below which the ranking alone does not decide."""
_PRIOR: Final = 1.0
"""Natural logarithms of odds for one unit of the ranking's score."""
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
    """What is quoted of the passage with number `n` (from 1) of the sources, and the score of that passage."""

    n: int
    text: str
    score: float


def rank(question: str, hits: Sequence[Hit], language: Language, shown: Collection[str] = ()) -> tuple[Candidate, ...]:
    """Return what could be quoted of each hit, the likeliest answer first; of a unit that was `shown` a part."""
    opens = _openings([hit.passage for hit in hits])
    asks_for_number = _ASKS_FOR_A_NUMBER.search(question) is not None
    candidates = [
        Candidate(
            n,
            unit,
            hit.score
            + _STATES_NUMBERS * (math.log1p(len(_NUMBER.findall(unit))) if asks_for_number else 0.0)
            + _SAME_LANGUAGE * (hit.passage.language == language)
            + _INTRODUCES * (n in opens),
        )
        for n, hit in enumerate(hits, 1)
        if (unit := unit_for(question, hit.passage, shown))
    ]
    return tuple(sorted(candidates, key=lambda candidate: -candidate.score))


def asks_two_things(question: str) -> bool:
    """Return whether a question has two interrogatives that are joined."""
    return _ASKS_TWO_THINGS.search(question) is not None


def _openings(passages: Sequence[Passage]) -> frozenset[int]:
    """Return the numbers of short first passages whose document has others among these."""
    documents = Counter(passage.document_id for passage in passages)
    return frozenset(
        n
        for n, passage in enumerate(passages, 1)
        if passage.n == 1 and len(passage.text) < _LONGEST_OPENING and documents[passage.document_id] > 1
    )


def is_close(ranked: Sequence[Candidate]) -> bool:
    """Return whether the lead of the first candidate is too small to decide by itself."""
    return any(first.score - second.score < _CLOSE for first, second in pairwise(ranked[:2]))


def posterior(ranked: Sequence[Candidate], choices: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the probability of each candidate, from the ranking as prior and a model's choices.

    Each of `choices` has the model's probability of each candidate, asked in another order.
    """
    logits = [
        _PRIOR * candidate.score + math.fsum(math.log(max(choice[at], 1e-6)) for choice in choices) / len(choices)
        for at, candidate in enumerate(ranked)
    ]
    exponentials = [math.exp(logit - max(logits)) for logit in logits]
    return tuple(value / math.fsum(exponentials) for value in exponentials)
