"""Correctness of an answer: whether it says what a known answer says, and the F1 of shared tokens (pure)."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from chatbot.grounding import features, passage_sentences, quantities, unsupported_quantities

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
_TOKEN = re.compile(r"[a-z]+|\d+(?:\.\d+)*|[가-힣]")
_ONLY_QUANTITY = re.compile(
    r"[-\d.,%$₩\s]|krw|usd|won|per annum|연 |약 |최대|최고|최소|최저|원|만|억|천|백|년|월|일|개월|회|영업일"
    r"|days?|months?|years?",
    re.IGNORECASE,
)


def holds_answer(text: str, answers: Sequence[str]) -> bool:
    """Return whether the text states one of the answers, literally or, for a bare quantity, by its value."""
    plain = normalised(text)
    return any(_occurs_in(plain, normalised(answer)) or _states_quantity(text, answer) for answer in answers)


LONGEST_FACT = 60
"""Characters of a known answer that is a fact (a number, a name); a longer one is a text that states several."""
SAID = 0.78
"""Share from which on a text counts as said, fitted on 139 answers judged by hand (docs/evals.md)."""


def answers_rightly(text: str, question: str, answers: Sequence[str]) -> bool:
    """Return whether a text says what one of the known answers says.

    A fact must occur, by its value where it is a number. Of a longer answer one statement must be said nearly whole, or
    what the text says beyond the question must nearly all be the answer's.
    """
    return any(
        holds_answer(text, [answer]) if len(answer) <= LONGEST_FACT else share_said(text, question, answer) >= SAID
        for answer in answers
    )


def share_said(text: str, question: str, answer: str) -> float:
    """Return how much a text shares with an answer of several statements, from 0 to 1.

    It is the larger of two shares of content words: those of the answer's best-said statement that the text has, and
    those of the text without the question's that the answer has.
    """
    said, known = features(text), features(answer)
    statements = filter(None, (features(sentence.text) for sentence in passage_sentences(answer)))
    best = max((len(statement & said) / len(statement) for statement in statements), default=0.0)
    own = said - features(question)
    return max(best, len(own & known) / len(own) if own else 0.0)


def normalised(text: str) -> str:
    """Return the text in one spelling: NFKC, lower case, no thousands separators."""
    return _THOUSANDS.sub("", unicodedata.normalize("NFKC", text).lower()).strip()


def _occurs_in(text: str, answer: str) -> bool:
    """Return whether the answer occurs, regardless of white space, and not within a longer number."""
    spelled = r"\s*".join(re.escape(character) for character in answer if not character.isspace())
    before = r"(?<![\d.])" if answer[:1].isdigit() else ""
    after = r"(?![\d]|\.\d)" if answer[-1:].isdigit() else ""
    return bool(spelled) and re.search(before + spelled + after, text) is not None


def _states_quantity(text: str, answer: str) -> bool:
    """Return whether the answer is a bare quantity (100만원) that the text states in any spelling (1,000,000원)."""
    if _ONLY_QUANTITY.sub("", answer) or not quantities(answer):
        return False
    return not unsupported_quantities(answer, [text])


def answer_f1(text: str, answers: Sequence[str]) -> float:
    """Return the best F1 of shared tokens over the answers; Korean is compared by syllables, as in KorQuAD."""
    return max((_f1(tokens(text), tokens(answer)) for answer in answers), default=0.0)


def tokens(text: str) -> Counter[str]:
    """Return the words, numbers and Korean syllables of a text with their counts."""
    return Counter(_TOKEN.findall(normalised(text)))


def _f1(predicted: Counter[str], expected: Counter[str]) -> float:
    shared = (predicted & expected).total()
    if not shared:
        return 0.0
    precision, recall = shared / predicted.total(), shared / expected.total()
    return 2 * precision * recall / (precision + recall)


def mean(values: Iterable[float]) -> float | None:
    """Return the mean; None of no values."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else None
