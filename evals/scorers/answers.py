"""Check whether a text contains a known answer (pure)."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from chatbot.grounding import quantities, unsupported_quantities

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
_ONLY_QUANTITY = re.compile(
    r"[-\d.,%$₩\s]|krw|usd|won|per annum|연 |약 |최대|최고|최소|최저|원|만|억|천|백|년|월|일|개월|회|영업일"
    r"|days?|months?|years?",
    re.IGNORECASE,
)


def holds_answer(text: str, answers: Sequence[str]) -> bool:
    """Return whether the text states one of the answers, literally or, for a bare quantity, by value."""
    plain = normalised(text)
    return any(_occurs_in(plain, normalised(answer)) or _states_quantity(text, answer) for answer in answers)


def normalised(text: str) -> str:
    """Return the text in one spelling: NFKC, lower case, no thousands separators."""
    return _THOUSANDS.sub("", unicodedata.normalize("NFKC", text).lower()).strip()


def _occurs_in(text: str, answer: str) -> bool:
    """Return whether the answer occurs, ignoring white space, and not inside a longer number or English word.

    Its last word may be plural; Korean words carry particles, so they have no end boundary.
    """
    spelled = r"\s*".join(re.escape(character) for character in answer if not character.isspace())
    before = after = ""
    if answer[:1].isdigit():
        before = r"(?<![\d.])"
    elif answer[:1].isascii() and answer[:1].isalpha():
        before = r"(?<![a-z])"
    if answer[-1:].isdigit():
        after = r"(?![\d]|\.\d)"
    elif answer[-1:].isascii() and answer[-1:].isalpha():
        after = r"(?:e?s)?(?![a-z])"
    return bool(spelled) and re.search(before + spelled + after, text) is not None


def _states_quantity(text: str, answer: str) -> bool:
    """Return whether the answer is a bare quantity (100만원) that the text states in any spelling (1,000,000원)."""
    if _ONLY_QUANTITY.sub("", answer) or not quantities(answer):
        return False
    return not unsupported_quantities(answer, [text])


def mean(values: Iterable[float]) -> float | None:
    """Return the mean; None without values."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else None
