"""Detect whether a sentence affirms or denies: 가능합니다 and 불가합니다 share most of their syllables. No I/O."""

import re
from typing import Final

_NEGATION: Final = re.compile(
    r"없|않|못하|못합|못한|불가|아니|아닙|금지|제외|미적용|안\s?(?:되|됩|된|돼)|면제|무료"
    r"|\b(?:not|no|never|cannot|without|except|unable|free|waived|neither|nor|unless|prohibited|excluded)\b|n't\b",
    re.IGNORECASE,
)
# A negative word that ends a Korean sentence.
_FINAL_NEGATION: Final = re.compile(
    r"(?:없|않|불가|못합|못한|아닙|금지|제외|안\s?(?:됩|돼))[가-힣\s]{0,6}[.!?)\s|*]*\Z"
)
_NEGATED_VERB: Final = re.compile(r"\b(?:can|could|may|is|are|do|does|will|must|shall)(?:\s?not|n't)\b", re.IGNORECASE)
# Up to this length in characters, a negated verb in an English sentence is taken for the main clause's verb.
_ONE_CLAUSE: Final = 160


def has_negation(sentence: str) -> bool:
    """Return whether a sentence contains a negative word."""
    return _NEGATION.search(sentence) is not None


def same_polarity(one: str, other: str) -> bool:
    """Return whether both or neither of two sentences has a negative word, and both or neither is a denial."""
    return has_negation(one) == has_negation(other) and _is_denial(one) == _is_denial(other)


def _is_denial(sentence: str) -> bool:
    """Return whether the main clause of a sentence is negative."""
    if not has_negation(sentence):
        return False
    is_verb_negated = len(sentence) <= _ONE_CLAUSE and _NEGATED_VERB.search(sentence) is not None
    return is_verb_negated or _FINAL_NEGATION.search(sentence) is not None


YES: Final = "네|예|그렇습니다|맞습니다|yes|sure|certainly"
NO: Final = "아니요|아니오|no"
# Requires punctuation after the word, or the end: "No fee applies" and "네 번" are not yes or no.
_YES_OR_NO: Final = re.compile(rf"\A\s*+[*_]{{0,4}}(?:{YES}|{NO})[ *_]{{0,4}}(?:[,.!;–-]\s*+|\Z)", re.IGNORECASE)
_WORDS: Final = tuple(word for part in (YES, NO) for word in part.split("|"))


def says_yes_or_no(sentence: str) -> bool:
    """Return whether a sentence begins with yes or no."""
    return _YES_OR_NO.match(sentence) is not None


def may_begin_yes_or_no(text: str) -> bool:
    """Return whether the beginning of a sentence may still become a yes or no."""
    beginning = text.strip(" \n\t*_").lower()
    return any(word.startswith(beginning) for word in _WORDS)
