"""Falsifies true sentences of documents, one small change at a time: what a check of claims must not let through.

Sixteen kinds in Korean and English. A kind changes one thing that matters (a bound, a channel, who acts, whether it
denies) and leaves the rest as the document says it, so nearly all words still stand in the passage.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from knowledge.passage import Language, language_of

Change = Callable[[str, random.Random], str | None]


@dataclass(frozen=True, slots=True)
class FalsifiedSentence:
    """A true sentence and a false one made of it; `kind` says what was changed."""

    kind: str
    language: Language
    true: str
    false: str


def falsified(sentence: str, others: Sequence[str], chance: random.Random) -> Iterator[FalsifiedSentence]:
    """Yield each falsification that the sentence allows; `others` are the other sentences of its document."""
    language = language_of(sentence)
    for kind, change in KINDS[language].items():
        if (false := change(sentence, chance)) and false != sentence:
            yield FalsifiedSentence(kind, language, sentence, false)
    if (false := _number_of_another(sentence, others)) is not None:
        yield FalsifiedSentence("number of another", language, sentence, false)


def _swap(*pairs: tuple[str, str]) -> Change:
    """Return the change that puts one side of the first pair that occurs in the place of the other."""
    both = [(re.compile(one, re.IGNORECASE), other) for pair in pairs for one, other in (pair, pair[::-1])]

    def change(sentence: str, _: random.Random) -> str | None:
        for pattern, other in both:
            if (match := pattern.search(sentence)) is not None:
                return sentence[: match.start()] + _plain(other) + sentence[match.end() :]
        return None

    return change


def _plain(pattern: str) -> str:
    """Return the words of a pattern without its marks of regular expressions."""
    return re.sub(r"\\b|\(\?[^)]*\)", "", pattern)


def _replace(pattern: str, replacement: str) -> Change:
    compiled = re.compile(pattern, re.IGNORECASE)

    def change(sentence: str, _: random.Random) -> str | None:
        changed = compiled.sub(replacement, sentence, count=1)
        return changed if changed != sentence else None

    return change


def _append(words: str, before: str) -> Change:
    """Return the change that adds words before the end of a sentence that ends in one of these characters."""

    def change(sentence: str, _: random.Random) -> str | None:
        stripped = sentence.rstrip()
        return f"{stripped[:-1]}{words}{stripped[-1]}" if stripped.endswith(tuple(before)) else None

    return change


def _prepend(words: str) -> Change:
    return lambda sentence, _: f"{words}{sentence}" if sentence[:1].isalpha() else None


def _other_digits(sentence: str, chance: random.Random) -> str | None:
    """Return the sentence with another first digit in one of its numbers."""
    numbers = [match for match in re.finditer(r"\d[\d,.]*", sentence) if match[0][0] != "0"]
    if not numbers:
        return None
    number = chance.choice(numbers)
    digit = chance.choice([digit for digit in "23456789" if digit != number[0][0]])
    return sentence[: number.start()] + digit + sentence[number.start() + 1 :]


_NUMBER_WITH_UNIT: Final = re.compile(
    r"(\d[\d,.]*\d|\d)(?=\s?(%|원|만원|일|개월|회|년|시간|days?|months?|years?|hours?))"
)


def _number_of_another(sentence: str, others: Sequence[str]) -> str | None:
    """Return the sentence with a number of the same unit that stands in another sentence of its document."""
    for own in _NUMBER_WITH_UNIT.finditer(sentence):
        for other in others:
            for number in _NUMBER_WITH_UNIT.finditer(other):
                if number[2] == own[2] and number[1] != own[1] and number[1] not in sentence:
                    return sentence[: own.start()] + number[1] + sentence[own.end(1) :]
    return None


KINDS: Final[dict[Language, dict[str, Change]]] = {
    "ko": {
        "bound": _swap(("최대", "최소"), ("이상", "이하"), ("최고", "최저"), ("초과", "미만")),
        "period": _swap((r"매월", "매년"), (r"(?<![\d가-힣])월 (?=\d)", r"(?<![\d가-힣])연 (?=\d)"), (r"매일", "매주")),
        "channel": _swap(("영업점", r"(?<![가-힣])앱"), ("전화", "인터넷뱅킹"), ("창구", "ATM")),
        "order": _swap(("이전", "이후"), (r"전에", "후에"), (r"전까지", "후부터")),
        "counterpart": _swap(("고정", "변동"), ("개인", "법인"), ("입금", "출금"), ("가입", "해지"), ("국내", "해외")),
        "other digits": _other_digits,
        "denial": _replace(r"수 있(습니다|어요|다)", r"수 없\1"),
        "denied end": _replace(r"됩니다(?=[.\s]*\Z)", "되지 않습니다"),
        "affirmation": _replace(r"수 없(습니다|어요|다)", r"수 있\1"),
        "condition added": _prepend("비밀번호를 알려 주신 고객은 "),
        "channel added": _append(" 다만 카카오톡 친구추가로만 신청합니다", "."),
        "actor": _swap(("고객이", "은행이"), ("고객은", "은행은")),
        "quantifier": _swap(("모든", "일부"), ("전부", "일부")),
        "necessity": _replace(r"해야 합니다", "하지 않아도 됩니다"),
    },
    "en": {
        "bound": _swap(
            (r"\bat most\b", r"\bat least\b"), (r"\bmaximum\b", r"\bminimum\b"), (r"\bmore than\b", r"\bless than\b")
        ),
        "period": _swap(
            (r"\bper month\b", r"\bper year\b"), (r"\bmonthly\b", r"\byearly\b"), (r"\ba month\b", r"\ba year\b")
        ),
        "channel": _swap(
            (r"\bat a branch\b", r"\bin the app\b"), (r"\bbranch\b", r"\bapp\b"), (r"\bphone\b", r"\bapp\b")
        ),
        "order": _swap((r"\bbefore\b", r"\bafter\b"), (r"\buntil\b", r"\bfrom\b")),
        "counterpart": _swap(
            (r"\bfixed\b", r"\bvariable\b"), (r"\bopen\b", r"\bclose\b"), (r"\bdeposit\b", r"\bwithdrawal\b")
        ),
        "other digits": _other_digits,
        "denial": _replace(r"\bcan\b(?! ?not)", "cannot"),
        "denied end": _replace(r"\b(is|are)\b(?! not)", r"\1 not"),
        "affirmation": _replace(r"\bcannot\b", "can"),
        "condition added": _prepend("If you share your PIN with the branch, "),
        "channel added": _append(" only through KakaoTalk", "."),
        "actor": _swap((r"\bthe customer\b", r"\bthe bank\b"), (r"\byou\b", r"\bthe bank\b")),
        "quantifier": _swap((r"\ball\b", r"\bsome\b"), (r"\balways\b", r"\bnever\b")),
        "necessity": _replace(r"\b(?:must|need to|have to)\b", "do not need to"),
        "with and without": _swap(
            (r"\bwithout\b", r"\bwith\b"),
        ),
    },
}
