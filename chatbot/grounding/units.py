"""Read Korean and English units of numbers: after the number, before it, and in table headings. No I/O."""

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final

from chatbot.grounding.quantity import (
    BUSINESS_DAYS,
    CURRENCIES,
    CURRENCY_CODES,
    DATE,
    DAYS,
    KRW,
    MONTHS,
    PERCENT,
    POINTS,
    QUARTER,
    SECONDS,
    TIMES,
    YEARS_OLD,
)
from chatbot.quotes import content_words


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit; `names` are its possible meanings (2주 is weeks or shares), and `factor` converts into the first."""

    names: tuple[str, ...]
    factor: Decimal = Decimal(1)


# Each `\b` below becomes `_END`, so that "won입니다" ends a word too: Hangul after Latin letters is a particle.
_END: Final = r"(?![A-Za-z])"
# The look-aheads exclude words that begin like a counter (3일 / 일반, 5건 / 건강). Directly after a number a counter
# may have a particle (보증인 3명의 동의); after a space, or before one of these endings, 명의, 회의 and 주의 are nouns.
_NO_NOUN: Final = r"(?!(?<=[ \t][명회주])의|의(?:사항|보|깊|무|실|록|체|장|자|변경))"
# Each unit's pattern, its names separated by "|", and its factor; the first pattern that matches counts.
_UNIT_ROWS: Final[tuple[tuple[str, str, int | str], ...]] = (
    (r"%\s?(?:p(?![a-z]|\.a\b|\. a\.)|포인트)|(?:퍼센트|프로)\s?포인트", POINTS, 1),
    (r"(?:percent(?:age)?|%)[ -]points?\b|pp\b", POINTS, 1),
    (r"‰", PERCENT, "0.1"),
    (r"(?<!\s)할(?!인|부|증|당|수|머|애|때)", PERCENT, 10),
    (r"bps?\b|basis[ -]points?\b|베이시스\s?포인트", POINTS, "0.01"),
    (r"%|퍼센트|프로(?!그램|젝트|모션|필|세스|토콜|듀스)|percent\b|per cent\b|pct\b", PERCENT, 1),
    (r"원(?!리금|금|칙|본|격|천|화|인)|(?:korean )?won\b|krw\b|(?<!\s)₩(?!\s?\d)", KRW, 1),
    (r"홍콩\s?달러|(?:hong kong|hk) dollars?\b|HKD\b", "HKD", 1),
    (r"싱가포르\s?달러|singapore dollars?\b|SGD\b", "SGD", 1),
    (r"호주\s?달러|australian dollars?\b|AUD\b", "AUD", 1),
    (r"캐나다\s?달러|canadian dollars?\b|CAD\b", "CAD", 1),
    (r"뉴질랜드\s?달러|new zealand dollars?\b|NZD\b", "NZD", 1),
    (r"(?:대만|타이완)\s?달러|(?:new )?taiwan dollars?\b|TWD\b", "TWD", 1),
    (r"(?:스위스\s?)?프랑(?!스|크)|(?:swiss )?francs?\b|CHF\b", "CHF", 1),
    (r"(?:태국\s?)?바트|(?:thai )?baht\b|THB\b", "THB", 1),
    (r"(?:미국\s?)?(?:달러|불(?![가-힣]))|(?:us )?dollars?\b|usd\b|(?<!\s)\$(?!\s?\d)", "USD", 1),
    (r"유로|euros?\b|eur\b|€(?!\s?\d)", "EUR", 1),
    (r"엔(?![가-힣]{2})|yen\b|jpy\b|(?<!\s)¥(?!\s?\d)", "JPY", 1),
    (r"위안|yuan\b|cny\b", "CNY", 1),
    (r"파운드|pounds?\b|gbp\b|(?<!\s)£(?!\s?\d)", "GBP", 1),
    (r"(?:은행\s?)?영업일|(?:(?:business|working|bank(?:ing)?)[ -]){1,3}days?\b", BUSINESS_DAYS, 1),
    (r"개월|달(?!러|성|라|력)|months?\b", MONTHS, 1),
    (r"세(?!금|대|액|율|부|전|후|트|계|법|입|칙)|살(?![가-힣]{2})|years?[ -](?:old\b|of age\b)", YEARS_OLD, 1),
    (r"년|해(?![가-힣])|years?\b|yrs?\b", MONTHS, 12),
    (rf"주(?!식|택|소|문|민|요|거|체|간사){_NO_NOUN}(?:일|간)?", f"{DAYS}|주", 7),
    (r"weeks?\b", DAYS, 7),
    (r"일(?!괄|반|정|치|용|시|부\s)(?:간)?", f"{DAYS}|{DATE}", 1),
    (r"days?\b", DAYS, 1),
    (r"시간|hours?\b|hrs?\b", SECONDS, 3600),
    (r"분(?!기|의|류|석|할|납|야|양|실|쟁|만|담|배)|minutes?\b|mins?\b", SECONDS, 60),
    (r"초(?!과|기|본|등)|seconds?\b|secs?\b", SECONDS, 1),
    (rf"회(?!원|사|계|전|선|복|피|비|신){_NO_NOUN}|번(?!째|호)|차례", TIMES, 1),
    (r"times?\b", "회|배", 1),
    (r"배(?!송|당|정|분|우|상|달)", "배", 1),
    (rf"명(?!칭|세|시|목|확|함){_NO_NOUN}", "명", 1),
    (r"인(?!출|증|터|하|상|정|쇄|적|감|도|별|지|수)|사람|people\b|persons?\b", "명", 1),
    (r"분기|quarters?\b", QUARTER, 1),
    (r"포인트|points?\b", "포인트", 1),
    (r"마일(?!리)|miles?\b", "마일", 1),
    (r"개(?!인|설|시|정|별|선|통|봉|편|요|발)|가지|종(?:류)?(?!료|합|목|전|사|이)|kinds?\b|types?\b", "개", 1),
    (r"건(?!강|물|전|축)|cases?\b|transactions?\b", "건", 1),
    (r"장(?!기|애|점|소|치|려|부)|매(?!월|일|년|도|매|입|수|주|각)|sheets?\b|copies\b", "장", 1),
    (r"곳|군데|branches\b|places?\b", "곳", 1),
    (r"단계|steps?\b|stages?\b", "단계", 1),
    (r"자리|글자|digits?\b|characters?\b", "자리", 1),
    (r"등급|grades?\b", "등급", 1),
    (r"조(?![가-힣]{0,20}(?:건|회|정))", "조", 1),
    (r"항(?!목|공|상)", "항", 1),
    (r"호(?!텔|주|출)", "호", 1),
    (r"차(?!량|감|등|이|입|주|단)", "차", 1),
    (r"대(?!출|상|금|면|표|한|여|리|행|기|부)", "대", 1),
    (r"쪽|페이지|pages?\b", "쪽", 1),
)
_PATTERNS: Final = tuple(pattern.replace(r"\b", _END) for pattern, _, _ in _UNIT_ROWS)
_UNITS: Final = tuple(Unit(tuple(names.split("|")), Decimal(str(factor))) for _, names, factor in _UNIT_ROWS)
ANY_UNIT: Final = f"(?:{'|'.join(_PATTERNS)})"  # after a number in words
# Between a number and its unit: 여 (over), emphasis, a blank, a hyphen, and adjectives.
_GAP: Final = r"여?+[*_]{0,3}+[ \t]?+[*_]{0,3}+-?+(?:(?:full|whole|consecutive|additional|more|calendar)[ ]){0,2}+"
_TRAILING: Final = re.compile(f"{_GAP}(?:{'|'.join(f'({pattern})' for pattern in _PATTERNS)})", re.IGNORECASE)
_LEADING: Final = re.compile(
    rf"(?P<sign>₩|US\$|(?-i:(?<![A-Za-z])[A-Z]{{1,2}})\$|\$|{'|'.join(CURRENCIES)}|€|¥|£|원화|미화)"
    r"[ \t]?[*_]{0,3}\Z",
    re.IGNORECASE,
)
_SIGNS: Final = {
    **{code: code for code in CURRENCIES}, "₩": KRW, "원화": KRW, "US$": "USD", "$": "USD", "미화": "USD", "€": "EUR",
    "¥": "JPY", "£": "GBP", "HK$": "HKD", "S$": "SGD", "SG$": "SGD", "A$": "AUD", "AU$": "AUD", "C$": "CAD",
    "CA$": "CAD", "NZ$": "NZD", "NT$": "TWD",
}  # fmt: skip

_CODE_BEFORE: Final = re.compile(r"(?<![A-Za-z])([A-Z]{3})[ ]?\Z")
_WORD_AFTER: Final = re.compile(
    r"[*_]{0,3}[ -]?(?!이상|이하|미만|초과|이내|이전|이후|내외|정도)"
    r"([^\W\d_]+|[¢¤฿\u20a0-\u20cf\u2100-\u214f\u3300-\u33ff])"
)
_PAID_MONTHLY: Final = re.compile(r"[ ](?:equal[ ])?monthly[ ](?:instal|(?:re)?pay)ments?\b", re.IGNORECASE)
_OR_OLDER: Final = re.compile(r"[ ](?:and|or)[ ](?:over|older|above|under|younger|below)\b", re.IGNORECASE)
_OF_AGE: Final = re.compile(r"\b(?:age(?:d|s|[ ]of)?|under|over|above|below|least)[ ]\Z", re.IGNORECASE)
_YEAR: Final = re.compile(r"(?:19|20)\d\d")

# Units in headings: (단위: 천원), 금리(연 %), Fee (KRW), 한도, 만원
_HEADING: Final = re.compile(
    r"(?:단위\s{0,3}[:：]?|units?\s{0,3}[:：]?|in)?\s{0,3}(?:연|월|세전|세후|연이율|per annum|p\.\s?a\.)?[\s,]{0,4}"
    r"(?P<scale>천|만|십만|백만|천만|억|십억|thousand|million|billion)?\s{0,3}(?P<unit>원|won|KRW|달러|USD|\$|%p|%|퍼센트|percent"
    r"|개월|months?|years?|영업일|business days|days?|년|일|회|건|명|times)\s{0,3}(?P<after>thousand|million|billion)?"
    r"(?:\s{0,3},?\s{0,3}(?:연|세전|세후|p\.\s?a\.|pa|(?:per|a)[ ](?:annum|year)|이내|이상|기준))?\s{0,3}",
    re.IGNORECASE,
)
_PARENTHESIS: Final = re.compile(r"[(（\[]([^()（）\[\]]{1,24})[)）\]]")
_CAPTION: Final = re.compile(r"(?:단위|units?)\s*[:：]\s*([^\n)\]]{1,24})", re.IGNORECASE)
_HEADING_SCALES: Final = {
    "천": 10**3, "만": 10**4, "십만": 10**5, "백만": 10**6, "천만": 10**7, "억": 10**8, "십억": 10**9,
    "thousand": 10**3, "million": 10**6, "billion": 10**9,
}  # fmt: skip


def trailing_unit(text: str, at: int) -> tuple[Unit, int] | None:
    """Return the unit after a number that ends at `at`, and the unit's end offset."""
    match = _TRAILING.match(text, at)
    if match is None or match.lastindex is None:
        return None
    return _UNITS[match.lastindex - 1], match.end()


def leading_currency(text: str, at: int) -> tuple[Unit, int] | None:
    """Return the currency before a number that starts at `at`, and the currency's start offset."""
    match = _LEADING.search(text, max(0, at - 8), at)
    if match is None:
        return None
    sign = match["sign"].upper()
    return Unit((_SIGNS.get(sign, sign),)), match.start()  # an unknown sign such as R$ is its own currency


def unknown_unit(text: str, start: int, end: int) -> tuple[str, str]:
    """Return (currency code, "") or ("", noun) of a bare number at [start, end); both are empty for a year or age."""
    before, after = _CODE_BEFORE.search(text, max(0, start - 5), start), _WORD_AFTER.match(text, end)
    word_before, word_after = before[1] if before else "", after[1] if after else ""
    for code in (word_before, word_after):
        if code in CURRENCY_CODES:
            return code, ""
    if _PAID_MONTHLY.match(text, end):
        return "", MONTHS
    if may_be_age(text, start, end) or _YEAR.fullmatch(text, start, end):
        return "", ""
    is_sign = not word_after.isalpha()  # such as ₽; a word without content, such as "the", is not a unit
    return "", next(iter(content_words(word_after)), word_after if is_sign else "")


def may_be_age(text: str, start: int, end: int) -> bool:
    """Return whether the context of a number at [start, end) suggests an age without a unit."""
    cue = _OF_AGE.search(text, max(0, start - 8), start) or _OR_OLDER.match(text, end)
    return end - start <= 2 and cue is not None


@lru_cache(maxsize=512)
def heading_unit(cell: str) -> Unit | None:
    """Return the unit of bare numbers under a table heading or a caption, or None."""
    parenthesised = [part for text in _PARENTHESIS.findall(cell) for part in (text, *text.split(","))]
    for candidate in [*_CAPTION.findall(cell), *parenthesised, cell]:
        match = _HEADING.fullmatch(candidate.strip())
        if match is None:
            continue
        unit = trailing_unit(" " + match["unit"], 0) or leading_currency(match["unit"], len(match["unit"]))
        if unit is not None:
            scale = match["scale"] or match["after"]
            factor = _HEADING_SCALES[scale.lower()] if scale else 1
            return Unit(unit[0].names, unit[0].factor * factor)
    return None
