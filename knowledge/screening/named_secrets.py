"""Finds secrets that nothing but their name tells: PINs, passwords, one-time ones, codes of cards, security cards."""

import re
from collections.abc import Iterator
from typing import Final

from knowledge.screening.digit_groups import MARK, WORDS

_NAME: Final = (
    r"(?:\botp|오티피|일회용[ ]?(?:비밀[ ]?)?번호|인증[ ]?(?:번호|코드|숫자)|(?:확인|승인|보안|접속)[ ]?코드"
    r"|보안[ ]?카드|시크릿[ ]?카드|(?:비밀|암호|핀)[ ]?번호|비번|패스워드|암호|\bpin|\bcvc2?|\bcvv2?|\bcid\b"
    r"|passcode|password|one[ -]?time[ ]?(?:code|pin)|(?:2fa|mfa|two[ -]factor)(?:[ ]?code)?"
    r"|(?:verification|security|sms|authentication|auth|confirmation|access)[ ]?code"
    r"|security[ ]?card|뒷[ ]?면)"
)
_PLACES: Final = r"(?:앞|뒤|뒷|맨앞|맨뒤|첫)?[ ]?(?:\d|한|두|세|네|여섯)[ ]?(?:자리|글자|digits?)"
_IS: Final = r"[ \t\n]{0,2}(?:는|은|가|이|를|:|=|is|are|was|->|→|>|\(|\[|\"|')?[ \t\n]{0,2}[(\[<{\"']?[ ]?"
# Where it was read, and that it came.
_READ: Final = (
    r"(?:[ ]?(?:생성기|발생기|토큰|기기|앱|화면|문자|메시지|카톡|sms|text|app|token|device|phone|screen|message)"
    r"(?:에서|에|으로|로)?|[ ]?(?:방금|지금|아까|받은|뜬|온|나온)|[ ](?:from|on|in|by|via)(?:[ ](?:the|my|an?))?){0,3}"
)
_OF_NAME: Final = rf"(?:[ ]?(?:생성기|발생기|숫자|번호|코드|code|numbers?|no\.?))?{_READ}(?:[ ]?{_PLACES})?{_IS}"
# Marks, a line break or what a mark is called may stand between its digits.
_BETWEEN: Final = rf"(?:[ \t\n]{{0,2}}(?:{MARK}){{1,3}}[ \t\n]{{0,2}}|[ \t\n]{{1,2}}|{WORDS})"
_DIGITS: Final = rf"(?<!\d)\d{{1,8}}(?:{_BETWEEN}\d{{1,7}}){{0,3}}"
# What is counted is no secret: 4자리, 3회, 6 digits.
_NO_COUNT: Final = (
    r"(?!\d|[ ]?(?:자리|회|번(?![이입인으])|일(?![이입인])|년|월|개|원|분|초|시|장|차|명|건|칸|가지|만|천|억|%|급"
    r"|등급|세대|층|글자|digits?|times|minutes?|mins?\b|seconds?|hours?|days?|attempts?|codes?\b|characters?|x\b))"
)
_NAMED_FIRST: Final = re.compile(rf"{_NAME}{_OF_NAME}(?P<hit>{_DIGITS}){_NO_COUNT}", re.IGNORECASE)
_NAMED_LAST: Final = re.compile(
    rf"(?<![\d.,-])(?P<hit>\d{{4,8}}|\d{{2,4}}{_BETWEEN}\d{{2,4}})(?:이|가|은|는|,|:|[ ]is)?"
    rf"(?:{_READ},?[ ](?:it[ ]is|it's))?[ ]?(?:제|내|이게|저의|요거|my|the)?[ ]?(?:제[ ]?)?"
    rf"{_NAME}(?:[ ]?(?:번호|코드|숫자|code|number))?(?:예요|이에요|입니다|인데|이야|야|[.!\n]|\Z)",
    re.IGNORECASE,
)
# A password of letters and digits, as banks on the web ask for; where nothing says that it is one it has eight of them.
_PASSWORD: Final = re.compile(
    r"(?:(?:비밀|암호)[ ]?번호|비번|패스워드|암호|\bpassword|\bpasscode|\bpasswd|\bpw)"
    r"(?:[ \t\n]{0,2}(?:는요?|은요?|가|이|를|:|=|\b(?:is|was)\b:?|->|→)[ \t\n]{0,2}[\"'(\[<]?(?P<said>)|[ \t\n]{1,2})"
    r"(?!https?:)(?=[!-~]{0,40}[A-Za-z])(?=[!-~]{0,40}\d)(?P<hit>(?(said)[!-~]{6,}+|[!-~]{8,}+))"
    r"(?![ ]?(?:에서|오류|에러))",  # a device, a release, a code
    re.IGNORECASE,
)
# Two digits are a secret where they are said to be the first or last of one.
_PART: Final = re.compile(
    r"(?:비밀[ ]?번호|비번|\bcvc|\bcvv|뒷[ ]?면)[^\n.?!]{0,24}?"
    r"(?:앞|뒤|뒷|맨앞|맨뒤|첫)[ ]?(?:[ ]?면)?[ ]?(?:\d|한|두|세|네)[ ]?(?:자리|글자|digits?)"
    rf"{_IS}(?P<hit>(?<!\d)\d{{2,4}}){_NO_COUNT}",
    re.IGNORECASE,
)
# A security card has numbered cells of four digits, of which two are asked for; one name is enough for several cells.
_SECURITY_CARD: Final = re.compile(r"(?:보안|시크릿|안전)[ ]?카드|security[ ]?card", re.IGNORECASE)
_OF_CARD, _BEFORE_CARD = 140, 40  # characters
_CELL: Final = re.compile(rf"(?<![\d.,-])(?P<hit>\d{{4}})(?!,\d|[.-]\d){_NO_COUNT}", re.IGNORECASE)
_SPLIT_CELL: Final = re.compile(
    r"(?:\d{1,2}[ ]?(?:번째|번|칸)|(?:number|no\.?|cell|row)[ ]?\d{1,2})[^\d\n]{0,12}?"
    rf"{_IS}(?<!\d)(?P<hit>\d{{1,3}}{_BETWEEN}\d{{1,3}}){_NO_COUNT}",
    re.IGNORECASE,
)
_CELL_PART: Final = re.compile(
    r"(?:(?:앞|뒤|뒷|첫|끝)[ ]?(?:\d|한|두|세|네)?[ ]?자리(?:숫자|수)?|(?:first|last)[ ](?:two|2)(?:[ ]digits)?)"
    rf"[^\d\n]{{0,40}}?(?:\d{{1,2}}(?:번째|번)?[ ]?)??{_IS}(?<!\d)(?P<hit>\d{{2}})(?![ ]?(?:are|is|was|:)){_NO_COUNT}",
    re.IGNORECASE,
)
_SERVICE_NUMBER: Final = re.compile(r"1[5-9]\d\d-\d{4}")
_LEAST, _MOST = 3, 8  # digits


def named_secrets(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each secret."""
    for pattern in (_NAMED_FIRST, _NAMED_LAST):
        for match in pattern.finditer(text):
            if not _SERVICE_NUMBER.match(match["hit"]):
                yield from _whole(text, *match.span("hit"))
    for match in (*_PASSWORD.finditer(text), *_PART.finditer(text)):
        yield match.span("hit")
    for card in _SECURITY_CARD.finditer(text):
        until = card.end() + _OF_CARD
        yield from (cell.span("hit") for cell in _CELL.finditer(text, card.start(), until))
        yield from (cell.span("hit") for cell in _SPLIT_CELL.finditer(text, card.start(), until))
        yield from (part.span("hit") for part in _CELL_PART.finditer(text, max(0, card.start() - _BEFORE_CARD), until))


def _whole(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the groups of digits that together are as long as a secret is; what follows is something else."""
    digits, last = 0, start
    for group in re.finditer(r"\d+", text[start:end]):
        if digits + len(group.group()) > _MOST:
            break
        digits, last = digits + len(group.group()), start + group.end()
    if digits >= _LEAST:
        yield start, last
