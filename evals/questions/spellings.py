"""Generates made-up identifiers in the spellings that customers use, each within a sentence (pure; seeded)."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from knowledge.screening import IdentifierKind

_WIDE: Final = str.maketrans("0123456789-", "０１２３４５６７８９－")
_CIRCLED: Final = str.maketrans("0123456789", "⓪①②③④⑤⑥⑦⑧⑨")
_WORDS: Final = str.maketrans("0123456789", "공일이삼사오육칠팔구")

Spelling = Callable[[str], str]

# How an identifier is spelled, from the form whose groups are separated by hyphens.
SPELLINGS: Final[dict[str, Spelling]] = {
    "hyphens": lambda text: text,
    "blanks round the hyphen": lambda text: text.replace("-", " - "),
    "blank after the hyphen": lambda text: text.replace("-", "- "),
    "blanks": lambda text: text.replace("-", " "),
    "dots": lambda text: text.replace("-", "."),
    "en dashes": lambda text: text.replace("-", "–"),
    "Korean vowel as dash": lambda text: text.replace("-", "ㅡ"),
    "full width": lambda text: text.translate(_WIDE),
    "full width, blanks": lambda text: text.translate(_WIDE).replace("－", " － "),
    "zero width": "\u200b".join,
    "circled": lambda text: text.translate(_CIRCLED),
}
# Without separators: for identifiers that their digits or the words around them still show.
RUN_TOGETHER: Final[dict[str, Spelling]] = {
    "run together": lambda text: text.replace("-", ""),
    "run together, full width": lambda text: text.replace("-", "").translate(_WIDE),
    "spaced out": lambda text: " ".join(text.replace("-", "")),
    "in words": lambda text: text.replace("-", " ").translate(_WORDS),
    "in words, with the hyphen's": lambda text: text.replace("-", " 다시 ").translate(_WORDS),
    "in words, run together": lambda text: text.replace("-", "").translate(_WORDS),
}
_SENTENCES: Final = (
    "{name} {identifier}입니다",
    "{name}는 {identifier}번이에요",
    "{name}가 {identifier}번으로 되어 있는데 바꿀 수 있나요?",
    "{name}:{identifier}",
    "{name}({identifier})로 조회해 주세요",
    "제 {name} {identifier}이고요, 확인 부탁드려요",
    "{name} {identifier}, 이름은 홍길동",
    "{name}\n{identifier}\n확인해 주세요",
    "{identifier} 이게 제 {name}예요",
    "My number ({name}) is {identifier}.",
)
_NAMES: Final[dict[IdentifierKind, tuple[str, ...]]] = {
    IdentifierKind.RESIDENT_NUMBER: ("주민번호", "주민등록번호", "외국인등록번호"),
    IdentifierKind.CARD: ("카드번호", "카드", "신용카드"),
    IdentifierKind.ACCOUNT: ("계좌번호", "계좌", "통장 번호"),
    IdentifierKind.PHONE: ("전화번호", "휴대폰", "연락처"),
    IdentifierKind.PASSPORT: ("여권번호", "여권"),
    IdentifierKind.DRIVER_LICENCE: ("운전면허번호", "면허번호"),
    IdentifierKind.BUSINESS_NUMBER: ("사업자번호", "사업자등록번호"),
    IdentifierKind.EMAIL: ("이메일", "메일"),
}
_ACCOUNTS: Final = ((6, 2, 6), (3, 3, 6), (4, 2, 7), (3, 4, 4, 2), (4, 3, 6), (3, 6, 5), (3, 6, 2, 3), (4, 4, 4))
_PREFIXES: Final = ("010", "010", "010", "011", "070")
_PEOPLE: Final = ("hong", "kim.minsu", "lee_99", "a-b")
_CARDS: Final = ("4", "5", "9", "3")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpelledIdentifier:
    """A sentence with an identifier: its kind, the name of its spelling, and its offsets in the text."""

    text: str
    kind: IdentifierKind
    spelling: str
    start: int
    end: int


def spelled_identifiers(count: int, seed: int = 1) -> Iterator[SpelledIdentifier]:
    """Yield `count` sentences for each kind and spelling."""
    rng = random.Random(seed)  # noqa: S311  a sample, no secret
    for kind in _NAMES:
        for name, spelling in spellings_of(kind).items():
            for _ in range(count):
                yield _sentence(kind, name, spelling, rng)


def spellings_of(kind: IdentifierKind) -> dict[str, Spelling]:
    """Return the spellings of a kind by name."""
    if kind is IdentifierKind.EMAIL:
        return {"plain": str, "blanks": lambda text: text.replace("@", " @ "), "full width": _wide_letters}
    if kind is IdentifierKind.PASSPORT:
        return {name: SPELLINGS[name] for name in ("hyphens", "full width", "zero width", "circled")}
    if kind is IdentifierKind.BUSINESS_NUMBER:  # ten digits without hyphens could be anything
        return {**SPELLINGS, "in words, with the hyphen's": RUN_TOGETHER["in words, with the hyphen's"]}
    return {**SPELLINGS, **RUN_TOGETHER}


def _sentence(kind: IdentifierKind, name: str, spelling: Spelling, rng: random.Random) -> SpelledIdentifier:
    identifier = spelling(_identifier(kind, rng))
    sentence = rng.choice(_SENTENCES).replace("{name}", rng.choice(_NAMES[kind]))
    start = sentence.index("{identifier}")
    text = sentence.replace("{identifier}", identifier)
    return SpelledIdentifier(text=text, kind=kind, spelling=name, start=start, end=start + len(identifier))


def _identifier(kind: IdentifierKind, rng: random.Random) -> str:
    """Return a random identifier in hyphenated form; checksums of resident numbers and cards mostly fail."""

    def digits(count: int) -> str:
        return "".join(rng.choice("0123456789") for _ in range(count))

    groups: dict[IdentifierKind, Callable[[], tuple[str, ...]]] = {
        IdentifierKind.RESIDENT_NUMBER: lambda: (
            f"{digits(2)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}",
            f"{rng.randint(1, 8)}{digits(6)}",
        ),
        IdentifierKind.CARD: lambda: (rng.choice(_CARDS) + digits(3), digits(4), digits(4), digits(4)),
        IdentifierKind.ACCOUNT: lambda: tuple(digits(count) for count in rng.choice(_ACCOUNTS)),
        IdentifierKind.PHONE: lambda: (rng.choice(_PREFIXES), f"{rng.randint(2, 9)}{digits(3)}", digits(4)),
        IdentifierKind.PASSPORT: lambda: (
            rng.choice("MSRD") + rng.choice((digits(8), f"{digits(3)}{rng.choice('ABCDE')}{digits(4)}")),
        ),
        IdentifierKind.DRIVER_LICENCE: lambda: (str(rng.randint(11, 28)), digits(2), digits(6), digits(2)),
        IdentifierKind.BUSINESS_NUMBER: lambda: (f"{rng.randint(1, 9)}{digits(2)}", digits(2), digits(5)),
        IdentifierKind.EMAIL: lambda: (f"{rng.choice(_PEOPLE)}{digits(2)}@{rng.choice(('hanbit', 'mail'))}.example",),
    }
    return "-".join(groups[kind]())


def _wide_letters(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if char.isalnum() else char for char in text)
