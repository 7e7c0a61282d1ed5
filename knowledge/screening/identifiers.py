"""Finds personal identifiers in Korean or English text in any spelling: normalise (`reading`), match (`patterns`).

A failed checksum does not make a number harmless: newer resident numbers have random last digits. Amounts, dates,
rates, product codes and the bank's own 1588-0000 numbers do not count as identifiers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from knowledge.screening.patterns import BLANKED_OUT, LINKED, MARK, MONEY, READ, WORDS, IdentifierKind
from knowledge.screening.reading import Reading, readings


@dataclass(frozen=True, slots=True)
class Identifier:
    """An identifier to mask; `start` and `end` are offsets in the searched text."""

    kind: IdentifierKind
    start: int
    end: int


# A text is searched only if it has a digit or an @ in some spelling.
_MAY_HAVE_IDENTIFIER: Final = re.compile(
    r"\d|[^\x00-\x7f\uac00-\ud7a3]|@|&\w|[공영일이삼사오육륙칠팔구][ ]?[공영일이삼사오육륙칠팔구]|골뱅이|앳"
    r"|\bat\b|_at_|\(at|\[at|\{at|<at|zero|one|two|three|four|five|six|seven|eight|nine",
    re.IGNORECASE,
)
# Counts of digits (앞 6자리, "the last 7 digits") and list numbers such as 1) and 2).
_COUNT: Final = re.compile(
    r"(?<!\d)\d{1,2}[ \t]?(?=자리|글자|digits?\b|numbers?\b)|(?<=first |front )\d{1,2}(?!\d)"
    r"|(?<=last |back )\d{1,2}(?!\d)|^[ \t]{0,4}[1-9][).](?=[ \t])",
    re.IGNORECASE | re.MULTILINE,
)
# Units of a quantity. Only up to four digits before a unit are harmless: "67890 만" may end an account number.
_COUNTED: Final = r"(?:[만억천주개건명회호분초년월일점좌장석조위](?![가-힣])|shares?\b)"
# Numbers that identify nobody.
_HARMLESS: Final = re.compile(
    r"(?<![\d,.])\d{1,3}(?:,\d{3}){1,6}(?!,?\d)|(?<![\d.,-])(?!0\d)\d{1,4}\.\d{1,4}(?![\d-]|\.\d)"  # 1,000 and 2.5
    # the banks' own numbers
    r"|(?<!\d)(?<!\d[-./~· ])(?<!\d [-/] )(?:1[5-9]\d\d/){0,5}1[5-9]\d\d-\d{4}(?!-?\d)|(?<!\d)080-\d{3}-\d{4}(?!\d)"
    rf"|(?<!\d)\d{{1,20}}[ \t]?{MONEY}|(?<![\d-])\d{{1,4}}[ \t]?{_COUNTED}"
    # dates, times, series of years and of round numbers
    r"|(?<!\d)(?<!\d[.-])(?:(?:19|20)\d\d|'?\d\d(?=\.))[ ]?[-./년][ ]?\d{1,2}[ ]?[-./월][ ]?\d{1,2}(?!-?\d)"
    r"|(?<![\d:])[0-2]?\d:[0-5]\d(?::[0-5]\d)?(?![\d:])"
    r"|(?<!\d)(?:(?:19|20)\d\d[ ,.]{1,2}){2,9}(?:19|20)\d\d(?!\d)|(?<!\d)(?:\d\d00[ ,.]{1,2}){3,9}\d\d00(?!\d)"
    # approval numbers, IP addresses, binary bytes, digests
    r"|제[ ]?\d{4}(?:-\d{1,6}){1,3}|(?<![\d-])\d{4}(?:-\d{1,6}){1,3}[ ]?호(?![가-힣])"
    r"|(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?=\d)|(?![\d.]))){4}|(?<!\d)(?:[01]{8}[ ]?){2,9}(?!\d)"
    r"|(?<![A-Za-z0-9])(?=(?:\d{0,40}[A-Za-z]){2})[A-Za-z0-9]{20,128}",
    re.IGNORECASE,
)
# A word that announces the other half of a number.
_HALF: Final = r"(?:뒤|뒷|나머지|끝|마지막|앞|last|back|second|rest|remaining|ends?\b|other half|latter|followed)"
_LINKS: Final = {"blank": " ", "hyphen": "-", "mark": "."}  # any other link is weak: "~"
# The text between two groups of digits.
_LINK: Final = re.compile(
    r"(?<=\d)(?=\D)(?:(?P<blank>[ \t]{1,2})|(?P<hyphen>[ \t]{0,2}-[ \t]{0,2})|(?P<mark>[ \t]{0,2}[._·/~)][ \t]{0,2})"
    rf"|[ \t]{{0,4}}{MARK}{{0,4}}[ \t]{{0,4}}|(?:[\s\\]|{MARK}){{1,10}}|{WORDS}"
    rf"|(?=[^\d{BLANKED_OUT}]{{0,40}}{_HALF})[^\d{BLANKED_OUT}]{{1,44}})(?=\d)",
    re.IGNORECASE,
)
# Groups of digits with the same arbitrary words between all of them.
_ALIKE: Final = re.compile(
    rf"(?<!\d)\d{{1,8}}(?P<gap>[^\d{BLANKED_OUT}\n~-]{{2,24}})\d{{1,8}}(?:(?P=gap)\d{{1,8}}){{1,4}}(?!\d)"
)


def find_identifiers(text: str) -> tuple[Identifier, ...]:
    """Return the identifiers of a text from left to right, without overlaps."""
    if not _MAY_HAVE_IDENTIFIER.search(text):
        return ()
    matches = [identifier for reading in readings(text) for identifier in _matches(text, reading)]
    merged: list[Identifier] = []
    # Overlapping identifiers merge into one of the longer's kind, or of the first one's kind if they are equally long.
    for identifier in sorted(matches, key=lambda match: match.start):
        if merged and identifier.start < merged[-1].end:
            last = merged.pop()
            longer = max(last, identifier, key=lambda match: match.end - match.start)
            merged.append(Identifier(longer.kind, last.start, max(last.end, identifier.end)))
        else:
            merged.append(identifier)
    return tuple(merged)


def _matches(text: str, reading: Reading) -> Iterator[Identifier]:
    """Yield the matches of all patterns in one reading of the text, at their places in the text."""
    for searched, patterns in ((reading, READ), (_unify_links(reading), LINKED)):
        for kind, pattern, check in patterns:
            for match in pattern.finditer(searched.text):
                if check(kind, match):
                    match_start, match_end = match.span("hit" if "hit" in pattern.groupindex else 0)
                    start, end = searched.starts[match_start], searched.ends[match_end - 1]
                    if text[start] == "(" and ")" not in text[start:end]:
                        start += 1  # the bracket of (02-123-4567) is kept, that of (02)123-4567 is masked
                    yield Identifier(kind, start, end)


def _unify_links(reading: Reading) -> Reading:
    """Blank out harmless numbers, and replace each link between digits by one character."""
    bare = reading.sub(_COUNT, lambda match: " " * len(match.group()))
    bare = bare.sub(_HARMLESS, lambda match: BLANKED_OUT * len(match.group()))
    linked = bare.sub(_LINK, lambda link: _LINKS.get(str(link.lastgroup), "~"))
    return linked.sub(_ALIKE, lambda alike: alike.group().replace(alike["gap"], "~"))
