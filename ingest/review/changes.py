"""The changes between the passages of two versions: changed lines, and the changed words in them. Pure."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import zip_longest

from ingest.review.cpu_limiter import Check
from knowledge.passage import Passage

MOST_COMPARED = 500  # lines between two lines that occur once in both texts; in longer runs, all count as changed
MOST_PAIRED = 100  # consecutive changed lines; in longer runs, words are not compared
ALIKE = 0.4  # share of the longer line's words that the two lines of a pair must have in common

# Keep numbers whole, so that 2.35% becomes 2.40% rather than 35 becoming 40.
_WORD = re.compile(r"\d[\d.,:/-]*%?|\w+|\s+|.", re.DOTALL)
_RULE = re.compile(r"\|[-| ]+\|")


@dataclass(frozen=True, slots=True)
class Change:
    """Code points `start` to `end` of passage `n`, which replace `removed`; either text may be empty."""

    n: int
    start: int
    end: int
    removed: str


@dataclass(frozen=True, slots=True)
class _Line:
    n: int
    start: int
    text: str

    def piece(self, start: int, end: int, removed: str) -> Change:
        return Change(self.n, self.start + start, self.start + end, removed)


def changes(old: Sequence[Passage], new: Sequence[Passage], check: Check = lambda: None) -> Iterator[Change]:
    """Yield the changes from the old passages' text to the new one's, in the order of the new passages."""
    before, after = list(_lines(old)), list(_lines(new))
    for a, b, c, d in _runs([line.text for line in before], [line.text for line in after], check):
        end = after[d] if d < len(after) else replace(after[-1], start=after[-1].start + len(after[-1].text))
        yield from reversed(_replacements(before[a:b], after[c:d], end))


def _runs(old: Sequence[str], new: Sequence[str], check: Check) -> Iterator[tuple[int, int, int, int]]:
    """Yield the ranges that differ, as (old start, old end, new start, new end)."""
    a = c = 0
    for b, d in [*_anchors(old, new), (len(old), len(new))]:
        check()
        if max(b - a, d - c) > MOST_COMPARED:
            yield a, b, c, d
        else:
            codes = SequenceMatcher(None, old[a:b], new[c:d]).get_opcodes()
            yield from ((a + i, a + j, c + k, c + m) for tag, i, j, k, m in codes if tag != "equal")
        a, c = b + 1, d + 1


def _anchors(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Return matching positions of lines unique in both texts, as the longest sequence in order.

    Takes one second for 50,000 lines; SequenceMatcher alone takes 13 s if 1,000 of them changed.
    """
    old_counts, new_counts, old_places = Counter(old), Counter(new), {text: at for at, text in enumerate(old)}
    tails: list[int] = []  # by sequence length: the smallest last position in the old text
    places: dict[int, tuple[int, int | None]] = {}  # old position → (new position, previous old one of its sequence)
    for at, text in enumerate(new):
        if old_counts[text] == new_counts[text] == 1:
            place = old_places[text]
            length = bisect_left(tails, place)
            places[place] = at, tails[length - 1] if length else None
            tails[length : length + 1] = [place]
    anchors: list[tuple[int, int]] = []
    last = tails[-1] if tails else None
    while last is not None:
        at, before = places[last]
        anchors.append((last, at))
        last = before
    return anchors[::-1]


def _replacements(old: Sequence[_Line], new: Sequence[_Line], end: _Line) -> list[Change]:
    """Return the changes of a run of lines, last first; a deletion is placed before the next line."""
    are_few = max(len(old), len(new)) <= MOST_PAIRED
    pairs = _paired(old, new) if are_few else list(zip_longest(old, new))
    compare = _compared if are_few else _replaced
    found_changes: list[Change] = []
    place = end
    for removed, line in reversed(pairs):
        if line is not None:
            found_changes += reversed(list(compare(removed.text if removed else "", line)))
            place = line
        elif removed is not None:
            found_changes.append(Change(place.n, place.start, place.start, removed.text))
    return found_changes


def _paired(old: Sequence[_Line], new: Sequence[_Line]) -> list[tuple[_Line | None, _Line | None]]:
    """Pair each line of the shorter side, in order, with the line of the other side that shares the most words."""
    short, long = (old, new) if len(old) < len(new) else (new, old)
    pairs: list[tuple[_Line | None, _Line | None]] = []
    done = 0
    for k, line in enumerate(short):
        words = Counter(_WORD.findall(line.text))
        open_ones = long[done : len(long) - len(short) + k + 1]
        common = [(words & Counter(_WORD.findall(other.text))).total() for other in open_ones]
        best = done + common.index(max(common))
        pairs += [(None, other) for other in long[done:best]]
        pairs.append((line, long[best]))
        done = best + 1
    pairs += [(None, other) for other in long[done:]]
    return pairs if short is old else [(other, line) for line, other in pairs]


def _lines(passages: Sequence[Passage]) -> Iterator[_Line]:
    """Yield the lines with text, without table rules and headers repeated from the previous passage."""
    head: list[str] = []
    for passage in passages:
        lines = passage.text.split("\n")
        goes_on = lines[:2] == head and _RULE.fullmatch(head[-1])
        head = lines[:2]
        start = 0
        for at, line in enumerate(lines):
            if line.strip() and not (goes_on and at < 2) and not _RULE.fullmatch(line):
                yield _Line(passage.n, start + len(line) - len(line.lstrip()), line.strip())
            start += len(line) + 1


def _compared(removed: str, line: _Line) -> Iterator[Change]:
    """Yield the changed words, or replace the whole line if few words are the same."""
    old, new = _WORD.findall(removed), _WORD.findall(line.text)
    codes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    kept_words = sum(not word.isspace() for tag, a, b, _, _ in codes if tag == "equal" for word in old[a:b])
    if kept_words < ALIKE * max(sum(not word.isspace() for word in words) for words in (old, new)):
        yield from _replaced(removed, line)
        return
    for tag, a, b, c, d in codes:
        if tag != "equal":
            start = len("".join(new[:c]))
            yield line.piece(start, start + len("".join(new[c:d])), "".join(old[a:b]))


def _replaced(removed: str, line: _Line) -> Iterator[Change]:
    yield line.piece(0, len(line.text), removed)
