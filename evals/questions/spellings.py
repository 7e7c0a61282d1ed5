"""Makes identifiers of nobody, in the spellings that customers use, with the words around them (pure; seeded)."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from knowledge.screening import IdentifierKind

_WIDE: Final = str.maketrans("0123456789-", "０１２３４５６７８９－")
_CIRCLED: Final = str.maketrans("0123456789", "⓪①②③④⑤⑥⑦⑧⑨")
_WORDS: Final = str.maketrans("0123456789", "공일이삼사오육칠팔구")

Spelling = Callable[[str], str]

# Of an identifier whose groups stand with hyphens.
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
# Only where the digits alone, or the words around them, still say what it is.
RUN_TOGETHER: Final[dict[str, Spelling]] = {
    "run together": lambda text: text.replace("-", ""),
    "run together, full width": lambda text: text.replace("-", "").translate(_WIDE),
    "spaced out": lambda text: " ".join(text.replace("-", "")),
    "in words": lambda text: text.replace("-", " ").translate(_WORDS),
    "in words, with the hyphen's": lambda text: text.replace("-", " 다시 ").translate(_WORDS),
    "in words, run together": lambda text: text.replace("-", "").translate(_WORDS),
}
_AROUND: Final = (
    "{name} {hit}입니다",
    "{name}는 {hit}번이에요",
    "{name}가 {hit}번으로 되어 있는데 바꿀 수 있나요?",
    "{name}:{hit}",
    "{name}({hit})로 조회해 주세요",
    "제 {name} {hit}이고요, 확인 부탁드려요",
    "{name} {hit}, 이름은 홍길동",
    "{name}\n{hit}\n확인해 주세요",
    "{hit} 이게 제 {name}예요",
    "My number ({name}) is {hit}.",
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
class Spelled:
    """A sentence with an identifier in it: its kind, how it is spelled and where it stands."""

    text: str
    kind: IdentifierKind
    spelling: str
    start: int
    end: int


def spelled(count: int, seed: int = 1) -> Iterator[Spelled]:
    """Yield so many sentences of every kind and spelling."""
    chance = random.Random(seed)  # noqa: S311  a sample, no secret
    for kind in _NAMES:
        for name, spelling in spellings_of(kind).items():
            for _ in range(count):
                yield _sentence(kind, name, spelling, chance)


def spellings_of(kind: IdentifierKind) -> dict[str, Spelling]:
    """Return how a kind is spelled."""
    if kind is IdentifierKind.EMAIL:
        return {"plain": str, "blanks": lambda text: text.replace("@", " @ "), "full width": _wide_letters}
    if kind is IdentifierKind.PASSPORT:
        wanted = ("hyphens", "full width", "zero width", "circled")
        return {name: SPELLINGS[name] for name in wanted}
    if kind is IdentifierKind.BUSINESS_NUMBER:  # ten digits without hyphens could be anything
        return {**SPELLINGS, "in words, with the hyphen's": RUN_TOGETHER["in words, with the hyphen's"]}
    return {**SPELLINGS, **RUN_TOGETHER}


def _sentence(kind: IdentifierKind, name: str, spelling: Spelling, chance: random.Random) -> Spelled:
    hit = spelling(_identifier(kind, chance))
    around = chance.choice(_AROUND).replace("{name}", chance.choice(_NAMES[kind]))
    start = around.index("{hit}")
    return Spelled(text=around.replace("{hit}", hit), kind=kind, spelling=name, start=start, end=start + len(hit))


def _identifier(kind: IdentifierKind, chance: random.Random) -> str:
    """Return an identifier of nobody; resident numbers and cards with checksums that mostly fail."""

    def digits(count: int) -> str:
        return "".join(chance.choice("0123456789") for _ in range(count))

    groups: dict[IdentifierKind, Callable[[], tuple[str, ...]]] = {
        IdentifierKind.RESIDENT_NUMBER: lambda: (
            f"{digits(2)}{chance.randint(1, 12):02}{chance.randint(1, 28):02}",
            f"{chance.randint(1, 8)}{digits(6)}",
        ),
        IdentifierKind.CARD: lambda: (chance.choice(_CARDS) + digits(3), digits(4), digits(4), digits(4)),
        IdentifierKind.ACCOUNT: lambda: tuple(digits(count) for count in chance.choice(_ACCOUNTS)),
        IdentifierKind.PHONE: lambda: (chance.choice(_PREFIXES), f"{chance.randint(2, 9)}{digits(3)}", digits(4)),
        IdentifierKind.PASSPORT: lambda: (
            chance.choice("MSRD") + chance.choice((digits(8), f"{digits(3)}{chance.choice('ABCDE')}{digits(4)}")),
        ),
        IdentifierKind.DRIVER_LICENCE: lambda: (str(chance.randint(11, 28)), digits(2), digits(6), digits(2)),
        IdentifierKind.BUSINESS_NUMBER: lambda: (f"{chance.randint(1, 9)}{digits(2)}", digits(2), digits(5)),
        IdentifierKind.EMAIL: lambda: (
            f"{chance.choice(_PEOPLE)}{digits(2)}@{chance.choice(('hanbit', 'mail'))}.example",
        ),
    }
    return "-".join(groups[kind]())


def _wide_letters(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if char.isalnum() else char for char in text)
