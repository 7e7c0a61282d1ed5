"""Finds secrets that nothing but their name tells: PINs, one-time passwords, cells of a security card, card codes."""

import re
from collections.abc import Iterator
from typing import Final

_NAME: Final = (
    r"(?:\botp|오티피|일회용[ ]?(?:비밀[ ]?)?번호|인증[ ]?(?:번호|코드|숫자)|(?:확인|승인|보안|접속)[ ]?코드"
    r"|보안[ ]?카드|시크릿[ ]?카드|(?:비밀|암호|핀)[ ]?번호|비번|패스워드|암호|\bpin|\bcvc2?|\bcvv2?|\bcid\b"
    r"|passcode|password|one[ -]?time[ ]?(?:code|pin)"
    r"|(?:verification|security|sms|authentication|auth|confirmation|access)[ ]?code"
    r"|security[ ]?card|뒷[ ]?면)"
)
# A security card has numbered cells.
_CELL: Final = (
    r"(?:보안[ ]?카드|시크릿[ ]?카드|안전[ ]?카드|security[ ]?card)[ ]?(?:의|에서)?[ ]?"
    r"(?:\d{1,2}[ ]?(?:번째|번|칸)(?:[ ]?칸)?|(?:number|no\.?|cell)[ ]?\d{1,2})"
    r"(?:[ ]?(?:의|은|에))?(?:[ ]?(?:번호|숫자|값|코드))?"
)
_PLACES: Final = r"(?:앞|뒤|뒷|맨앞|맨뒤|첫)?[ ]?(?:\d|한|두|세|네|여섯)[ ]?(?:자리|글자|digits?)"
_IS: Final = r"[ \t\n]{0,2}(?:는|은|가|이|를|:|=|is|was|->|→|>|\(|\[|\"|')?[ \t\n]{0,2}[(\"']?"
_OF_NAME: Final = rf"(?:[ ]?(?:발생기|숫자|번호|코드|code|numbers?|no\.?))?(?:[ ]?{_PLACES})?{_IS}"
_DIGITS: Final = r"(?<!\d)\d{1,8}(?:[ \t]?[-.,·/ \n][ \t]?\d{1,7}){0,3}"
# What is counted is no secret: 4자리, 3회, 6 digits.
_NO_COUNT: Final = (
    r"(?!\d|[ ]?(?:자리|회|번(?![이입인으])|일(?![이입인])|년|월|개|원|분|초|시|장|차|명|건|칸|가지|만|천|억|%|급"
    r"|등급|세대|층|글자|digits?|times|minutes?|mins?\b|seconds?|hours?|days?|attempts?|codes?\b|characters?|x\b))"
)
_NAMED_FIRST: Final = tuple(
    re.compile(rf"{name}(?P<hit>{_DIGITS}){_NO_COUNT}", re.IGNORECASE)
    for name in (rf"{_CELL}(?:[ ]?{_PLACES})?{_IS}", rf"{_NAME}{_OF_NAME}")
)
_NAMED_LAST: Final = re.compile(
    r"(?P<hit>(?<![\d.,-])\d{4,8})(?:이|가|은|는|,|:|[ ]is)?[ ]?(?:제|내|이게|저의|요거|my|the)?[ ]?(?:제[ ]?)?"
    rf"{_NAME}(?:예요|이에요|입니다|인데|이야|야|[.!\n]|\Z)",
    re.IGNORECASE,
)
# Two digits are a secret where they are said to be the first or last of one.
_PART: Final = re.compile(
    r"(?:보안[ ]?카드|시크릿[ ]?카드|비밀[ ]?번호|비번|\bcvc|\bcvv|뒷[ ]?면|security[ ]?card)[^\n.?!]{0,24}?"
    r"(?:앞|뒤|뒷|맨앞|맨뒤|첫)[ ]?(?:[ ]?면)?[ ]?(?:\d|한|두|세|네)[ ]?(?:자리|글자|digits?)"
    rf"{_IS}(?P<hit>(?<!\d)\d{{2,4}}){_NO_COUNT}",
    re.IGNORECASE,
)
_SERVICE_NUMBER: Final = re.compile(r"1[5-9]\d\d-?\d{4}")


def named_secrets(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each secret's digits."""
    for pattern in (*_NAMED_FIRST, _NAMED_LAST):
        for match in pattern.finditer(text):
            if 3 <= len(re.sub(r"\D", "", match["hit"])) <= 8 and not _SERVICE_NUMBER.fullmatch(match["hit"]):
                yield match.span("hit")
    for match in _PART.finditer(text):
        yield match.span("hit")
