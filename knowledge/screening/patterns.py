"""The tables of identifiers: kind, pattern and an additional check.

Patterns of `READ` match a reading of the text. Patterns of `LINKED` match a simplified reading: amounts, dates and
counts are blanked out, and one character stands for the text between two groups of digits: a blank, a hyphen,
`.` for another firm mark, or `~` for a weak link (a line break, "dash", the name of the other half). Over a weak link a
number counts only with the kind's name nearby, or with a check digit. The group `hit`, if any, is the part to mask.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final


class IdentifierKind(StrEnum):
    """The kinds of identifiers; a `secret` is a PIN, password, one-time password or security code."""

    RESIDENT_NUMBER = "resident_number"
    CARD = "card"
    ACCOUNT = "account"
    PHONE = "phone"
    PASSPORT = "passport"
    DRIVER_LICENCE = "driver_licence"
    BUSINESS_NUMBER = "business_number"
    EMAIL = "email"
    SECRET = "secret"  # noqa: S105  # the name of a kind, not a secret


_K: Final = IdentifierKind
_Check = Callable[[IdentifierKind, re.Match[str]], bool]
_NAMES: Final[dict[IdentifierKind, re.Pattern[str]]] = {
    kind: re.compile(names, re.IGNORECASE)
    for kind, names in {
        _K.RESIDENT_NUMBER: r"주민|외국인|거소|resident|registration|\brrn\b|\bssn\b",
        _K.CARD: r"카드|card\b|\bcc\b|신용|체크|결제|\bpaid\b|visa|amex|mastercard",
        _K.PHONE: r"전화|휴대|핸드폰|연락|번호|phone|mobile|\bcell|\btel|call",
        _K.DRIVER_LICENCE: r"면허|licen[cs]e",
        _K.BUSINESS_NUMBER: r"사업자|business",
        _K.ACCOUNT: r"계좌|통장|입금|송금|이체|예금주|account|acct|a/c|iban"
        r"|(?:은행|뱅크|금고|우체국|농협|수협|신협|신한|우리|하나|국민|기업|카카오|토스|제일)[ :]{0,2}(?=\d)",
    }.items()
}
_NAME_BEFORE, _NAME_AFTER = 60, 20  # characters around a match that are searched for the kind's name
# A security card has numbered cells of four digits; banks ask for two of them. Its name may precede several cells.
_SECURITY_CARD: Final = re.compile(r"(?:보안|시크릿|안전)[ ]?카드|security[ ]?card", re.IGNORECASE)
_CELL_BEFORE, _CELL_AFTER = 150, 40  # characters


def _always(_kind: IdentifierKind, _match: re.Match[str]) -> bool:
    return True


def _has_name(kind: IdentifierKind, match: re.Match[str]) -> bool:
    start, end = match.span()
    return _NAMES[kind].search(match.string, max(0, start - _NAME_BEFORE), end + _NAME_AFTER) is not None


def _near_security_card(_kind: IdentifierKind, match: re.Match[str]) -> bool:
    start, end = match.span()
    return _SECURITY_CARD.search(match.string, max(0, start - _CELL_BEFORE), end + _CELL_AFTER) is not None


def _luhn(_kind: IdentifierKind, match: re.Match[str]) -> bool:
    """Return whether the digits pass the check of card numbers (Luhn, ISO/IEC 7812-1)."""
    digits = re.sub(r"\D", "", match.group())
    doubled = [int(digit) * (1 + n % 2) for n, digit in enumerate(reversed(digits))]  # every second digit
    return sum(value // 10 + value % 10 for value in doubled) % 10 == 0


def _has_name_or_luhn(kind: IdentifierKind, match: re.Match[str]) -> bool:
    return _has_name(kind, match) or (match.group()[0] in "34569" and _luhn(kind, match))


def _iban(_kind: IdentifierKind, match: re.Match[str]) -> bool:
    """Return whether the text may be an IBAN: all upper case, or with valid check digits (ISO 13616)."""
    iban = match.group().replace(" ", "")
    rearranged = iban[4:] + iban[:4]
    is_valid = iban.isupper() or int("".join(str(int(char, 36)) for char in rearranged)) % 97 == 1
    return is_valid and len(re.sub(r"\D", "", iban)) >= 10


# Building blocks: the surroundings of a number (`_BEFORE`, `_END`), and the links between its groups of digits (a firm
# link, any link, or a far one with a few words).
BLANKED_OUT: Final = "§"
MONEY: Final = r"(?:[만억천조]{0,2}원(?![래금하])|달러|퍼센트|%|won\b|usd\b|krw\b|dollars?\b)"
MARK: Final = r"(?:[^\w\s%$₩€£]|_)"
_SPOKEN_LINK: Final = (
    r"다시|[대데]시|하이[픈푼]|[작짝]대기|그리고|그[ \t]?다음[은엔에]?|다음[은엔에]?|바|빼기|마이너스|점|쩜|땡"
    r"|슬래[시쉬]|쉼표|콤마|언더바|이어서?|그?[ \t]?뒤[에로]?|그|띄[고우]고?|한칸|음{1,4}|어{1,4}|에(?:다가?)?"
    r"|하고요?|이고요?|이?랑|또|줄바꿈|줄|칸|플러스|더하기|별표?|샵|쉬고|계속|나머지[는은]?|[두세네]?[ \t]?번째[는로]?"
    r"|dash|hyphen|minus|plus|slash|dot|period|comma|colon|star|space|pause|then|and|next|after|that|followed|by|comes"
    r"|continuing|continues|it|goes|on|the|rest|is|again|finally|lastly|um{1,4}|uh{1,4}|/?br/?"
)
WORDS: Final = rf"(?:(?:[\s]|{MARK}){{0,6}}(?:(?:{_SPOKEN_LINK})(?:[\s]|{MARK}){{0,5}}){{1,3}})"
_BEFORE: Final = r"(?<![\d,.])(?<!\d-)"
_END: Final = r"(?!\d|,\d)"
_FIRM: Final = "[-. ]"
_ANY: Final = "[-.~ ]"
_FAR: Final = rf"(?:{_ANY}|(?![A-Za-z])[^\d{BLANKED_OUT}\n]{{1,24}}(?<![A-Za-z]))"
_MONTH_DAY: Final = r"(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_REGION: Final = (
    r"(?:서울|부산|경기|강원|충북|충남|전북|전남|경북|경남|제주|대구|인천|광주|대전|울산)(?:특별시|광역시|시|도)?"
)
_AREA_CODE: Final = r"0(?:2|[3-6][1-5]|70|50\d)"

# Spelled-out addresses: lee (at) bank (dot) com, hong 골뱅이 네이버 점 컴.
_SPOKEN_DOT: Final = (
    r"[ \t]{0,2}(?:[(\[{<][ ]?(?:dot|닷|점|쩜|\.)[ ]?[)\]}>]|[-_*~/|]dot[-_*~/|]|점|쩜|닷)[ \t]{0,2}"
    r"|[ \t]{1,2}dot[ \t]{1,2}"
)
_DOT: Final = (
    rf"(?:{_SPOKEN_DOT}|[ ]?[。․][ ]?|[ ]\.[ ]|\."
    r"|[ \n]{0,2}[.,][ \n]{0,2}(?=(?:com|net|org|co|kr|go|or|ac|io)\b))"
)
_SPOKEN_AT: Final = r"[(\[{<][ ]?(?:at|앳|골뱅이|@)[ ]?[)\]}>]|[-_*~/|][ ]?at[ ]?[-_*~/|]|골뱅이|앳"
_AT: Final = (
    rf"(?:[ \t\n]{{0,2}}(?:{_SPOKEN_AT}|@),?[ \t\n]{{0,2}}"
    r"|[ \t]{1,2}at[ \t]{1,2}(?!(?:the|a|an|my|your|this|that|our)\b))"
)
# Possessive, so that a series of labels matches in only one way.
_LABEL: Final = r"[A-Za-z0-9]{1,31}+"
_LOCAL: Final = rf"(?<![A-Za-z0-9]){_LABEL}(?:(?:{_DOT}|[_+-]|[ ]?(?:언더바|대시)[ ]?){_LABEL}){{0,5}}"
# Signs that "at" between blanks is part of an address ("lee at gmail.com"), not of a sentence ("I bank at chase.com").
_SIGN: Final = re.compile(
    rf"{_SPOKEN_AT}|@|{_SPOKEN_DOT}|\b(?:gmail|naver|hanmail|daum|kakao|nate|outlook|hotmail|yahoo|icloud)\b",
    re.IGNORECASE,
)
# "mail address is" before an address.
_MAIL: Final = re.compile(r"(?:mail|메일|이멜)(?:[ ]?(?:주소|address))?[ ]?(?:은|는|이|:|=|is)[ ]?\Z", re.IGNORECASE)


def _has_address_sign(_kind: IdentifierKind, match: re.Match[str]) -> bool:
    before = match.string[max(0, match.start() - 24) : match.start()]
    return _SIGN.search(match.group()) is not None or _MAIL.search(before) is not None


# Secrets that only the nearby name reveals.
_CODE_NAME: Final = (
    r"(?:\botp|오티피|일회용[ ]?(?:비밀[ ]?)?번호|인증[ ]?(?:번호|코드|숫자)|(?:확인|승인|보안|접속)[ ]?코드"
    r"|보안[ ]?카드|시크릿[ ]?카드|(?:비밀|암호|핀)[ ]?번호|비번|패스워드|암호|\bpin|\bcvc2?|\bcvv2?|\bcid\b"
    r"|passcode|password|one[ -]?time[ ]?(?:code|pin)|(?:2fa|mfa|two[ -]factor)(?:[ ]?code)?"
    r"|(?:verification|security|sms|authentication|auth|confirmation|access)[ ]?code"
    r"|security[ ]?card|뒷[ ]?면)"
)
_PLACES: Final = r"(?:앞|뒤|뒷|맨앞|맨뒤|첫)?[ ]?(?:\d|한|두|세|네|여섯)[ ]?(?:자리|글자|digits?)"
_IS: Final = r"[ \t\n]{0,2}(?:는|은|가|이|를|:|=|is|are|was|->|→|>|\(|\[|\"|')?[ \t\n]{0,2}[(\[<{\"']?[ ]?"
# The source of a code, and words for its arrival.
_SOURCE: Final = (
    r"(?:[ ]?(?:생성기|발생기|토큰|기기|앱|화면|문자|메시지|카톡|sms|text|app|token|device|phone|screen|message)"
    r"(?:에서|에|으로|로)?|[ ]?(?:방금|지금|아까|받은|뜬|온|나온)|[ ](?:from|on|in|by|via)(?:[ ](?:the|my|an?))?){0,3}"
)
_OF_SECRET: Final = rf"(?:[ ]?(?:생성기|발생기|숫자|번호|코드|code|numbers?|no\.?))?{_SOURCE}(?:[ ]?{_PLACES})?{_IS}"
_BETWEEN: Final = rf"(?:[ \t\n]{{0,2}}(?:{MARK}){{1,3}}[ \t\n]{{0,2}}|[ \t\n]{{1,2}}|{WORDS})"
# Counts are not secrets: 4자리, 3회, 6 digits.
_NO_COUNT: Final = (
    r"(?!\d|[ ]?(?:자리|회|번(?![이입인으])|일(?![이입인])|년|월|개|원|분|초|시|장|차|명|건|칸|가지|만|천|억|%|급"
    r"|등급|세대|층|글자|digits?|times|minutes?|mins?\b|seconds?|hours?|days?|attempts?|codes?\b|characters?|x\b))"
)


def _table(*rows: tuple[IdentifierKind, str, _Check]) -> tuple[tuple[IdentifierKind, re.Pattern[str], _Check], ...]:
    return tuple((kind, re.compile(pattern, re.IGNORECASE), check) for kind, pattern, check in rows)


def _digit_run(least: int, most: int) -> str:
    """Return a pattern of `least` to `most` digits, grouped in any way."""
    return rf"\d(?:{_ANY}?\d){{{least - 1},{most - 1}}}"


READ: Final = _table(
    (_K.SECRET, r"bck_[0-9a-f]{16}_[0-9a-f]{64}", _always),  # `knowledge.service_keys`
    (_K.EMAIL, r"[A-Za-z0-9._%+\-]{1,64}+[ \t]?@[ \t]?"
     r"[A-Za-z0-9\-]{1,63}(?:[ \t]?\.[ \t]?[A-Za-z0-9\-]{1,63}){0,8}\.[A-Za-z]{2,24}", _always),
    (_K.EMAIL, rf"{_LOCAL}{_AT}(?:[A-Za-z][A-Za-z0-9-]{{0,30}}+|[가-힣]{{2,6}}?)(?:{_DOT}{_LABEL}){{0,4}}"
     rf"(?:{_DOT}(?:[A-Za-z]{{2,24}}|컴|넷|씨오|케이알|코리아))", _has_address_sign),
    # After Latin letters, 골뱅이 means @; elsewhere it is a dish.
    (_K.EMAIL, rf"{_LOCAL}[ ]?골뱅이[ ]?(?:[A-Za-z0-9-]{{1,31}}+|[가-힣]{{2,6}}?)(?=[ 로으에입이가\n.,]|\Z)", _always),
    (_K.EMAIL, r"(?<![A-Za-z0-9])(?:[A-Za-z0-9._+-][ \t]){2,64}+@(?:[ \t][A-Za-z0-9.-]){4,64}(?![A-Za-z0-9])", _always),
    (_K.ACCOUNT, r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){3,7}(?:[ ]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])", _iban),
    (_K.PASSPORT, r"(?<![A-Za-z0-9])[MSRODG][ \t-]?(?:\d{8}|\d{3}[A-Z]\d{4})(?![A-Za-z0-9])", _always),
    (_K.PASSPORT, r"(?:여권|passport)[^\d\n]{0,20}?(?P<hit>(?<![A-Za-z0-9])(?:[MSRODG][ -]?\d{3,4}[ -]\d{4,5}"
     r"|[A-Z]{0,2}\d{6,9})(?![\dA-Za-z]))", _always),
    (_K.DRIVER_LICENCE, r"driver'?s?'? licen[cs]e[^\d\n]{0,20}?(?P<hit>\b[A-Z]?\d{6,16})(?!\d)", _always),
    (_K.RESIDENT_NUMBER, rf"[앞뒷][ ]?(?:자리|번호|부분)[^\d]{{0,8}}(?:[67][ ]?자리[^\d]{{0,8}})?"
     rf"(?P<hit>(?<!\d)(?:[1-8]\d{{6}}|\d\d{_MONTH_DAY})){_END}(?![ \t]?{MONEY})", _always),
    (_K.SECRET, rf"{_CODE_NAME}{_OF_SECRET}(?!1[5-9]\d\d-\d{{4}})"
     rf"(?P<hit>(?<!\d)(?:\d{{1,4}}(?:{_BETWEEN}\d{{1,4}}){{1,3}}|\d{{3,8}})){_NO_COUNT}", _always),
    (_K.SECRET, rf"(?<![\d.,-])(?!1[5-9]\d\d-\d{{4}})(?P<hit>\d{{4,8}}|\d{{2,4}}{_BETWEEN}\d{{2,4}})"
     rf"(?:이|가|은|는|,|:|[ ]is)?(?:{_SOURCE},?[ ](?:it[ ]is|it's))?[ ]?"
     rf"(?:제|내|이게|저의|요거|my|the)?[ ]?(?:제[ ]?)?{_CODE_NAME}(?:[ ]?(?:번호|코드|숫자|code|number))?"
     rf"(?:예요|이에요|입니다|인데|이야|야|[.!\n]|\Z)", _always),
    # A password of letters and digits: six or more characters after "password is", eight or more after "password"
    # alone; not a device, release or error code.
    (_K.SECRET, r"(?:(?:비밀|암호)[ ]?번호|비번|패스워드|암호|\bpassword|\bpasscode|\bpasswd|\bpw)"
     r"(?:[ \t\n]{0,2}(?:는요?|은요?|가|이|를|:|=|\b(?:is|was)\b:?|->|→)[ \t\n]{0,2}[\"'(\[<]?(?P<is>)|[ \t\n]{1,2})"
     r"(?!https?:)(?=[!-~]{0,40}[A-Za-z])(?=[!-~]{0,40}\d)(?P<hit>(?(is)[!-~]{6,400}+|[!-~]{8,400}+))"
     r"(?![ ]?(?:에서|오류|에러))", _always),
    # Two digits are secret if the text calls them the first or last of a code.
    (_K.SECRET, r"(?:비밀[ ]?번호|비번|\bcvc|\bcvv|뒷[ ]?면)[^\n.?!]{0,24}?"
     r"(?:앞|뒤|뒷|맨앞|맨뒤|첫)[ ]?(?:[ ]?면)?[ ]?(?:\d|한|두|세|네)[ ]?(?:자리|글자|digits?)"
     rf"{_IS}(?P<hit>(?<!\d)\d{{2,4}}){_NO_COUNT}", _always),
    (_K.SECRET, rf"(?<![\d.,-])\d{{4}}(?!,\d|[.-]\d){_NO_COUNT}", _near_security_card),
    (_K.SECRET, r"(?:\d{1,2}[ ]?(?:번째|번|칸)|(?:number|no\.?|cell|row)[ ]?\d{1,2})[^\d\n]{0,12}?"
     rf"{_IS}(?<!\d)(?P<hit>\d{{1,3}}{_BETWEEN}\d{{1,3}}){_NO_COUNT}", _near_security_card),
    (_K.SECRET, r"(?:(?:앞|뒤|뒷|첫|끝)[ ]?(?:\d|한|두|세|네)?[ ]?자리(?:숫자|수)?"
     rf"|(?:first|last)[ ](?:two|2)(?:[ ]digits)?)[^\d\n]{{0,40}}?(?:\d{{1,2}}(?:번째|번)?[ ]?)??{_IS}(?<!\d)"
     rf"(?P<hit>\d{{2}})(?![ ]?(?:are|is|was|:)){_NO_COUNT}", _near_security_card),
)  # fmt: skip

LINKED: Final = _table(
    (_K.RESIDENT_NUMBER, rf"{_BEFORE}\d\d{_MONTH_DAY}{_FIRM}?\d{{7}}{_END}", _always),
    (_K.RESIDENT_NUMBER, rf"{_BEFORE}(?:18|19|20)?\d\d{_FIRM}?{_MONTH_DAY}{_FAR}[1-8]\d{{6}}{_END}", _always),
    (_K.RESIDENT_NUMBER, rf"{_BEFORE}\d{{6}}-\d(?:\d{{6}}|[*xX●○#]{{6}})(?!\d)", _always),
    (_K.RESIDENT_NUMBER, rf"(?<!\d)(?:(?:18|19|20)?\d\d{_MONTH_DAY}|\d{{6}}){_FAR}\d{{7}}{_END}", _has_name),
    (_K.RESIDENT_NUMBER, rf"(?<!\d)(?=\d\d{_ANY}?\d\d{_ANY}?[0-3]){_digit_run(13, 13)}{_END}", _has_name),
    (_K.RESIDENT_NUMBER, rf"(?<!\d)\d{{7}}{_FAR}\d\d{_MONTH_DAY}{_END}", _has_name),
    (_K.RESIDENT_NUMBER, r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])", _always),
    (_K.RESIDENT_NUMBER, rf"(?:ssn|social security)[^\d\n]{{0,20}}(?P<hit>\d{{3}}{_ANY}?\d\d{_ANY}?\d{{4}}){_END}",
     _always),
    (_K.CARD, rf"{_BEFORE}\d{{4}}(?:{_FIRM}\d{{4}}){{3}}(?!\d)", _always),
    (_K.CARD, rf"{_BEFORE}3[47]\d\d{_FIRM}\d{{6}}{_FIRM}\d{{5}}(?!\d)", _always),
    (_K.CARD, rf"(?<!\d)(?:\d{{4}}(?:{_FAR}\d{{4}}){{3}}|\d{{4}}{_FAR}\d{{6}}{_FAR}\d{{5}})(?!\d)", _has_name_or_luhn),
    (_K.CARD, r"(?<!\d)(?=[34569](?:[-.~]?\d){14,15}(?!\d))\d{3,12}(?:[-.~]\d{3,12}){1,3}", _luhn),
    (_K.CARD, rf"(?<!\d)\d{{8}}{_ANY}?\d{{8}}{_END}", _has_name),
    (_K.CARD, rf"{_BEFORE}\d{{12,19}}(?!\d)", _luhn),
    (_K.DRIVER_LICENCE, rf"(?<![\d-])(?:[12]\d{_FIRM}|{_REGION}[ ./-]{{0,2}})\d\d{_FIRM}\d{{6}}{_FIRM}\d\d(?![\d-])",
     _always),
    (_K.DRIVER_LICENCE, r"(?<!\d)[12]\d~\d\d~\d{6}~\d\d(?!\d)", _always),
    (_K.DRIVER_LICENCE, rf"(?<!\d)\d\d{_FAR}?\d\d{_FAR}?\d{{6}}{_FAR}?\d\d(?!\d)", _has_name),
    (_K.PHONE, rf"(?<![\d.,])\(?(?:(?:\+|00)?82{_ANY}?\(?0?\)?{_ANY}?|0)1[016-9]\)?{_FAR}?(?!01[016-9])"
     rf"\d{{3,4}}{_FAR}?\d{{4}}(?!\d)", _always),
    (_K.PHONE, rf"(?<!\d)0{_ANY}?1{_ANY}?[016-9](?:{_ANY}?\d){{7,8}}(?!\d)", _has_name),
    (_K.PHONE, rf"(?<![\d-])(?<!\d[.,])\(?{_AREA_CODE}[-.]\d{{3,4}}{_FIRM}\d{{4}}(?![\d-])", _always),
    (_K.PHONE, rf"(?<!\d){_AREA_CODE}{_FAR}\d{{3,4}}{_FAR}\d{{4}}(?!\d)", _has_name),
    (_K.PHONE, rf"(?<!\d){_AREA_CODE}~\d{{3,4}}~\d{{4}}(?!\d)", _always),
    (_K.PHONE, r"(?<![\d+])\+[1-9]\d{0,2}(?:[-.~ (]{0,2}\d){8,12}(?!\d)", _always),
    (_K.PHONE, r"(?<![\d-])(?<!\d[.,])0(?!80)\d{2,4}[- ]\d{3,4}[- ]\d{3,4}(?![\d-])", _always),
    (_K.PHONE, r"(?:phone|mobile|cell|fax|call (?:me |us )?(?:at|on|back at)|reach(?:ed)? (?:me )?(?:at|on)"
     r"|messages? to|answering at|휴대폰|핸드폰|휴대전화|전화번호|연락처)[^\d+(]{0,20}"
     r"(?P<hit>(?!1[5-9]\d\d-?\d{4}(?!\d)|\(?0?80|(?:19|20)\d\d[-.])\+?\(?\d(?:[-. ()]{0,2}\d){6,11})(?![\d-])",
     _always),
    (_K.BUSINESS_NUMBER, r"(?<![\d-])\d{3}-\d{2}-\d{5}(?![\d-])", _always),
    (_K.BUSINESS_NUMBER, rf"(?<!\d)\d{{3}}{_FAR}?\d\d{_FAR}?\d{{5}}(?!\d)", _has_name),
    (_K.ACCOUNT, r"(?<![\d-])(?!19|20|0\d{1,3}-\d{3,4}-\d{3,4}(?!-)|1[5-9]\d\d-|0?80-)(?=(?:-?\d){10,16}(?![\d-]))"
     r"\d{3,6}-\d{2,6}-\d{2,8}(?:-\d{1,4})?", _always),
    (_K.ACCOUNT, rf"(?<![\d,.]){_digit_run(10, 16)}{_END}", _has_name),
    # This many digits identify something in any context.
    (_K.ACCOUNT, rf"{_BEFORE}\d{{11,19}}{_END}", _always),
    (_K.ACCOUNT, r"(?<!\d)(?<!\d )\d(?: \d){9}(?! ?\d)", _always),
)  # fmt: skip
