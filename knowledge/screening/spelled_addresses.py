"""Finds e-mail addresses whose signs are said: lee (at) bank (dot) com, hong 골뱅이 네이버 점 컴."""

import re
from collections.abc import Iterator
from typing import Final

_DOT_SAID: Final = (
    r"[ \t]{0,2}(?:[(\[{<][ ]?(?:dot|닷|점|쩜|\.)[ ]?[)\]}>]|[-_*~/|]dot[-_*~/|]|점|쩜|닷)[ \t]{0,2}"
    r"|[ \t]{1,2}dot[ \t]{1,2}"
)
_DOT: Final = (
    rf"(?:{_DOT_SAID}|[ ]?[。․][ ]?|[ ]\.[ ]|\."
    r"|[ \n]{0,2}[.,][ \n]{0,2}(?=(?:com|net|org|co|kr|go|or|ac|io)\b))"
)
_AT_SAID: Final = r"[(\[{<][ ]?(?:at|앳|골뱅이|@)[ ]?[)\]}>]|[-_*~/|][ ]?at[ ]?[-_*~/|]|골뱅이|앳"
_AT: Final = (
    rf"(?:[ \t\n]{{0,2}}(?:{_AT_SAID}|@),?[ \t\n]{{0,2}}"
    r"|[ \t]{1,2}at[ \t]{1,2}(?!(?:the|a|an|my|your|this|that|our)\b))"
)
# Each label is taken whole, so that there is one way to read a row of them.
_LABEL: Final = r"[A-Za-z0-9]{1,31}+"
_LOCAL: Final = rf"(?<![A-Za-z0-9]){_LABEL}(?:(?:{_DOT}|[_+-]|[ ]?(?:언더바|대시)[ ]?){_LABEL}){{0,5}}"
_SPELLED: Final = re.compile(
    rf"{_LOCAL}{_AT}(?:[A-Za-z][A-Za-z0-9-]{{0,30}}+|[가-힣]{{2,6}}?)(?:{_DOT}{_LABEL}){{0,4}}"
    rf"(?:{_DOT}(?:[A-Za-z]{{2,24}}|컴|넷|씨오|케이알|코리아))",
    re.IGNORECASE,
)
# An address of which each letter stands apart.
_APART: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Za-z0-9._+-][ \t]){2,64}+@(?:[ \t][A-Za-z0-9.-]){4,64}(?![A-Za-z0-9])"
)
# 골뱅이 behind Latin letters is an @, whatever follows; elsewhere it is a dish.
_WITHOUT_DOT: Final = re.compile(
    rf"{_LOCAL}[ ]?골뱅이[ ]?(?:[A-Za-z0-9-]{{1,31}}+|[가-힣]{{2,6}}?)(?=[ 로으에입이가\n.,]|\Z)", re.IGNORECASE
)
# With "at" between blanks these tell an address ("lee at gmail.com") from a sentence ("I bank at chase.com").
_SIGN: Final = re.compile(
    rf"{_AT_SAID}|@|{_DOT_SAID}|\b(?:gmail|naver|hanmail|daum|kakao|nate|outlook|hotmail|yahoo|icloud)\b", re.IGNORECASE
)
_NAMED: Final = re.compile(r"(?:mail|메일|이멜)(?:[ ]?(?:주소|address))?[ ]?(?:은|는|이|:|=|is)[ ]?\Z", re.IGNORECASE)


def spelled_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each address."""
    for match in _SPELLED.finditer(text):
        if _SIGN.search(match.group()) or _NAMED.search(text[max(0, match.start() - 24) : match.start()]):
            yield match.span()
    for pattern in (_WITHOUT_DOT, _APART):
        yield from (match.span() for match in pattern.finditer(text))
