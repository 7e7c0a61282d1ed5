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
"""Maximum characters of a known answer that is a single fact (a number, a name); a longer one has several statements.
"""
SAID: Final = 0.78
"""Minimum share of content words for a statement to count as made."""
_FEWEST: Final = 4
"""Minimum features of a statement; with fewer it is a heading or a word."""
_ASKED: Final = 0.3
"""Minimum share of the question's content words in a sentence that addresses the question."""
_OF_IT: Final = 0.4
"""Minimum share of such a sentence's content that is from the question or the known answer."""

# Words for quantity, time, permission or existence: few letters of a sentence, but they reverse its meaning.
_TURNING: Final = re.compile(
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
_KINDS: Final = (
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
    """Return the best judgement of an answer over the known ones."""
    statements = _statements(text)
    facts = [answer for answer in answers if len(answer) <= LONGEST_FACT]
    judgements = [_by_facts(text, statements, question, facts)] if facts else []
    judgements += (_by_text(text, statements, question, answer) for answer in answers if len(answer) > LONGEST_FACT)
    return next((judgement for judgement in Judgement if judgement in judgements), Judgement.BESIDE)


def _by_facts(text: str, statements: Sequence[_Statement], question: str, facts: Sequence[str]) -> Judgement:
    """Judge by a fact, given in several spellings: it must occur, or its value must if it is a number."""
    held = holds_answer(text, facts)
    if held and not holds_answer(question, facts):
        return Judgement.RIGHT
    if _says_otherwise(statements, question, "\n".join(facts)):
        return Judgement.WRONG
    return Judgement.RIGHT if held else Judgement.BESIDE


def _by_text(text: str, statements: Sequence[_Statement], question: str, answer: str) -> Judgement:
    """Judge by a text: statements that repeat it almost word for word must not change its meaning."""
    known = [statement for statement in _statements(answer) if len(statement.content) >= _FEWEST]
    pairs = [(said, max(known, key=said.likeness)) for said in statements if known]
    repeated = [(said, of) for said, of in pairs if said.likeness(of) >= SAID]
    if any(_turns(said, of, question) for said, of in repeated):
        return Judgement.WRONG
    is_said = share_said(text, question, answer) >= SAID
    if is_said and repeated:
        return Judgement.RIGHT
    if _says_otherwise(statements, question, answer):
        return Judgement.WRONG
    return Judgement.RIGHT if is_said else Judgement.BESIDE


def share_said(text: str, question: str, answer: str) -> float:
    """Return how much a text shares with an answer of several statements, from 0 to 1.

    It is the larger of two shares of content words: the answer's best-matching statement covered by the text, and the
    text (without the question's words) covered by the answer.
    """
    said, known = features(text), features(answer)
    best = max((len(one.content & said) / len(one.content) for one in _statements(answer) if one.content), default=0.0)
    own = said - features(question)
    return max(best, len(own & known) / len(own) if own else 0.0)


def _turns(said: _Statement, known: _Statement, question: str) -> bool:
    """Return whether a statement has other numbers or polarity than a known one, or adds or replaces a turning word."""
    if unsupported_quantities(said.text, [known.text, question]):
        return True
    if not same_polarity(said.text, known.text) and not (has_negation(said.text) and has_negation(question)):
        return True
    turning, known_turning = turning_words(said.text), turning_words(known.text)
    is_changed = bool(known_turning - turning) or bool(said.content - known.content - features(question))
    return bool(turning - known_turning - turning_words(question)) and is_changed


def _says_otherwise(statements: Iterable[_Statement], question: str, known: str) -> bool:
    """Return whether a statement answers the question differently from the known answer."""
    asked, known_content = features(question), features(known)
    return any(
        _is_other_amount(said.text, question, known) or _is_yes_to_no(said.text, known)
        for said in statements
        if len(said.content & asked) >= _ASKED * len(asked) * bool(said.content)
        and len(said.content & (asked | known_content)) >= _OF_IT * len(said.content)
    )


def _is_other_amount(said: str, question: str, known: str) -> bool:
    """Return whether a sentence states another amount of the known one's kind, or says that it is free."""
    amounts = quantities(known)
    others = unsupported_quantities(said, [known, question])
    if any(_is_same_kind(other, amount) for other in others for amount in amounts):
        return True
    is_new = not unsupported_quantities(said, [question])
    return bool(amounts) and is_new and _is_free(said) and not _is_free(known)


def _is_same_kind(one: Quantity, other: Quantity) -> bool:
    units, others = ({reading.unit for reading in quantity.readings} for quantity in (one, other))
    return not one.kinds.isdisjoint(other.kinds) or any(units & kind and others & kind for kind in _KINDS)


def _is_free(text: str) -> bool:
    return not unsupported_quantities(_FREE, [text])


def _is_yes_to_no(said: str, known: str) -> bool:
    """Return whether a sentence says yes although the known answer denies or restricts."""
    if not _SAYS_YES.match(said) or _SAYS_YES.match(known) or has_negation(said):
        return False
    return has_negation(known) or _RESTRICTS.search(known) is not None


def _statements(text: str) -> list[_Statement]:
    return [_Statement(sentence, features(sentence)) for sentence in passage_sentences(text)]


def turning_words(text: str) -> Counter[str]:
    """Count the words of a text that can change the meaning of a sentence."""
    return Counter(match[0].lower() for match in _TURNING.finditer(unicodedata.normalize("NFKC", text)))
