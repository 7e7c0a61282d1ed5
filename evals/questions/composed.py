"""Composes made-up identifiers: kind × script of the digits × what stands between the groups × sentence (pure; seeded).

Nothing here comes from the masking's patterns. Groups and check digits are those of public formats: resident numbers
(주민등록법 시행규칙, birth date and seven digits), ISO/IEC 7812 cards, mobile numbers of the Korean numbering plan, the
accounts of Korean banks, driver licences, business numbers, RFC 5321 addresses, one-time passwords of six to eight
digits, security cards (a number of two to four digits beside the cell's). Digits, dashes and blanks are those that
Unicode names so; the words are those that customers say a number with.
"""

import random
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Final

from knowledge.screening import IdentifierKind

Groups = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedIdentifier:
    """A sentence with an identifier; `pieces` are what must not be left, `digits` and `link` its axes."""

    text: str
    kind: IdentifierKind
    digits: str
    link: str
    pieces: tuple[tuple[int, int], ...]


@cache
def _characters(category: str) -> tuple[str, ...]:
    return tuple(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) == category)


@cache
def _decimal_scripts() -> tuple[str, ...]:
    """Return the ten digits of each script that has decimal digits, ASCII's among them."""
    zeros = [c for c in _characters("Nd") if unicodedata.decimal(c) == 0]
    return tuple("".join(chr(ord(zero) + n) for n in range(10)) for zero in zeros)


@cache
def _valued(digit: int) -> tuple[str, ...]:
    """Return the characters that Unicode gives this digit's value without being decimal: circled, raised and others."""
    return tuple(c for c in _characters("No") if unicodedata.digit(c, None) == digit)


# Letters said for digits, one a digit: Korean, and the plain and the legal numerals of Hanja.
_KOREAN, _HANJA, _LEGAL = "공일이삼사오육칠팔구", "零一二三四五六七八九", "零壹貳參四五六七八九"
_ENGLISH: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_UNSEEN: Final = ("\u200b", "\u200d", "\u2060", "\u2063", "\u00ad", "\ufe0f", "\u034f", "\u2066", "\u202d", "\u061c")

Digits = Callable[[str, random.Random], str]


def _each(spell: Callable[[str, random.Random], str]) -> Digits:
    return lambda group, rng: "".join(spell(c, rng) if c.isdigit() else c for c in group)


def _of_one_script(group: str, rng: random.Random) -> str:
    script = rng.choice(_decimal_scripts())
    return "".join(script[int(c)] if c.isdigit() else c for c in group)


DIGITS: Final[dict[str, Digits]] = {
    "ASCII": lambda group, _: group,
    "one script's decimal digits": _of_one_script,
    "decimal digits of all scripts": _each(lambda c, rng: rng.choice(_decimal_scripts())[int(c)]),
    "circled, raised and others": _each(lambda c, rng: rng.choice(_valued(int(c)) or (c,))),
    "keycaps": _each(lambda c, _: f"{c}\ufe0f\u20e3"),
    "struck through": _each(lambda c, rng: c + rng.choice("\u0332\u0336\u20dd")),
    "unseen characters between": _each(lambda c, rng: c + rng.choice(_UNSEEN)),
    "Korean words": _each(lambda c, _: _KOREAN[int(c)]),
    "Hanja": _each(lambda c, rng: rng.choice((_HANJA, _LEGAL))[int(c)]),
    "English words": lambda group, _: " ".join(_ENGLISH[int(c)] if c.isdigit() else c for c in group),
    "figures and Korean words": _each(lambda c, rng: rng.choice((c, c, _KOREAN[int(c)]))),
    "blanks between": lambda group, _: " ".join(group),
}

Link = Callable[[random.Random], str]


def _of(category: str, most: int = 1) -> Link:
    return lambda rng: rng.choice(_characters(category)) * rng.randint(1, most)


def _spaced(link: Link) -> Link:
    return lambda rng: link(rng).join(rng.choice((("", ""), (" ", " "), ("", " "))))


LINKS: Final[dict[str, Link]] = {
    "hyphen": lambda _: "-",
    "dash of Unicode": _spaced(_of("Pd", 2)),
    "blank of Unicode": _of("Zs", 3),
    "punctuation": _spaced(lambda rng: rng.choice("./,·_~:;|*+=\\、・。…‥′،")),
    "arrow": _spaced(lambda rng: rng.choice(("->", "→", "=>", "--", "//", "::", ", ", "...", ") ", "]["))),
    "line break": lambda rng: rng.choice(("\n", "\r\n", "\n\n", "\u2028", "\u2029", "\x85", "\v", "\f", "\r")),
    "line break and more": lambda rng: rng.choice(("-\n", "\n- ", " \n  ", "\n\n\n", ",\n", "\n> ", "\n* ", "<br>")),
    "word": lambda rng: " {} ".format(
        rng.choice(("다시", "대시", "하이픈", "그리고", "다음", "바", "빼기", "점", "슬래시", "쉼표", "dash", "hyphen",
                    "then", "minus", "slash", "and", "그 다음", "그다음은", "이어서", "뒤에", "띄고", "음", "어"))
    ),
    "other words": lambda rng: " {} ".format(
        rng.choice(("콜론", "이어지는 번호는", "그러고 나서", "후에", "플러스", "물결", "엔터", "쭉", "세미콜론",
                    "거기에", "계속해서", "짝대기", "옆에",
                    "in turn", "after that", "plus", "tilde", "colon", "it continues with", "zwischen"))
    ),
    "word that is attached": lambda rng: rng.choice(("다시", "에 ", "이고 ", "하고 ", "에다 ", "다음에 ", "(띄고)")),
}  # fmt: skip
# What stands before the first half, between both, and behind.
HALVES: Final = (
    ("앞자리는 ", "이고 뒷자리는 ", ""),
    ("앞자리 ", ", 뒷자리 ", ""),
    ("앞은 ", "이고요 뒤는 ", ""),
    ("앞 {front}자리 ", " 뒤 {back}자리 ", ""),
    ("앞번호 ", " 뒷번호 ", ""),
    ("앞자리: ", "\n뒷자리: ", ""),
    ("", "이고 뒤에는 ", ""),
    ("", "까지가 앞자리고 나머지는 ", ""),
    ("앞에 ", " 쓰고 그 뒤로 ", "입니다"),
    ("first half ", ", second half ", ""),
    ("the first {front} digits are ", " and the last {back} are ", ""),
    ("front: ", " back: ", ""),
    ("it starts with ", " and ends with ", ""),
)
_NAMES: Final[dict[IdentifierKind, tuple[str, ...]]] = {
    IdentifierKind.RESIDENT_NUMBER: ("주민번호", "주민등록번호", "외국인등록번호", "주민 번호", "resident number"),
    IdentifierKind.CARD: ("카드번호", "체크카드", "신용카드 번호", "카드", "card number"),
    IdentifierKind.ACCOUNT: ("계좌번호", "계좌", "통장 번호", "입금계좌", "account number"),
    IdentifierKind.PHONE: ("전화번호", "휴대폰", "연락처", "핸드폰 번호", "phone number"),
    IdentifierKind.DRIVER_LICENCE: ("운전면허번호", "면허번호", "운전면허", "driver's licence"),
    IdentifierKind.BUSINESS_NUMBER: ("사업자번호", "사업자등록번호", "사업자 등록 번호"),
}
# Alone they are any digits; their name makes them secret.
_SECRETS: Final[tuple[tuple[str, int], ...]] = (
    ("OTP", 6), ("OTP 번호", 6), ("오티피", 6), ("일회용 비밀번호", 6), ("일회용비밀번호", 8), ("인증번호", 6),
    ("문자 인증번호", 6), ("인증 코드", 6), ("확인코드", 6), ("one-time password", 6), ("one time passcode", 6),
    ("verification code", 6), ("security code", 3), ("SMS code", 6), ("보안카드 12번", 4), ("보안카드 3번째 번호", 4),
    ("보안카드 7번 앞 두 자리", 2), ("보안카드 21번 뒤 두자리", 2), ("보안카드 번호", 4),
    ("security card number 12", 4),
    ("카드 비밀번호", 4), ("계좌 비밀번호", 4), ("비밀번호 앞 두자리", 2), ("비번", 4), ("CVC", 3), ("CVV 번호", 3),
    ("카드 뒷면 세자리", 3), ("PIN", 6), ("간편비밀번호", 6), ("결제 비밀번호", 6), ("passcode", 6),
)  # fmt: skip
_HALVED: Final = (IdentifierKind.RESIDENT_NUMBER, IdentifierKind.CARD, IdentifierKind.ACCOUNT)
_SAYS: Final = (" ", "는 ", "가 ", ": ", "=", " is ", "은 ", ":", " 이 ", "\n", " -> ", "이 ", "(")
_SECRET_LINKS: Final = {"none": "", "blank": " ", "hyphen": "-", "dot": ".", "comma": ", ", "line break": "\n"}
_SENTENCES: Final = (
    "{name} {it}입니다",
    "제 {name}는 {it}이에요",
    "{name}: {it}",
    "{name}({it})로 조회해 주세요",
    "{name}\n{it}\n확인해 주세요",
    "{it} 이게 제 {name}예요",
    "{name} {it}, 이름은 홍길동",
    "{name} {it} 만기 언제예요?",
    "{name} {it} 억울해요, 만 원도 못 뺐어요",
    "My {name} is {it}.",
)
# Their form alone tells what they are.
_TELLING: Final = (IdentifierKind.RESIDENT_NUMBER, IdentifierKind.CARD, IdentifierKind.PHONE)
_NAMELESS: Final = ("{it}로 조회해 주세요", "여기요 {it}", "{it} please check", "홍길동 {it} 맞나요?", "{it}")
_ACCOUNTS: Final = (
    (6, 2, 6), (3, 3, 6), (4, 2, 7), (3, 4, 4, 2), (4, 3, 6), (3, 6, 5), (3, 6, 2, 3), (4, 4, 4), (3, 2, 6), (3, 6, 3),
    (3, 7, 1, 3), (3, 4, 4, 1), (3, 8, 2), (2, 2, 6),
)  # fmt: skip
_LOCALS: Final = ("hong", "kim.minsu", "lee_99", "a-b", "park.j.h", "choi2024", "hong.gil-dong")
_DOMAINS: Final = ("gmail.com", "naver.com", "hanmail.net", "bank.co.kr", "mail.hanbit.example", "daum.net")
_AT: Final = (" @ ", " (at) ", "(at)", " [at] ", "[@]", " {at} ", " at ", " 골뱅이 ", "골뱅이", " <at> ", " AT ", "＠")
_DOT: Final = (
    " . ",
    " (dot) ",
    "(dot)",
    " [dot] ",
    "[.]",
    " {dot} ",
    " dot ",
    " 점 ",
    "점",
    " 닷 ",
    " DOT ",
    "．",
    "。",
)
_PLAIN: Final = ((" at ", " dot "), (" AT ", " DOT "), ("@", "."))


def composed_identifiers(count: int, seed: int = 1) -> Iterator[ComposedIdentifier]:
    """Yield `count` sentences for each kind, script and link, twice as many halves and secrets, and addresses."""
    rng = random.Random(seed)  # noqa: S311  a sample, no secret
    for kind, digits, link in product(_NAMES, DIGITS, LINKS):
        yield from (_linked(kind, digits, link, rng) for _ in range(count))
    for kind, digits in product(_HALVED, DIGITS):
        yield from (_in_halves(kind, digits, rng) for _ in range(count * 2))
    for digits, link in product(DIGITS, _SECRET_LINKS):
        yield from (_secret(digits, link, rng) for _ in range(count * 2))
    yield from (_spelled_address(rng) for _ in range(count * 60))


def _linked(kind: IdentifierKind, digits: str, link: str, rng: random.Random) -> ComposedIdentifier:
    groups = [DIGITS[digits](group, rng) for group in _groups(kind, rng)]
    return _in_sentence(kind, digits, link, [*_interleaved(groups, LINKS[link](rng))], rng)


def _interleaved(groups: Sequence[str], between: str) -> Iterator[tuple[str, bool]]:
    """Yield each part of a written identifier, and whether it is a piece that must not be left."""
    for n, group in enumerate(groups):
        if n:
            yield between, False
        yield group, True


def _in_halves(kind: IdentifierKind, digits: str, rng: random.Random) -> ComposedIdentifier:
    spell = DIGITS[digits]
    groups = _groups(kind, rng)
    front, back = "".join(groups[: (len(groups) + 1) // 2]), "".join(groups[(len(groups) + 1) // 2 :])
    before, between, behind = (words.format(front=len(front), back=len(back)) for words in rng.choice(HALVES))
    parts = [(before, False), (spell(front, rng), True), (between, False), (spell(back, rng), True), (behind, False)]
    return _in_sentence(kind, digits, "halves named", parts, rng)


def _secret(digits: str, link: str, rng: random.Random) -> ComposedIdentifier:
    spell, between = DIGITS[digits], _SECRET_LINKS[link]
    name, length = rng.choice(_SECRETS)
    groups = [_digits(length, rng)]
    if between and length > 3:
        groups = [groups[0][: length // 2], groups[0][length // 2 :]]
    says = rng.choice(_SAYS)
    parts = [*_interleaved([spell(group, rng) for group in groups], between)]
    lead, tail = rng.choice(
        (("", "입니다"), ("제 ", "인데 안 돼요"), ("", "예요"), ("my ", "."), ("", ""), ("아까 ", "\n맞죠?"))
    )
    text = f"{lead}{name}{says}"
    return _composed(IdentifierKind.SECRET, digits, link, [(text, False), *parts, (")" * (says == "(") + tail, False)])


def _spelled_address(rng: random.Random) -> ComposedIdentifier:
    local, domain = rng.choice(_LOCALS), rng.choice(_DOMAINS)
    at, dot = rng.choice(_PLAIN) if rng.random() < 0.3 else (rng.choice(_AT), rng.choice(_DOT))
    written = f"{local.replace('.', dot) if rng.random() < 0.3 else local}{at}{domain.replace('.', dot)}"
    sentence = rng.choice(
        ("메일은 {it} 입니다", "{it} 로 보내 주세요", "my e-mail is {it}", "이메일: {it}", "send it to {it} please")
    )
    before, _, behind = sentence.partition("{it}")
    return _composed(
        IdentifierKind.EMAIL, "ASCII", "address spelled", [(before, False), (written, True), (behind, False)]
    )


def _in_sentence(
    kind: IdentifierKind, digits: str, link: str, parts: Sequence[tuple[str, bool]], rng: random.Random
) -> ComposedIdentifier:
    nameless = kind in _TELLING and link != "halves named" and rng.random() < 0.3
    sentence = rng.choice(_NAMELESS if nameless else _SENTENCES).replace("{name}", rng.choice(_NAMES[kind]))
    before, _, behind = sentence.partition("{it}")
    return _composed(kind, digits, link, [(before, False), *parts, (behind, False)])


def _composed(kind: IdentifierKind, digits: str, link: str, parts: Sequence[tuple[str, bool]]) -> ComposedIdentifier:
    text, pieces = "", []
    for part, is_piece in parts:
        if is_piece:
            pieces.append((len(text), len(text) + len(part)))
        text += part
    return ComposedIdentifier(text=text, kind=kind, digits=digits, link=link, pieces=tuple(pieces))


def _digits(count: int, rng: random.Random) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _groups(kind: IdentifierKind, rng: random.Random) -> Groups:
    match kind:
        case IdentifierKind.RESIDENT_NUMBER:
            month, day = f"{rng.randint(1, 12):02}", f"{rng.randint(1, 28):02}"
            back = f"{rng.randint(1, 8)}{_digits(6, rng)}"
            written = rng.random()
            if written < 0.15:  # with the century, as forms of other offices ask
                return f"{rng.randint(1930, 2010)}{month}{day}", back
            if written < 0.3:
                return f"{_digits(2, rng)}년{month}월{day}일", back
            return f"{_digits(2, rng)}{month}{day}", back
        case IdentifierKind.CARD:
            digits = rng.choice("4569") + _digits(14, rng)
            digits += str(_luhn(digits))
            return digits[:4], digits[4:8], digits[8:12], digits[12:]
        case IdentifierKind.PHONE:
            return (
                rng.choice(("010", "010", "010", "011", "017")),
                f"{rng.randint(2, 9)}{_digits(3, rng)}",
                _digits(4, rng),
            )
        case IdentifierKind.DRIVER_LICENCE:
            return str(rng.randint(11, 28)), _digits(2, rng), _digits(6, rng), _digits(2, rng)
        case IdentifierKind.BUSINESS_NUMBER:
            return f"{rng.randint(1, 9)}{_digits(2, rng)}", _digits(2, rng), _digits(5, rng)
        case _:
            return tuple(_digits(length, rng) for length in rng.choice(_ACCOUNTS))


def _luhn(digits: str) -> int:
    """Return the check digit of a card number (ISO/IEC 7812-1)."""
    total = sum((int(c) * (2 - n % 2)) // 10 + (int(c) * (2 - n % 2)) % 10 for n, c in enumerate(reversed(digits)))
    return -total % 10
