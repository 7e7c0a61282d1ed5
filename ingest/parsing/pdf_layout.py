"""Lines with boxes and sizes to Markdown: headings, repeated headers and footers, paragraphs."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

# A possible page number: alone, or before a word for "page".
_PAGE_NUMBER = re.compile(r"(?<!\w)(?<!\d[.,])\d{1,5}(?=\s?(?:쪽|페이지|p\b)|(?!\w|[.,]\d|\s?[%％‰]))")
# A bar or a word for "page" before and after a page number.
_MARK_BEFORE = re.compile(r"(?:[|｜]|\bpage)\s?\Z", re.IGNORECASE)
_MARK_AFTER = re.compile(r"\s?(?:[|｜]|쪽|페이지)")
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
        """Return whether a point is in the box, or at most 1 point outside."""
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

    @property
    def left_edges(self) -> list[int]:
        """The distinct left edges of its cells, from left to right."""
        return sorted({round(cell.left) for cell in self.cells})

    def continues_in(self, other: "Table", page_top: float) -> bool:
        """Return whether `other`, the first block of the next page, continues this table.

        It does if the columns match, and `other` has no header and a first row that did not fit below this table.
        `page_top` is the height at which the text of pages starts.
        """
        end = min((cell.bottom for cell in self.cells), default=0.0)
        first_row = [cell for cell in other.cells if other.top - cell.top < SAME_EDGE]
        row_height = max((cell.top - cell.bottom for cell in first_row), default=0.0)
        if end - row_height > page_top * MARGIN or len(self.left_edges) != len(other.left_edges):
            return False
        edges = zip(self.left_edges, other.left_edges, strict=True)
        has_same_columns = all(abs(edge - other_edge) <= SAME_EDGE for edge, other_edge in edges)
        head, other_head = (table.markdown.split("\n", 1)[0] for table in (self, other))
        may_follow = head != other_head and head.count(" | ") == other_head.count(" | ")
        return has_same_columns and other.header_rows == 1 and may_follow

    def with_rows_of(self, other: "Table") -> "Table":
        """Return the continuation `other` with this table's header; the apparent header of `other` becomes a row."""
        head, rule, *_ = self.markdown.split("\n")
        first, _, *rest = other.markdown.split("\n")
        return Table(markdown="\n".join([head, rule, first, *rest]), cells=other.cells)


Block = Line | Table


def find_running_lines(pages: Sequence[Sequence[Block]]) -> list[Mapping[Block, str]]:
    """Return each page's headers and footers, with the text they share with those of other pages.

    These are first or last lines that, apart from the page number, are the same on most of at least three pages. A line
    with an amount is excluded, because on pages from one template it may state each product's own rate. A line
    without a page number is excluded if the page's text continues it.
    """
    if len(pages) < 3:
        return [{} for _ in pages]
    all_keys = [_comparison_keys(page, number) for number, page in enumerate(pages)]
    page_counts: Counter[str] = Counter()
    for line_keys in all_keys:
        page_counts.update({key for keys in line_keys.values() for key in keys})
    running_lines: list[Mapping[Block, str]] = []
    for line_keys in all_keys:
        commonest = {line: max(keys, key=page_counts.__getitem__) for line, keys in line_keys.items() if keys}
        running_lines.append({line: key for line, key in commonest.items() if page_counts[key] * 2 > len(pages)})
    return running_lines


def _comparison_keys(page: Sequence[Block], number: int) -> dict[Block, list[str]]:
    """Return the texts by which a page's first and last two lines are compared with those of other pages.

    A line is compared as it is if a gap separates it from the page's text. Also, each line is compared with a number
    replaced by the number's offset from the page number. In top lines this is done only if the line has no words or the
    number is marked as a page number, because "Product 2" may be the page's subject.
    """
    lines = sorted((b for b in page if isinstance(b, Line)), key=lambda b: b.top)
    line_keys: dict[Block, list[str]] = {}
    for inwards in (lines[:-4:-1], lines[:3]):  # from the top, from the bottom
        gaps = [not _follows(*sorted(pair, key=lambda line: -line.top)) for pair in pairwise(inwards)]
        for index, line in enumerate(inwards[:2]):
            if _AMOUNT.search(line.text) is not None:
                continue
            is_apart = len(inwards) < 3 or any(gaps[index:])
            is_bottom = inwards[0] is lines[0]
            has_words = any(map(str.isalpha, line.text))
            keys = line_keys.setdefault(line, [])
            keys += [line.text] if is_apart else []
            keys += _page_number_keys(line.text, number, only_marked=has_words and not is_bottom)
    return line_keys


def _page_number_keys(text: str, page: int, *, only_marked: bool) -> Iterator[str]:
    """Yield the line with a possible page number replaced by its offset from `page`, once for each such number.

    Footers that differ only in their page number thus become equal. With `only_marked`, a number counts only beside a
    bar or a word for "page" ("| 3", "3쪽").
    """
    for match in _PAGE_NUMBER.finditer(text) if len(text) <= _LONGEST else ():
        is_marked = _MARK_BEFORE.search(text[: match.start()]) or _MARK_AFTER.match(text, match.end())
        if is_marked or not only_marked:
            yield f"{text[: match.start()]}\0{int(match[0]) - page}{text[match.end() :]}"


def drop_repeats(pages: Sequence[Sequence[Block]], running_lines: Sequence[Mapping[Block, str]]) -> list[list[Block]]:
    """Keep each header and footer only on its first page; a page without other text keeps them."""
    seen: set[str] = set()
    shortened_pages: list[list[Block]] = []
    for page, page_running_lines in zip(pages, running_lines, strict=True):
        unseen = [b for b in page if b not in page_running_lines or page_running_lines[b] not in seen]
        shortened_pages.append(unseen or list(page))
        seen.update(page_running_lines.values())
    return shortened_pages


def with_headers(pages: Sequence[Sequence[Block]], running_lines: Sequence[Mapping[Block, str]]) -> list[list[Block]]:
    """Add the header of the previous page's last table to a table that continues it."""
    completed: list[list[Block]] = []
    last: Block | None = None
    top = max((block.top for page in pages for block in page), default=0.0)
    for page, page_running_lines in zip(pages, running_lines, strict=True):
        blocks = list(page)
        first = next((block for block in blocks if block not in page_running_lines), None)
        if isinstance(first, Table) and isinstance(last, Table) and last.continues_in(first, top):
            blocks[blocks.index(first)] = last.with_rows_of(first)
        completed.append(blocks)
        last = next((block for block in reversed(blocks) if block not in page_running_lines), None)
    return completed


def heading_sizes(lines: Sequence[Line]) -> tuple[float, ...]:
    """Return the line heights of headings, largest first; none if they make up over a third of the text."""
    letters: Counter[float] = Counter()
    for line in lines:
        letters[line.size_step] += len(line.text)
    if not letters:
        return ()
    body = letters.most_common(1)[0][0]
    larger = {line.size_step for line in lines if line.size_step >= body * LARGER and _may_be_heading(line)}
    sizes = tuple(sorted(larger, reverse=True))
    heading_letters = sum(letters[size] for size in sizes)
    return sizes if heading_letters * 3 <= letters.total() else ()


def _may_be_heading(line: Line) -> bool:
    has_letters = sum(c.isalpha() for c in line.text) >= 2
    is_listed = _BULLET.match(line.text) is not None and _NUMBERED.match(line.text) is None
    return len(line.text) <= 80 and has_letters and not is_listed and _SENTENCE_END.search(line.text) is None


def to_page(blocks: Sequence[Block], sizes: Sequence[float]) -> str:
    """Return a page's blocks as Markdown."""
    parts: list[str] = []
    paragraph: list[Line] = []
    has_spaced_ends = any(isinstance(b, Line) and b.spaced_end for b in blocks)
    for block in blocks:
        level = _level(block, sizes) if isinstance(block, Line) else 0
        continues = isinstance(block, Line) and level == 0 and paragraph and _follows(paragraph[-1], block)
        if paragraph and not continues:
            parts.append(_join_lines(paragraph, has_spaced_ends=has_spaced_ends))
            paragraph = []
        if isinstance(block, Table):
            parts.append(block.markdown)
        elif level:
            parts.append(f"{'#' * level} {block.text}")
        else:
            paragraph.append(block)
    if paragraph:
        parts.append(_join_lines(paragraph, has_spaced_ends=has_spaced_ends))
    return "\n\n".join(parts)


def _level(line: Line, sizes: Sequence[float]) -> int:
    """Return a line's heading level, 1 to 3; 0 if it is not a heading."""
    return min(sizes.index(line.size_step) + 1, 3) if line.size_step in sizes and _may_be_heading(line) else 0


def _follows(before: Line, line: Line) -> bool:
    """Return whether a line continues the paragraph of the line `before` it."""
    height = max(before.top - before.bottom, 1.0)
    gap = before.bottom - line.top
    same_size = abs(before.size_step - line.size_step) <= 1.0
    return same_size and -height * 1.5 < gap < height * 0.8 and _BULLET.match(line.text) is None


def _join_lines(lines: Sequence[Line], *, has_spaced_ends: bool) -> str:
    text = lines[0].text
    for before, line in pairwise(lines):
        # Korean lines break inside words. If the page keeps spaces at line ends, a missing space means a broken word.
        is_hangul = "가" <= before.text[-1] <= "힣" and "가" <= line.text[0] <= "힣"
        breaks_word = has_spaced_ends and not before.spaced_end and is_hangul and len(before.text) >= 20
        text += line.text if breaks_word else f" {line.text}"
    return "\\" + text if _MARKUP.match(text) else text
