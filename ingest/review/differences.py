"""The differences between two versions' texts: changed lines with their context, changed words in them. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import Match, SequenceMatcher
from enum import StrEnum
from itertools import zip_longest
from typing import Any

from ingest.review.cpu_limiter import Check
from knowledge.passage import Passage

CONTEXT = 2  # lines before and after a change
MOST_PAIRED = 100  # consecutive changed lines; in longer runs words are not compared
ALIKE = 0.4  # share of the longer line's words that both lines of a pair must have

# Numbers stay whole, so that 2.35% became 2.40%, not 35 became 40.
_WORD = re.compile(r"\d[\d.,:/-]*%?|\w+|\s+|.", re.DOTALL)


class Kind(StrEnum):
    """What became of a line."""

    SAME = "same"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line; `changed` where the other version has other words."""

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


def truncated(hunks: Iterator[list[DiffLine]], most: int) -> tuple[list[list[DiffLine]], bool]:
    """Return the first hunks, `most` lines in all, and whether there are more."""
    kept: list[list[DiffLine]] = []
    for hunk in hunks:
        room = most - sum(map(len, kept))
        if len(hunk) > room:
            return [*kept, hunk[:room]], True
        kept.append(hunk)
    return kept, False


class _CheckedMatcher(SequenceMatcher[str]):
    """Checks before each of its steps whether to go on: lines that recur make them many."""

    def __init__(self, check: Check, old: Sequence[str], new: Sequence[str]) -> None:
        self._check = check
        super().__init__(None, old, new)

    def find_longest_match(self, *args: Any) -> Match:
        self._check()
        return super().find_longest_match(*args)


def differences(old: Sequence[str], new: Sequence[str], check: Check = lambda: None) -> Iterator[list[DiffLine]]:
    """Yield the hunks in which two texts differ, in order, each as lines: removed ones before added ones."""
    for group in _CheckedMatcher(check, old, new).get_grouped_opcodes(CONTEXT):
        check()
        yield [line for tag, a, b, c, d in group for line in _lines(tag, old[a:b], new[c:d])]


def _lines(tag: str, old: Sequence[str], new: Sequence[str]) -> list[DiffLine]:
    if tag == "equal":
        return [DiffLine(Kind.SAME, (Piece(line, changed=False),)) for line in old]
    pair = _compared if max(len(old), len(new)) <= MOST_PAIRED else _wholes
    pairs = [pair(before, after) for before, after in zip_longest(old, new)]
    removed = [DiffLine(Kind.REMOVED, before) for before, _ in pairs if before]
    return [*removed, *(DiffLine(Kind.ADDED, after) for _, after in pairs if after)]


def _compared(before: str | None, after: str | None) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Return both lines in pieces; lines that have few words in common are changed as wholes."""
    if before is None or after is None:
        return _wholes(before, after)
    old, new = _WORD.findall(before), _WORD.findall(after)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    codes = matcher.get_opcodes()
    kept = sum(not word.isspace() for tag, a, b, _, _ in codes if tag == "equal" for word in old[a:b])
    if kept < ALIKE * max(sum(not word.isspace() for word in words) for words in (old, new)):
        return _wholes(before, after)
    old_pieces = [Piece("".join(old[a:b]), changed=tag != "equal") for tag, a, b, _, _ in codes if a < b]
    new_pieces = [Piece("".join(new[c:d]), changed=tag != "equal") for tag, _, _, c, d in codes if c < d]
    return tuple(old_pieces), tuple(new_pieces)


def _wholes(before: str | None, after: str | None) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    return _whole(before), _whole(after)


def _whole(line: str | None) -> tuple[Piece, ...]:
    return () if line is None else (Piece(line, changed=True),)
