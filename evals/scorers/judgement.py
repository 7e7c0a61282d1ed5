"""Judge whether an answer is right, wrong or beside the question, from the known answers alone (pure).

Wrong: it addresses the question and differs from the known answer. Beside the question: it doesn't answer the question.
Fitted to and compared with answers labelled by a reader (docs/evals.md).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from chatbot.grounding import (
    YES,
    Quantity,
    has_negation,
    passage_sentences,
    quantities,
    same_polarity,
    unsupported_quantities,
)
from chatbot.quotes import features
from evals.scorers.answers import holds_answer

LONGEST_FACT: Final = 60
"""Maximum characters of a known answer that is one fact (a number, a name); a longer answer has several statements."""
LEAST_OVERLAP: Final = 0.78
"""The overlap of content words from which an answer counts as making a known statement."""
_FEWEST_FEATURES: Final = 4
"""Minimum features of a statement; with fewer it is a heading or a word."""
_LEAST_OF_QUESTION: Final = 0.3
"""Minimum share of the question's content words in a sentence that addresses the question."""
_LEAST_ON_TOPIC: Final = 0.4
"""Minimum share of such a sentence's content that is from the question or the known answer."""

# Words for quantity, time, permission or existence: few letters of a sentence, but they reverse its meaning.
_TURNING_WORD: Final = re.compile(
    r"최대|최소|최고|최저|최장|최단|이상|이하|초과|미만|이전|이후|(?<=[가-힣\d] )[전후]에|[전후](?=까지|부터)"
    r"|모든|모두|전부|일부|매월|매년|매일|매주|(?<![가-힣\d])[월연](?=\s?[\d%])|반드시|필수|선택|없이|외에|제외|포함"
    r"|무료|유료|면제|고정|변동|개인|법인|국내|해외|입금|출금|가입|해지|본인|대리인|평일|주말|오전|오후"
    r"|영업점|창구|(?<![가-힣])앱|전화|인터넷|고객|은행(?=[이은가])|않|없|못|불가|아니|(?<=[가-힣])만[이은을도]?(?=[\s.,]|\Z)"
    r"|[월화수목금토일]요일|다음|당일|첫|마지막"
    r"|\b(?:most|least|maximum|minimum|more|less|over|under|above|below|before|after|until|from|all|some|any|always"
    r"|never|only|without|with|must|may|could|should|once|twice"
    r"|need|have to|required|not|no|cannot|if|unless|except|per|monthly|yearly|annual"
    r"|month|year|week|day|daily|weekly|fixed|variable|branch|app|phone|open|close|deposit|withdrawal|free|either|both"
    r"|bank|customer)\b|n't\b",
    re.IGNORECASE,
)
_SAYS_YES: Final = re.compile(rf"[\s>*_]{{0,8}}(?:{YES})(?=\s{{0,4}}(?:[,.!]|\Z))", re.IGNORECASE)
_RESTRICTS: Final = re.compile(r"만(?=[\s.,]|\Z)|\b(?:only|just)\b", re.IGNORECASE)
_FREE: Final = "0원"
# Units that can be mistaken for each other: 5,000원 for USD 500, 3 months for 3 days.
_SIMILAR_UNITS: Final = (
    frozenset({"KRW", "USD", "EUR", "JPY", "CNY", "GBP"}),
    frozenset({"%", "%p"}),
    frozenset({"months", "days", "seconds"}),
)


class Judgement(StrEnum):
    """The judgement of an answer; the values are also used in runs, reports and documents."""

    RIGHT = "right"
    WRONG = "wrong"
    BESIDE = "beside"


@dataclass(frozen=True, slots=True)
class _Statement:
    """A sentence and its content features."""

    text: str
    content: frozenset[str]

    def likeness(self, other: "_Statement") -> float:
        """Return the overlap of the two statements' content (Dice coefficient)."""
        whole = len(self.content) + len(other.content)
        return 2 * len(self.content & other.content) / whole if whole else 0.0


def judge_answer(text: str, question: str, answers: Sequence[str]) -> Judgement:
    """Return the best judgement of an answer over all known answers."""
    statements = _statements(text)
    facts = [answer for answer in answers if len(answer) <= LONGEST_FACT]
    texts = [answer for answer in answers if len(answer) > LONGEST_FACT]
    judgements = [_by_text(text, statements, question, known) for known in texts]
    if facts:
        judgements.append(_by_facts(text, statements, question, facts))
    best_first = tuple(Judgement)
    return min(judgements, key=best_first.index, default=Judgement.BESIDE)


def _by_facts(text: str, statements: Sequence[_Statement], question: str, facts: Sequence[str]) -> Judgement:
    """Judge by a fact, given in several spellings: one of them must occur or, for a number, its value."""
    has_fact = holds_answer(text, facts)
    if has_fact and not holds_answer(question, facts):
        return Judgement.RIGHT
    if _contradicts(statements, question, "\n".join(facts)):
        return Judgement.WRONG
    return Judgement.RIGHT if has_fact else Judgement.BESIDE


def _by_text(text: str, statements: Sequence[_Statement], question: str, answer: str) -> Judgement:
    """Judge by a text: statements that repeat it almost word for word must not change its meaning."""
    known_statements = [known for known in _statements(answer) if len(known.content) >= _FEWEST_FEATURES]
    pairs = [(statement, max(known_statements, key=statement.likeness)) for statement in statements if known_statements]
    repeated = [(statement, known) for statement, known in pairs if statement.likeness(known) >= LEAST_OVERLAP]
    if any(_changes_meaning(statement, known, question) for statement, known in repeated):
        return Judgement.WRONG
    is_covered = coverage(text, question, answer) >= LEAST_OVERLAP
    if is_covered and repeated:
        return Judgement.RIGHT
    if _contradicts(statements, question, answer):
        return Judgement.WRONG
    return Judgement.RIGHT if is_covered else Judgement.BESIDE


def coverage(text: str, question: str, answer: str) -> float:
    """Return how much a text shares with a known answer of several statements, from 0 to 1.

    It is the larger of two shares of content words: the known answer's best-matching statement covered by the text, and
    the text (without the question's words) covered by the known answer.
    """
    content = features(text)
    statements = [statement.content for statement in _statements(answer) if statement.content]
    best = max((len(known & content) / len(known) for known in statements), default=0.0)
    own_content = content - features(question)
    return max(best, len(own_content & features(answer)) / len(own_content) if own_content else 0.0)


def _changes_meaning(statement: _Statement, known: _Statement, question: str) -> bool:
    """Return whether a statement has other numbers or polarity than a known one, or adds or replaces a turning word."""
    if unsupported_quantities(statement.text, [known.text, question]):
        return True
    repeats_negation = has_negation(statement.text) and has_negation(question)
    if not same_polarity(statement.text, known.text) and not repeats_negation:
        return True
    turning, known_turning = turning_words(statement.text), turning_words(known.text)
    has_new_turning_word = bool(turning - known_turning - turning_words(question))
    has_other_content = bool(known_turning - turning) or bool(statement.content - known.content - features(question))
    return has_new_turning_word and has_other_content


def _contradicts(statements: Iterable[_Statement], question: str, known: str) -> bool:
    """Return whether a statement answers the question differently from the known answer."""
    return any(
        _is_other_amount(statement.text, question, known) or _is_yes_to_no(statement.text, known)
        for statement in statements
        if _addresses(statement, question, known)
    )


def _addresses(statement: _Statement, question: str, known: str) -> bool:
    """Return whether a statement has enough of the question's words, and few words on other topics."""
    content, question_content = statement.content, features(question)
    if not content:  # such as "네."
        return True
    on_topic = content & (question_content | features(known))
    has_question = len(content & question_content) >= _LEAST_OF_QUESTION * len(question_content)
    return has_question and len(on_topic) >= _LEAST_ON_TOPIC * len(content)


def _is_other_amount(sentence: str, question: str, known: str) -> bool:
    """Return whether a sentence states another amount of the known answer's kind, or "free" in place of it."""
    amounts = quantities(known)
    others = unsupported_quantities(sentence, [known, question])
    if any(_is_same_kind(other, amount) for other in others for amount in amounts):
        return True
    adds_no_amount = not unsupported_quantities(sentence, [question])
    return bool(amounts) and adds_no_amount and _is_free(sentence) and not _is_free(known)


def _is_same_kind(one: Quantity, other: Quantity) -> bool:
    if not one.kinds.isdisjoint(other.kinds):
        return True
    return any(one.kinds & similar and other.kinds & similar for similar in _SIMILAR_UNITS)


def _is_free(text: str) -> bool:
    return not unsupported_quantities(_FREE, [text])


def _is_yes_to_no(sentence: str, known: str) -> bool:
    """Return whether a sentence says yes although the known answer denies or restricts."""
    if not _SAYS_YES.match(sentence) or _SAYS_YES.match(known) or has_negation(sentence):
        return False
    return has_negation(known) or _RESTRICTS.search(known) is not None


def _statements(text: str) -> list[_Statement]:
    return [_Statement(sentence, features(sentence)) for sentence in passage_sentences(text)]


def turning_words(text: str) -> Counter[str]:
    """Count the words of a text that can change the meaning of a sentence."""
    return Counter(match[0].lower() for match in _TURNING_WORD.finditer(unicodedata.normalize("NFKC", text)))
