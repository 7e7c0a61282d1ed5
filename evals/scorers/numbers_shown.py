"""Numbers of an answer that no cited passage holds, by two readings of which one is independent of the product (pure).

`unfounded` are quantities that no cited passage states by the product's own comparison (chatbot.grounding.numbers),
here over the finished answer and the passages that the API returns for its citations. `respelled` are numbers that a
second, plain reading of digits and Korean scales (1억 5천만) does not find there: equal values in other words
(12개월 for 1년), or errors of the first reading; a person inspects them.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from chatbot.grounding import unsupported_quantities

_SCALES = {"십": 10, "백": 100, "천": 1000, "만": 10**4, "억": 10**8, "조": 10**12}
# Parts must touch or stand one blank apart: 1억 5,000만.
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:\s?[십백천]?[만억조]|\s?[십백천](?=\s?[만억조원]))*")
_PART = re.compile(r"(\d[\d,]*(?:\.\d+)?)\s?([십백천]?)([만억조]?)")
_JOINED = re.compile(rf"{_NUMBER.pattern}(?:\s?{_NUMBER.pattern})*")
_ORDINAL = re.compile(r"^[ \t]*(?:[-*•][ \t]+)?\(?\d{1,2}[.)](?=[ \t])", re.MULTILINE)
_WORDS = re.compile(r"\b(million|billion|thousand)\b")
_ENGLISH = {"thousand": 10**3, "million": 10**6, "billion": 10**9}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownNumbers:
    """The doubtful numbers of one answer, as they are written there."""

    unfounded: tuple[str, ...]
    respelled: tuple[str, ...]


def check_numbers(text: str, passages: Sequence[str]) -> ShownNumbers:
    """Compare the numbers of a text with those of its cited passages."""
    unfounded = tuple(quantity.text for quantity in unsupported_quantities(text, list(passages)))
    known = {value for source in (*passages, *unfounded) for _, value in values(source)}
    return ShownNumbers(
        unfounded=unfounded, respelled=tuple(written for written, value in values(text) if value not in known)
    )


def values(text: str) -> Iterator[tuple[str, Decimal]]:
    """Yield every number of a text as (written, value), without the ordinals of lists."""
    plain = _ORDINAL.sub(lambda ordinal: " " * len(ordinal.group()), unicodedata.normalize("NFKC", text))
    for match in _JOINED.finditer(plain):
        after = _WORDS.match(plain[match.end() :].lstrip().lower())
        factor = _ENGLISH[after.group(1)] if after else 1
        for written in _split(match.group()):
            value = _value(written)
            if value is not None:
                yield written.strip(), value * factor


def _split(joined: str) -> Iterator[str]:
    """Yield the numbers of a run: a part belongs to the one before while that ends in a larger scale."""
    current, last = "", 10**20
    for part in _PART.finditer(joined):
        scale = _SCALES.get(part.group(3), 1)
        if current and (last == 1 or scale >= last):
            yield current
            current = ""
        current += part.group() + " "
        last = scale
    if current:
        yield current


def _value(written: str) -> Decimal | None:
    total = Decimal(0)
    for part in _PART.finditer(written):
        try:
            number = Decimal(part.group(1).replace(",", ""))
        except InvalidOperation:
            return None
        total += number * _SCALES.get(part.group(2), 1) * _SCALES.get(part.group(3), 1)
    return total
