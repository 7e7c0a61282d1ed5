"""Finds identifiers whose groups of digits stand apart: by a line break, a word, a named half, any mark.

Groups that something links are a chain. A run of groups in it is an identifier by its shape (how many digits, cut
where) and by what else makes it one: a birth date, a card's check digit, the same link throughout, its name nearby.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from typing import Final

from knowledge.screening.identifier_kinds import IdentifierKind


class Link(IntEnum):
    """What stands between two groups, from what binds most to what binds least."""

    MARKS = 0  # blanks and a few marks
    BREAK = 1  # a line break and marks
    WORDS = 2  # how a separator is said
    HALF = 3  # the name of another half
    OTHER = 4  # a few other words
    NONE = 5


@dataclass(frozen=True, slots=True)
class _Group:
    start: int
    end: int
    link: Link
    """What binds it to the group before it."""
    gap: str
    is_dated: bool
    """Whether the group before it is a year, a month or a day."""


_MOST_GROUPS = 6
_MOST_DIGITS = 19
_MOST_LINK = 44  # characters
_MOST_OTHER = 24

MARK: Final = r"(?:[^\w\s%$₩€£]|_)"
_MARKS: Final = re.compile(rf"[ \t]{{0,4}}{MARK}{{0,4}}[ \t]{{0,4}}")
_BREAK: Final = re.compile(rf"(?:[\s\\]|{MARK}){{1,10}}")
_DATED: Final = re.compile(r"[ \t]?[년월일日][ \t]?생?")
_INDEX: Final = re.compile(r"^[ \t]{0,4}(?P<number>[1-9])[).][ \t]", re.MULTILINE)  # of a list: 1) 880101
_SAID: Final = (
    r"다시|대시|데시|하이[픈푼]|작대기|그리고|그[ \t]?다음[은엔에]?|다음[은엔에]?|바|빼기|마이너스|점|쩜|땡"
    r"|슬래[시쉬]|쉼표|콤마|언더바|이어서?|그?[ \t]?뒤[에로]?|그|띄[고우]고?|한칸|음+|어+|에(?:다가?)?|하고요?|이고요?"
    r"|이?랑|또|줄바꿈|줄|칸|짝대기|플러스|더하기|별표|별|샵|쉬고|계속|하고|나머지[는은]?|[두세네]?[ \t]?번째[는로]?"
    r"|dash|hyphen|minus|plus|slash|dot|period|comma|colon|star|space|pause|then|and|next|after|that|followed|by|comes"
    r"|continuing|continues|it|goes|on|the|rest|is|again|finally|lastly|um+|uh+|/?br/?"
)
# What stands between two groups where the link is said.
WORDS: Final = rf"(?:(?:[\s]|{MARK}){{0,6}}(?:(?:{_SAID})(?:[\s]|{MARK}){{0,5}}){{1,3}})"
_WORDS: Final = re.compile(WORDS, re.IGNORECASE)
_HALF: Final = re.compile(
    r"뒤|뒷|나머지|끝|마지막|앞|last|back|second|rest|remaining|ends?\b|other half|latter|followed", re.IGNORECASE
)
_UNIT: Final = re.compile(
    r"[ \t]?(?:[만억천조]{0,2}원(?![래금하])|달러|퍼센트|[%만억천주개건명회호분초년월일점좌장석조위](?![가-힣])"
    r"|won\b|usd\b|krw\b|dollars?\b|shares?\b)",
    re.IGNORECASE,
)
_MONEY: Final = re.compile(
    r"[ \t]?(?:[만억천조]{0,2}원(?![래금하])|달러|퍼센트|%|won\b|usd\b|krw\b|dollars?\b)", re.IGNORECASE
)
_LEAST_UNCOUNTED = 5  # digits: 67890 만 is no number of ten thousands behind the rest of an account
# 앞 6자리, the last 7 digits: how many, not which.
_COUNT: Final = re.compile(r"[ \t]?(?:자리|글자|digits?\b|numbers?\b)", re.IGNORECASE)
_COUNTED: Final = re.compile(r"(?:first|last|front|back)[ \t]\Z", re.IGNORECASE)
# An amount, a rate or a service's number is part of no identifier.
_AMOUNT: Final = re.compile(
    r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?!,?\d)|(?<![\d.,-])(?!0\d)\d{1,4}\.\d{1,4}(?![\d-]|\.\d)|(?<![\d-])1[5-9]\d\d-\d{4}(?!-?\d)"
)
# A day or a time of day is part of none but a resident number.
_DAY_OR_TIME: Final = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d|'?\d\d(?=\.))[ ]?[-./년][ ]?\d{1,2}[ ]?[-./월][ ]?\d{1,2}(?!\d)"
    r"|(?<![\d:])[0-2]?\d:[0-5]\d(?::[0-5]\d)?(?![\d:])"
)
_NAMES: Final[dict[IdentifierKind, re.Pattern[str]]] = {
    kind: re.compile(names, re.IGNORECASE)
    for kind, names in {
        IdentifierKind.RESIDENT_NUMBER: r"주민|외국인|거소|resident|registration|\brrn\b|\bssn\b",
        IdentifierKind.CARD: r"카드|card\b|\bcc\b|신용|체크|결제|\bpaid\b|visa|amex|mastercard",
        IdentifierKind.PHONE: r"전화|휴대|핸드폰|연락|번호|phone|mobile|\bcell|\btel|call",
        IdentifierKind.DRIVER_LICENCE: r"면허|licen[cs]e",
        IdentifierKind.BUSINESS_NUMBER: r"사업자|business",
        IdentifierKind.ACCOUNT: r"계좌|통장|입금|송금|이체|예금주|account|acct|a/c|iban"
        r"|(?:은행|뱅크|금고|우체국|농협|수협|신협|신한|우리|하나|국민|기업|카카오|토스|제일)[ :]{0,2}(?=\d)",
    }.items()
}
_BEFORE, _AFTER = 60, 20  # characters in which a name counts


def grouped_identifiers(text: str) -> Iterator[tuple[IdentifierKind, int, int]]:
    """Yield what may be an identifier in several groups: surest kinds first, then as they stand, longest first."""
    runs = [_Run(text, groups) for groups in _runs(_groups(text))]
    if not runs:
        return
    days = _Places(text, _DAY_OR_TIME)
    for kind, (lengths, is_one) in _SHAPES.items():
        names = _Places(text, _NAMES[kind])
        for run in runs:
            if len(run.digits) in lengths:
                is_named = names.touch(run.start - _BEFORE, run.end + _AFTER)
                if is_one(run, is_named=is_named, has_day=days.touch(run.start, run.end)):
                    yield kind, run.start, run.end


def _groups(text: str) -> list[_Group]:
    groups: list[_Group] = []
    amounts = _Places(text, _AMOUNT)
    indexes = {index.start("number") for index in _INDEX.finditer(text)}
    barrier = 0  # behind the last amount nothing is bound to what stands before it
    for match in re.finditer(r"\d{1,32}", text):
        start, end = match.span()
        counted = end - start <= 2 and (
            _COUNT.match(text, end) is not None or _COUNTED.search(text[max(0, start - 6) : start]) is not None
        )
        if amounts.touch(start + 1, end - 1):
            barrier = end
        elif not counted and start not in indexes:
            near = bool(groups) and start - groups[-1].end <= _MOST_LINK and groups[-1].end >= barrier
            gap = _INDEX.sub("", text[groups[-1].end : start]) if near else None
            dated = _DATED.match(gap) if gap is not None else None
            link = Link.NONE if gap is None else _link(gap[dated.end() :] if dated else gap)
            groups.append(_Group(start, end, link, gap or "", dated is not None))
    return groups


def _link(gap: str) -> Link:
    if _MARKS.fullmatch(gap):
        return Link.MARKS if "\n" not in gap else Link.BREAK
    if _BREAK.fullmatch(gap):
        return Link.BREAK
    if _WORDS.fullmatch(gap):
        return Link.WORDS
    if _HALF.search(gap):
        return Link.HALF
    within_a_word = any(char.isascii() and char.isalpha() for char in (gap[0], gap[-1]))
    return Link.OTHER if len(gap) <= _MOST_OTHER and not within_a_word and _UNIT.match(gap) is None else Link.NONE


def _runs(groups: Sequence[_Group]) -> Iterator[list[_Group]]:
    """Yield the linked groups that together have as many digits as an identifier, longest first at each place."""
    for first, group in enumerate(groups):
        digits, until = group.end - group.start, []
        for last in range(first + 1, min(first + _MOST_GROUPS, len(groups))):
            if groups[last].link is Link.NONE:
                break
            digits += groups[last].end - groups[last].start
            if digits > _MOST_DIGITS:
                break
            if digits >= 9:
                until.append(last + 1)
        yield from (list(groups[first:last]) for last in reversed(until))


class _Places:
    """Where a pattern matches, asked for quickly: a long text has many runs and many names."""

    def __init__(self, text: str, pattern: re.Pattern[str]) -> None:
        spans = [match.span() for match in pattern.finditer(text)]
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]

    def touch(self, start: int, end: int) -> bool:
        """Return whether one of them touches this span."""
        last = bisect_right(self._starts, end) - 1
        return last >= 0 and self._ends[last] >= start


class _Run:
    """Groups in a row, with what there is to say of them."""

    def __init__(self, text: str, groups: Sequence[_Group]) -> None:
        self.lengths = tuple(group.end - group.start for group in groups)
        self.digits = "".join(text[group.start : group.end] for group in groups)
        self.links = tuple(group.link for group in groups[1:])
        self.weakest = max(self.links)
        self.is_dated = any(group.is_dated for group in groups[1:])
        self.start, self.end = groups[0].start, groups[-1].end
        self._text, self._groups = text, groups

    @property
    def is_uniform(self) -> bool:
        """Whether the same mark or words stand between all groups; a blank or a comma stands between any numbers."""
        gaps = {group.gap for group in self._groups[1:]}
        return len(self._groups) > 2 and len(gaps) == 1 and not gaps & {" ", ", ", ","}

    @property
    def is_bound(self) -> bool:
        """Whether what stands between the groups says that they belong together."""
        return self.weakest <= Link.HALF or self.is_uniform

    @property
    def is_marked(self) -> bool:
        """Whether more than blanks and line breaks stands between all groups, and nothing else than marks."""
        return self.weakest <= Link.BREAK and all(group.gap.strip() for group in self._groups[1:])

    @property
    def has_unit(self) -> bool:
        """Whether an amount ends it: money, or what few digits count."""
        unit = _UNIT if self.lengths[-1] < _LEAST_UNCOUNTED else _MONEY
        return unit.match(self._text, self.end) is not None

    def is_cut_at(self, *places: int) -> bool:
        """Return whether groups end at these digits."""
        return {*accumulate(self.lengths)}.issuperset(places)


# Groups of the birth date, and of what follows it.
_FRONTS: Final = ((6,), (2, 2, 2), (8,), (4, 2, 2), (4, 4))


def _is_resident_number(run: _Run, *, is_named: bool, has_day: bool) -> bool:  # noqa: ARG001  # its first half is a day
    front = 8 if len(run.digits) == 15 else 6
    if front == 8 and run.digits[:2] not in ("18", "19", "20"):
        return False
    if run.lengths == (7, 6) and is_named:  # the back half named first
        return _is_born(run.digits[7:]) and not run.has_unit
    is_born = _is_born(run.digits[front - 6 : front])
    if not run.is_cut_at(front):
        return is_named and is_born and run.weakest <= Link.BREAK and len(run.lengths) <= 3
    fronts = [front for front in _FRONTS if run.lengths[: len(front)] == front]
    is_whole = any(run.lengths == (*front, 7) for front in fronts)
    if not is_named:
        inner = run.links[: len(run.links) - 1]
        whole = is_whole and is_born and all(link is Link.MARKS for link in inner)
        # 251231 기준 1234567원 is a day and an amount.
        return whole and not run.has_unit and run.digits[front] in "12345678"
    if not is_born:
        return run.lengths == (6, 7) and not run.has_unit
    return (is_whole or (bool(fronts) and len(run.lengths) <= 4)) and not run.has_unit


def _is_born(front: str) -> bool:
    return 1 <= int(front[2:4]) <= 12 and 1 <= int(front[4:6]) <= 31


def _is_card(run: _Run, *, is_named: bool, has_day: bool) -> bool:
    if run.has_unit or run.is_dated or has_day:
        return False
    is_checked = is_card_number(run.digits)
    if run.lengths in ((4, 4, 4, 4), (4, 6, 5)):
        quads = [run.digits[n : n + 4] for n in range(0, 16, 4)]
        is_list = all(quad[:2] in ("19", "20") for quad in quads) or all(quad.endswith("00") for quad in quads)
        return not is_list and (is_named or (is_checked and run.digits[0] in "34569"))
    if is_checked and run.is_marked and len(run.lengths) <= 4 and run.digits[0] in "34569":
        return True
    return is_named and len(run.lengths) <= 5 and (is_checked or run.lengths == (8, 8)) and run.is_bound


def is_card_number(digits: str) -> bool:
    """Return whether digits pass the check of a card number (Luhn, ISO/IEC 7812-1)."""
    doubled = [int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits))]
    return sum(value // 10 + value % 10 for value in doubled) % 10 == 0


def _is_phone(run: _Run, *, is_named: bool, has_day: bool) -> bool:
    digits = run.digits
    for code in ("0082", "82"):
        if digits.startswith(code) and run.is_cut_at(len(code)):
            digits = "0" + digits[len(code) :].removeprefix("0")
    mobile = re.match(r"01[016-9]", digits) is not None and len(digits) in (10, 11)
    if run.has_unit or run.is_dated or has_day:
        return False
    if mobile and run.lengths[-1] == 4 and len(run.lengths) <= 4:
        return is_named or run.lengths[:-1] in ((3, 3), (3, 4), (2, 2, 4), (2, 3, 4))
    if mobile:
        return run.weakest <= Link.BREAK and is_named
    place = re.match(r"0(?:2|[3-6][1-5]|70|50\d)", digits)
    return (
        place is not None
        and run.lengths[0] == len(place.group())
        and run.lengths[1:] in ((3, 4), (4, 4))
        and (is_named or (run.is_uniform and run.weakest is not Link.BREAK))
    )


def _is_driver_licence(run: _Run, *, is_named: bool, has_day: bool) -> bool:
    if run.has_unit or run.is_dated or has_day:
        return False
    if run.lengths == (2, 2, 6, 2):
        return is_named or (run.is_uniform and run.weakest in (Link.MARKS, Link.WORDS) and run.digits[0] in "12")
    return is_named and run.is_cut_at(4, 10) and run.is_bound


def _is_business_number(run: _Run, *, is_named: bool, has_day: bool) -> bool:
    return is_named and not (run.has_unit or run.is_dated or has_day) and run.lengths == (3, 2, 5)


def _is_account(run: _Run, *, is_named: bool, has_day: bool) -> bool:
    is_years = {*run.lengths} == {4} and all(
        run.digits[n : n + 2] in ("19", "20") for n in range(0, len(run.digits), 4)
    )
    is_other = run.has_unit or run.is_dated or has_day or is_years
    return is_named and run.is_bound and not is_other and len(run.lengths) <= 6


_Shape = tuple[frozenset[int], Callable[..., bool]]
# How many digits each kind has, and what makes them one.
_SHAPES: Final[dict[IdentifierKind, _Shape]] = {
    IdentifierKind.RESIDENT_NUMBER: (frozenset({13, 15}), _is_resident_number),
    IdentifierKind.CARD: (frozenset({15, 16}), _is_card),
    IdentifierKind.PHONE: (frozenset(range(9, 15)), _is_phone),
    IdentifierKind.DRIVER_LICENCE: (frozenset({12}), _is_driver_licence),
    IdentifierKind.BUSINESS_NUMBER: (frozenset({10}), _is_business_number),
    IdentifierKind.ACCOUNT: (frozenset(range(10, 17)), _is_account),
}
