"""Lines with boxes and sizes to Markdown: headings, repeated headers and footers, paragraphs."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

# A possible page number: alone, or before a word for "page".
_PAGE_NUMBER = re.compile(r"(?<!\w)(?<!\d[.,])\d{1,5}(?=\s?(?:쪽|페이지|p\b)|(?!\w|[.,]\d|\s?[%％‰]))")
_APART_BEFORE = re.compile(r"(?:[|｜]|\bpage)\s?\Z", re.IGNORECASE)
_APART_AFTER = re.compile(r"\s?(?:[|｜]|쪽|페이지)")
_LONGEST = 200  # characters of a line that may contain the page number
_AMOUNT = re.compile(r"\d\s?(?:[%％‰]|[십백천만억조]*+원)|[₩￦$€£¥]\s?\d")
_BULLET = re.compile(r"^([-•·●○◦▪■□◆◇▶▷※☞*]|\(?\d{1,2}[.)]|[①-⑳가-하][.)]?)\s")
_NUMBERED = re.compile(r"^\(?\d{1,2}[.)]\s")
_SENTENCE_END = re.compile(r"[.!?。:;,]$")
_MARKUP = re.compile(r"^(#{1,6}\s|\|)")
LARGER = 1.2  # times the body's line height: the minimum for a heading
SAME_EDGE = 3.0  # points
MARGIN = 0.25  # share of the page height that may stay empty below its text


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of text with its box in PDF points from the bottom left.

    `size_step` is its height in points, rounded to halves; `spaced_end` means that it ends with a space.
    """

    text: str
    size_step: float
    left: float
    bottom: float
    right: float
    top: float
    spaced_end: bool = False


class Box(NamedTuple):
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
    """A page rotated clockwise by `turn` degrees to make its text upright; `sheet` is its box before the rotation."""

    turn: int
    sheet: tuple[float, float, float, float]

    def box(self, left: float, bottom: float, right: float, top: float) -> Box:
        """Convert a box to the coordinates of the rotated page."""
        x0, y0, x1, y1 = self.sheet
        if self.turn == 90:
            return Box(bottom - y0, x1 - right, top - y0, x1 - left)
        if self.turn == 180:
            return Box(x1 - right, y1 - top, x1 - left, y1 - bottom)
        if self.turn == 270:
            return Box(y1 - top, left - x0, y1 - bottom, right - x0)
        return Box(left, bottom, right, top)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as Markdown, with its cell boxes and the number of rows merged into its header.

    `letters` holds the indices of its letters in the page's text.
    """

    markdown: str
    cells: tuple[Box, ...]
    header_rows: int = 1
    letters: frozenset[int] = frozenset()

    @property
    def top(self) -> float:
        return max((cell.top for cell in self.cells), default=0.0)

    def goes_on_in(self, other: "Table", top: float) -> bool:
        """Return whether `other`, the first block of the next page, continues this table.

        It does if its columns match, it has no header, and its first row did not fit below this table (text starts at
        `top`).
        """
        end = min((cell.bottom for cell in self.cells), default=0.0)
        row = max((cell.top - cell.bottom for cell in other.cells if other.top - cell.top < SAME_EDGE), default=0.0)
        if end - row > top * MARGIN:
            return False
        own, others = (sorted({round(cell.left) for cell in table.cells}) for table in (self, other))
        alike = len(own) == len(others) and all(abs(a - b) <= SAME_EDGE for a, b in zip(own, others, strict=True))
        head, next_head = (table.markdown.split("\n", 1)[0] for table in (self, other))
        return alike and other.header_rows == 1 and head != next_head and head.count(" | ") == next_head.count(" | ")

    def followed_by(self, other: "Table") -> "Table":
        """Return the continuation with this table's header; its apparent header becomes its first row."""
        head, rule, *_ = self.markdown.split("\n")
        first, _, *rest = other.markdown.split("\n")
        return Table(markdown="\n".join([head, rule, first, *rest]), cells=other.cells)


Block = Line | Table


def running_lines(pages: Sequence[Sequence[Block]]) -> list[Mapping[Block, str]]:
    """Return each page's headers and footers, with the text they share with those of other pages.

    These are first or last lines that, apart from the page number, are the same on most of at least three pages. A line
    with an amount is excluded, and so is an unnumbered line that continues into the page's text: pages of one form have
    product-specific rates and terms there.
    """
    if len(pages) < 3:
        return [{} for _ in pages]
    keys = [_keys(page, number) for number, page in enumerate(pages)]
    count = Counter(key for page in keys for key in {key for line in page.values() for key in line})
    common = ({line: max(own, key=count.__getitem__, default="") for line, own in page.items()} for page in keys)
    return [{line: key for line, key in page.items() if count[key] * 2 > len(pages)} for page in common]


def _keys(page: Sequence[Block], number: int) -> dict[Block, list[str]]:
    """Return a page's first and last lines, each as is and with numbers replaced by their offset from the page number.

    In top lines, numbers are replaced only if the line has no words or the number is set apart like a page number:
    "Product 2" may be the page's subject.
    """
    lines = sorted((b for b in page if isinstance(b, Line)), key=lambda b: b.top)
    lines_of: dict[Block, list[str]] = {}
    for inwards in (lines[:-4:-1], lines[:3]):
        apart = [not _follows(*sorted(pair, key=lambda line: -line.top)) for pair in pairwise(inwards)] + [True] * 2
        for at, line in enumerate(inwards[:2]):
            if _AMOUNT.search(line.text) is None:
                is_counted = inwards[0] is lines[0] or not any(map(str.isalpha, line.text))
                as_it_is = [line.text] if any(apart[at:2]) else []
                counted = _counted(line.text, number, all_of_them=is_counted)
                lines_of[line] = [*lines_of.get(line, ()), *as_it_is, *counted]
    return lines_of


def _counted(text: str, number: int, *, all_of_them: bool) -> Iterator[str]:
    """Yield the line once per candidate page number; without `all_of_them`, only if a sign or word marks it as one."""
    for match in _PAGE_NUMBER.finditer(text) if len(text) <= _LONGEST else ():
        if all_of_them or _APART_BEFORE.search(text[: match.start()]) or _APART_AFTER.match(text, match.end()):
            yield f"{text[: match.start()]}\0{int(match[0]) - number}{text[match.end() :]}"


def without_repeats(pages: Sequence[Sequence[Block]], running: Sequence[Mapping[Block, str]]) -> list[list[Block]]:
    """Keep each header and footer only on its first page; a page without other text keeps them."""
    seen: set[str] = set()
    kept_pages: list[list[Block]] = []
    for page, own in zip(pages, running, strict=True):
        unseen = [block for block in page if own.get(block) not in seen]
        kept_pages.append(unseen or list(page))
        seen.update(own.values())
    return kept_pages


def with_headers(pages: Sequence[Sequence[Block]], running: Sequence[Mapping[Block, str]]) -> list[list[Block]]:
    """Give a table that continues from the previous page that table's header."""
    done: list[list[Block]] = []
    last: Block | None = None
    top = max((block.top for page in pages for block in page), default=0.0)
    for page, own in zip(pages, running, strict=True):
        blocks = list(page)
        at = next((i for i, block in enumerate(blocks) if block not in own), None)
        first = None if at is None else blocks[at]
        if at is not None and isinstance(first, Table) and isinstance(last, Table) and last.goes_on_in(first, top):
            blocks[at] = last.followed_by(first)
        done.append(blocks)
        last = next((block for block in reversed(blocks) if block not in own), None)
    return done


def heading_sizes(lines: Sequence[Line]) -> tuple[float, ...]:
    """Return the line heights of headings, largest first."""
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
    """Return whether a line continues the paragraph of the previous line."""
    height = max(before.top - before.bottom, 1.0)
    gap = before.bottom - line.top
    same_size = abs(before.size_step - line.size_step) <= 1.0
    return same_size and -height * 1.5 < gap < height * 0.8 and _BULLET.match(line.text) is None


def _joined(lines: Sequence[Line], *, spaces_kept: bool) -> str:
    text = lines[0].text
    for before, line in pairwise(lines):
        # Korean lines break inside words. If the page keeps spaces at line ends, a missing space means a broken word.
        hangul = "가" <= before.text[-1] <= "힣" and "가" <= line.text[0] <= "힣"
        broken = spaces_kept and not before.spaced_end and hangul and len(before.text) >= 20
        text += line.text if broken else f" {line.text}"
    return "\\" + text if _MARKUP.match(text) else text
