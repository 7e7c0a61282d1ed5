"""Lines with boxes and sizes to Markdown: headings, lines that repeat on pages, paragraphs."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_DIGITS = re.compile(r"\d+")
_BULLET = re.compile(r"^([-•·●○◦▪■□◆◇▶▷※☞*]|\(?\d{1,2}[.)]|[①-⑳가-하][.)]?)\s")
_NUMBERED = re.compile(r"^\(?\d{1,2}[.)]\s")
_SENTENCE_END = re.compile(r"[.!?。:;,]$")
_MARKUP = re.compile(r"^(#{1,6}\s|\|)")
LARGER = 1.2  # times the body's line height that a heading has at least
SAME_EDGE = 3.0  # points


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of text with its box in PDF points from the bottom left.

    `size_step` is its height in points, rounded to halves; `spaced_end`: a space stands at its end.
    """

    text: str
    size_step: float
    left: float
    bottom: float
    right: float
    top: float
    spaced_end: bool = False

    @property
    def key(self) -> str:
        """The text without its digits, by which a line that repeats on every page is recognised."""
        return _DIGITS.sub("0", self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in PDF points from the bottom left."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)

    def holds(self, x: float, y: float) -> bool:
        return self.left - 1 <= x <= self.right + 1 and self.bottom - 1 <= y <= self.top + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Upright:
    """A page turned clockwise by `turn` degrees until its text stands upright; the sheet: its box before that."""

    turn: int
    sheet: tuple[float, float, float, float]

    def box(self, left: float, bottom: float, right: float, top: float) -> tuple[float, float, float, float]:
        """Return a box of the page as it is on the turned page: left, bottom, right, top."""
        x0, y0, x1, y1 = self.sheet
        if self.turn == 90:
            return bottom - y0, x1 - right, top - y0, x1 - left
        if self.turn == 180:
            return x1 - right, y1 - top, x1 - left, y1 - bottom
        if self.turn == 270:
            return y1 - top, left - x0, y1 - bottom, right - x0
        return left, bottom, right, top


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as Markdown, with the boxes of its cells and the number of rows that its header row joins.

    `letters`: the places of its letters in the page's text.
    """

    markdown: str
    cells: tuple[Box, ...]
    header_rows: int = 1
    letters: frozenset[int] = frozenset()

    @property
    def key(self) -> str:
        return self.markdown

    def continues_in(self, other: "Table") -> bool:
        """Tell whether another table, first on the next page, has the same columns and no header of its own."""
        own, others = (sorted({round(cell.left) for cell in table.cells}) for table in (self, other))
        alike = len(own) == len(others) and all(abs(a - b) <= SAME_EDGE for a, b in zip(own, others, strict=True))
        head, next_head = (table.markdown.split("\n", 1)[0] for table in (self, other))
        return alike and other.header_rows == 1 and head != next_head and head.count(" | ") == next_head.count(" | ")

    def followed_by(self, other: "Table") -> "Table":
        """Return the other table with this one's header; the row that stood as its header becomes its first row."""
        head, rule, *_ = self.markdown.split("\n")
        first, _, *rest = other.markdown.split("\n")
        return Table(markdown="\n".join([head, rule, first, *rest]), cells=other.cells)


Block = Line | Table


def running_lines(pages: Sequence[Sequence[Block]]) -> frozenset[str]:
    """Return the keys of headers and footers: first or last lines that stand on most of at least three pages."""
    if len(pages) < 3:
        return frozenset()
    edges: Counter[str] = Counter()
    for page in pages:
        lines = sorted((b for b in page if isinstance(b, Line)), key=lambda b: b.top)
        edges.update({line.key for line in (*lines[:2], *lines[-2:])})
    return frozenset(key for key, count in edges.items() if count * 2 > len(pages))


def without_repeats(pages: Sequence[Sequence[Block]], running: frozenset[str]) -> list[list[Block]]:
    """Leave out headers and footers after the first page of each: there it may name the document.

    A page without other text keeps them.
    """
    seen: set[str] = set()
    kept: list[list[Block]] = []
    for page in pages:
        unseen = [block for block in page if block.key not in running or block.key not in seen]
        kept.append(unseen or list(page))
        seen.update(block.key for block in page)
    return kept


def with_headers(pages: Sequence[Sequence[Block]], running: frozenset[str]) -> list[list[Block]]:
    """Give a table that continues one of the page before the header of that one."""
    done: list[list[Block]] = []
    last: Block | None = None
    for page in pages:
        blocks = list(page)
        at = next((i for i, block in enumerate(blocks) if block.key not in running), None)
        first = None if at is None else blocks[at]
        if at is not None and isinstance(first, Table) and isinstance(last, Table) and last.continues_in(first):
            blocks[at] = last.followed_by(first)
        done.append(blocks)
        last = next((block for block in reversed(blocks) if block.key not in running), None)
    return done


def heading_sizes(lines: Sequence[Line]) -> tuple[float, ...]:
    """Return the line heights that mark headings, largest first (at most three levels)."""
    letters: Counter[float] = Counter()
    for line in lines:
        letters[line.size_step] += len(line.text)
    if not letters:
        return ()
    body = letters.most_common(1)[0][0]
    sizes = sorted({line.size_step for line in lines if line.size_step >= body * LARGER and _short(line)}, reverse=True)
    marked = sum(letters[size] for size in sizes)
    return tuple(sizes) if marked * 3 <= letters.total() else ()


def _short(line: Line) -> bool:
    has_letters = sum(c.isalpha() for c in line.text) >= 2
    is_listed = _BULLET.match(line.text) is not None and _NUMBERED.match(line.text) is None
    return len(line.text) <= 80 and has_letters and not is_listed and _SENTENCE_END.search(line.text) is None


def to_page(blocks: Sequence[Block], sizes: Sequence[float]) -> str:
    """Return a page's blocks as Markdown."""
    parts: list[str] = []
    paragraph: list[Line] = []
    spaces_kept = any(isinstance(b, Line) and b.spaced_end for b in blocks)
    for block in blocks:
        level = _level(block, sizes) if isinstance(block, Line) else 0
        continues = isinstance(block, Line) and not level and paragraph and _follows(paragraph[-1], block)
        if paragraph and not continues:
            parts.append(_joined(paragraph, spaces_kept=spaces_kept))
            paragraph = []
        if isinstance(block, Table):
            parts.append(block.markdown)
        elif level:
            parts.append(f"{'#' * level} {block.text}")
        else:
            paragraph.append(block)
    if paragraph:
        parts.append(_joined(paragraph, spaces_kept=spaces_kept))
    return "\n\n".join(parts)


def _level(line: Line, sizes: Sequence[float]) -> int:
    return min(sizes.index(line.size_step) + 1, 3) if line.size_step in sizes and _short(line) else 0


def _follows(before: Line, line: Line) -> bool:
    """Tell whether a line continues the paragraph of the line before."""
    height = max(before.top - before.bottom, 1.0)
    gap = before.bottom - line.top
    same_size = abs(before.size_step - line.size_step) <= 1.0
    return same_size and -height * 1.5 < gap < height * 0.8 and _BULLET.match(line.text) is None


def _joined(lines: Sequence[Line], *, spaces_kept: bool) -> str:
    text = lines[0].text
    for before, line in pairwise(lines):
        text += _between(before, line, spaces_kept=spaces_kept) + line.text
    return "\\" + text if _MARKUP.match(text) else text


def _between(before: Line, line: Line, *, spaces_kept: bool) -> str:
    # Korean lines break words anywhere; where the page keeps spaces at line ends, a missing one means a broken word.
    hangul = "가" <= before.text[-1] <= "힣" and "가" <= line.text[0] <= "힣"
    broken = spaces_kept and not before.spaced_end and hangul and len(before.text) >= 20
    return "" if broken else " "
