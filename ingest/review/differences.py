"""What one version says that another does not: changed lines with their neighbours, changed words in them (pure)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from itertools import zip_longest

from knowledge.passage import Passage

CONTEXT = 2  # lines before and after a change
MOST_PAIRED = 100  # changed lines on end; where more changed, words in them say little
ALIKE = 0.4  # of the longer line's words, if one is to be the other, changed

# Numbers stay whole, so that 2.35% became 2.40%, not 35 became 40.
_WORD = re.compile(r"\d[\d.,:/-]*%?|\w+|\s+|.", re.DOTALL)


class Kind(StrEnum):
    """What became of a line."""

    SAME = "same"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line; `changed` where the other version says something else."""

    text: str
    changed: bool


@dataclass(frozen=True, slots=True)
class DiffLine:
    """A line of the older version, the newer one, or both."""

    kind: Kind
    pieces: tuple[Piece, ...]


def lines_of(passages: Sequence[Passage]) -> list[str]:
    """Return the text that passages hold, each section under its heading, without blank lines."""
    lines: list[str] = []
    section = None
    for passage in passages:
        if passage.section != section:
            section = passage.section
            lines.append(section)
        lines += passage.text.split("\n")
    return [line.strip() for line in lines if line.strip()]


def first(places: Iterator[list[DiffLine]], most: int) -> tuple[list[list[DiffLine]], bool]:
    """Return places of `most` lines together, and whether there is more."""
    shown: list[list[DiffLine]] = []
    for place in places:
        left = most - sum(map(len, shown))
        if len(place) > left:
            return [*shown, place[:left]], True
        shown.append(place)
    return shown, False


def differences(old: Sequence[str], new: Sequence[str]) -> Iterator[list[DiffLine]]:
    """Yield each place where two texts differ, in order, as lines: what went before what came."""
    for group in SequenceMatcher(None, old, new).get_grouped_opcodes(CONTEXT):
        yield [line for what, a, b, c, d in group for line in _lines(what, old[a:b], new[c:d])]


def _lines(what: str, old: Sequence[str], new: Sequence[str]) -> list[DiffLine]:
    if what == "equal":
        return [DiffLine(Kind.SAME, (Piece(line, changed=False),)) for line in old]
    pair = _pair if max(len(old), len(new)) <= MOST_PAIRED else _wholes
    pairs = [pair(before, after) for before, after in zip_longest(old, new)]
    removed = [DiffLine(Kind.REMOVED, before) for before, _ in pairs if before]
    return [*removed, *(DiffLine(Kind.ADDED, after) for _, after in pairs if after)]


def _pair(before: str | None, after: str | None) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Return both lines in pieces; lines that have little in common are changed as wholes."""
    if before is None or after is None:
        return _wholes(before, after)
    old, new = _WORD.findall(before), _WORD.findall(after)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    codes = matcher.get_opcodes()
    kept = sum(not word.isspace() for what, a, b, _, _ in codes if what == "equal" for word in old[a:b])
    if kept < ALIKE * max(sum(not word.isspace() for word in words) for words in (old, new)):
        return _wholes(before, after)
    was = [Piece("".join(old[a:b]), changed=what != "equal") for what, a, b, _, _ in codes if a < b]
    became = [Piece("".join(new[c:d]), changed=what != "equal") for what, _, _, c, d in codes if c < d]
    return tuple(was), tuple(became)


def _wholes(before: str | None, after: str | None) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    return _whole(before), _whole(after)


def _whole(line: str | None) -> tuple[Piece, ...]:
    return () if line is None else (Piece(line, changed=True),)
