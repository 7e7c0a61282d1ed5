"""Cut a parsed document into passages of about 300 tokens; sections stay together, tables keep their header. Pure.

Lengths are counted with the embedder's tokenizer. The splitter is quadratic in its input, so it gets at most
LONGEST_PROSE characters at a time; the total work is linear in the length of the text.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import ClassVar

import msgspec
from markdown_it import MarkdownIt
from pydantic import BaseModel, Field, PositiveInt
from semantic_text_splitter import MarkdownSplitter
from tokenizers import Tokenizer

from ingest.parsing.parsed import Format, LeftOut, Parsed, Reason, Unreadable
from knowledge.passage import Language, language_of

MOST_PASSAGES = 5_000  # per document; screening handles this many within a review's deadline
LONGEST_PROSE = 8_000  # characters passed to the splitter at once
LONGEST_LINE = 1_000  # characters of a line used to detect its block type
LONGEST_HEADING = 200  # characters of a heading in a section name
LONGEST_TITLE = 300  # characters: the title is embedded with every passage
CHARACTERS_A_TOKEN = 8  # at most this many count as one token, since an unknown word of any length is encoded as one

_LETTER = re.compile(r"\w")
_MARKUP = re.compile(r"[*_`]+(?=\S)|(?<=\S)[*_`]+")  # marks of emphasis and code
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_LAST_FIGURE = re.compile(r"(?<![\d.,])\d[\d.,]{0,30}[십백천만억조]{0,3}\Z")  # its unit of measure may follow
_RETURN = re.compile(r"\r\n?")


class WeightsMissing(Exception):
    """The embedder's folder is missing; the message contains the command that fetches it."""


class ChunkSettings(BaseModel, frozen=True):
    """Passage length."""

    tokens: PositiveInt = Field(
        300,
        description=(
            "tokens: A passage has at most this length, in tokens of the embedder, and at most three quarters of "
            "the embedder's input."
        ),
    )
    least_section: ClassVar[int] = 40  # tokens: shorter sections are merged with the next one

    def chunking(self, tokenizer: Path, *, max_tokens: int | None) -> "Chunking":
        """Return the chunking for an embedder's maximum input; a quarter is reserved for the title and section."""
        tokens = self.tokens if max_tokens is None else max(1, min(self.tokens, max_tokens * 3 // 4))
        return Chunking(str(tokenizer), tokens, self.least_section)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage's text, section path ("Fees > Transfers") and first page (counted from 1)."""

    text: str
    section: str
    page: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedDocument:
    """A document's passages (at least one), title, language and left-out counts (`Parsed`)."""

    format: Format
    title: str | None
    language: Language
    chunks: tuple[Chunk, ...]
    left_out: Mapping[LeftOut, int]


class Chunking(msgspec.Struct, frozen=True):
    """How to cut a file: the folder of the tokenizer, and the lengths from `ChunkSettings`."""

    tokenizer: str
    tokens: int = 300
    least_section: int = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """A heading and the text up to the next heading, or several such sections merged; offsets are in code points."""

    start: int
    end: int
    level: int
    path: tuple[str, ...]
    tokens: int
    has_body: bool


_Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Heading:
    """A heading; `start` is its offset, `body` the offset of the text after it."""

    start: int
    body: int
    level: int
    title: str


class Chunker:
    """Cut documents into passages; not thread-safe."""

    def __init__(self, tokenizer: Tokenizer, chunking: Chunking) -> None:
        # Truncation would cap every count at the model's maximum. The splitters share this tokenizer because each copy
        # would take 285 MB (its vocabulary has 250,000 pieces).
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._most_tokens = chunking.tokens
        self._least_section = chunking.least_section
        self._splitter = MarkdownSplitter.from_callback(self._count_within, self._most_tokens)
        # A label (`_long_row`) takes at most a quarter of the passage.
        self._labelled_splitter = MarkdownSplitter.from_callback(self._count_within, self._most_tokens * 3 // 4 or 1)
        self._prose_text = ""
        self._token_starts: list[int] = []
        self._markdown = MarkdownIt("commonmark").enable("table").disable("inline")

    def count(self, text: str) -> int:
        """Return the number of tokens without special tokens; a text that is clearly too long is estimated."""
        estimate = len(text) // CHARACTERS_A_TOKEN
        if estimate > self._most_tokens:
            return estimate
        return max(estimate, len(self._tokenizer.encode(text, add_special_tokens=False)))

    def _count_within(self, piece: str) -> int:
        """Count the tokens of a piece of the current prose, which is encoded only once."""
        start = self._prose_text.index(piece)
        first_token = max(bisect_right(self._token_starts, start) - 1, 0)
        next_token = bisect_left(self._token_starts, start + len(piece))
        return max(len(piece) // CHARACTERS_A_TOKEN, next_token - first_token)

    def split(self, parsed: Parsed) -> list[Chunk]:
        """Return the document's non-empty passages in order."""
        text, page_starts = _join_pages(parsed)
        headings, tables = self._outline(text)
        chunks: list[Chunk] = []
        for section in self._sections(text, headings):
            for start, piece in self._pieces(text, section, tables):
                if _LETTER.search(piece):
                    if len(chunks) == MOST_PASSAGES:
                        raise Unreadable(Reason.TOO_LARGE, f"more than {MOST_PASSAGES} passages: split the document")
                    page = parsed.pages[max(bisect_right(page_starts, start) - 1, 0)].number
                    chunks.append(Chunk(text=piece, section=" > ".join(section.path), page=page))
        return self._without_lone_headings(chunks)

    def _outline(self, text: str) -> tuple[list[_Heading], list[_Span]]:
        """Return a text's headings and tables; a heading inside a quotation or a list starts no section."""
        lines = text.split("\n")
        starts = [0, *accumulate(len(line) + 1 for line in lines)]
        headings: list[_Heading] = []
        tables: list[_Span] = []
        tokens = self._markdown.parse("\n".join(map(_block_mark, lines)))
        for i, token in enumerate(tokens):
            if token.map is None or token.level > 0:
                continue
            first_line, next_line = token.map
            start, end = starts[first_line], min(starts[next_line], len(text))
            if token.type == "heading_open":
                content = tokens[i + 1].content[:LONGEST_LINE]
                title = shorten(" ".join(_MARKUP.sub("", content).split()), LONGEST_HEADING)
                headings.append(_Heading(start, end, int(token.tag[1]), title))
            elif token.type == "table_open":
                tables.append((start, end))
        return headings, tables

    def _sections(self, text: str, headings: Sequence[_Heading]) -> list[_Section]:
        """Return the sections; a small one is merged with the next if both fit and the next has no higher heading."""
        merged: list[_Section] = []
        for section in self._single_sections(text, headings):
            if merged and self._may_merge(merged[-1], section):
                merged[-1] = _merge(merged[-1], section)
            else:
                merged.append(section)
        return merged

    def _single_sections(self, text: str, headings: Sequence[_Heading]) -> Iterator[_Section]:
        """Yield a section per heading, and one for the text before the first heading."""
        path: list[_Heading] = []
        untitled = [_Heading(0, 0, 0, "")] if not headings or headings[0].start > 0 else []
        outline = [*untitled, *headings]
        for i, heading in enumerate(outline):
            end = outline[i + 1].start if i + 1 < len(outline) else len(text)
            path = [*(above for above in path if above.level < heading.level), heading]
            yield _Section(
                start=heading.start,
                end=end,
                level=heading.level,
                path=tuple(above.title for above in path if above.title),
                tokens=self.count(text[heading.start : end]),
                has_body=_LETTER.search(text, heading.body, end) is not None,
            )

    def _may_merge(self, before: _Section, section: _Section) -> bool:
        is_small = before.tokens < self._least_section or not before.has_body
        return is_small and section.level >= before.level and before.tokens + section.tokens <= self._most_tokens

    def _pieces(self, text: str, section: _Section, tables: Sequence[_Span]) -> Iterator[tuple[int, str]]:
        """Yield (offset, piece): a table is kept whole or cut between rows; other text is cut by the splitter."""
        section_tables = tables[bisect_left(tables, (section.start, 0)) : bisect_left(tables, (section.end, 0))]
        if section_tables and self.count(text[section.start : section.end]) <= self._most_tokens:
            section_tables = []  # the section is one passage
        prose_start = section.start
        for table, end in section_tables:
            rows = text[table:end].rstrip("\n")
            before = list(self._prose_pieces(text, prose_start, table))
            if self.count(rows) > self._most_tokens:
                yield from before
                yield from self._table_pieces(rows, table)
            else:
                # The text before a table introduces it; keep both in one passage if they fit.
                has_introduction = bool(before) and self.count(text[before[-1][0] : end]) <= self._most_tokens
                start = before.pop()[0] if has_introduction else table
                yield from before
                yield start, text[start:end].rstrip("\n")
            prose_start = end
        yield from self._prose_pieces(text, prose_start, section.end)

    def _prose_pieces(self, text: str, start: int, end: int) -> Iterator[tuple[int, str]]:
        for offset, piece in _whole_figures(self._split(text[start:end], self._splitter)):
            yield start + offset, piece

    def _table_pieces(self, table: str, start: int) -> Iterator[tuple[int, str]]:
        """Yield (offset, piece): groups of a table's rows, each group with the table's header."""
        header, rule, *rows = table.split("\n")
        head = f"{header}\n{rule}"
        names = _cells(header)
        head_tokens = self.count(head)
        group: list[str] = []
        used_tokens = head_tokens
        offset = group_start = start + len(head) + 1
        for row in rows:
            tokens = self.count(row) + 1
            if group and used_tokens + tokens > self._most_tokens:
                yield group_start, "\n".join([head, *group])
                group, used_tokens, group_start = [], head_tokens, offset
            if head_tokens + tokens > self._most_tokens:
                yield from ((offset, piece) for piece in self._long_row(names, row))
                group_start = offset + len(row) + 1
            else:
                group.append(row)
                used_tokens += tokens
            offset += len(row) + 1
        if group:
            yield group_start, "\n".join([head, *group])

    def _long_row(self, names: Sequence[str], row: str) -> Iterator[str]:
        """Yield the pieces of a row that is longer than a passage, as "column: cell" lines that are cut like prose.

        Each piece begins with the first cell as its label, unless that is empty or long.
        """
        cells = _cells(row)
        named_cells = [(name, cell) for name, cell in zip(names, cells, strict=False) if cell]
        fields = [f"{name}: {cell}" if name else cell for name, cell in named_cells]
        if not fields:
            return
        has_label = len(fields) > 1 and bool(cells[0]) and self.count(fields[0]) <= self._most_tokens // 4
        label = f"{fields[0]}\n\n" if has_label else ""
        splitter = self._labelled_splitter if has_label else self._splitter
        prose = "\n\n".join(fields[1:] if has_label else fields)
        for _, piece in _whole_figures(self._split(prose, splitter)):
            if piece:
                yield label + piece

    def _split(self, text: str, splitter: MarkdownSplitter) -> Iterator[tuple[int, str]]:
        """Yield (offset, piece), splitting at most LONGEST_PROSE characters at a time."""
        start = 0
        while start < len(text):
            self._prose_text = prose = text[start : _cut_position(text, start)]
            encoded = self._tokenizer.encode(prose, add_special_tokens=False)
            self._token_starts = [first for first, _ in encoded.offsets]
            yield from ((start + offset, piece) for offset, piece in splitter.chunk_indices(prose))
            start += len(prose)

    def _without_lone_headings(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Join a passage of only headings to the next passage, because headings match a query without answering it."""
        joined: list[Chunk] = []
        headings = ""
        for chunk in chunks:
            has_only_headings = all(line.startswith("#") or not line.strip() for line in chunk.text.split("\n"))
            if has_only_headings and len(headings) + len(chunk.text) <= self._most_tokens * CHARACTERS_A_TOKEN:
                headings += chunk.text + "\n\n"
                continue
            joined.append(replace(chunk, text=headings + chunk.text))
            headings = ""
        if headings and joined:
            joined[-1] = replace(joined[-1], text=f"{joined[-1].text}\n\n{headings.strip()}")
        return joined or list(chunks)


def require_tokenizer(folder: Path) -> Path:
    """Return the tokenizer file in an embedder's folder; raise WeightsMissing if it is missing."""
    file = folder / "tokenizer.json"
    if not file.exists():
        raise WeightsMissing(
            f"the embedding model's tokenizer is missing in {folder}: run `llm-server fetch e5-small`, or set "
            "EMBEDDER__FOLDER or EMBEDDER__TOKENIZER"
        )
    return file


@cache
def open_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of an embedder's folder; callers must not modify it."""
    return Tokenizer.from_file(str(require_tokenizer(folder)))


@cache
def open_chunker(chunking: Chunking) -> Chunker:
    """Open a chunker once per process and `chunking`; it takes one second and 280 MB."""
    return Chunker(open_tokenizer(Path(chunking.tokenizer)), chunking)


def chunk_document(parsed: Parsed, chunker: Chunker) -> ChunkedDocument:
    """Cut a document into passages; raise Unreadable if it has no text."""
    chunks = chunker.split(parsed)
    if not chunks:
        raise Unreadable(Reason.EMPTY_TEXT, "no text could be read from it")
    return ChunkedDocument(
        format=parsed.format,
        title=shorten(parsed.title, LONGEST_TITLE) if parsed.title else None,
        language=language_of("\n".join(chunk.text for chunk in chunks)),
        chunks=tuple(chunks),
        left_out=parsed.left_out,
    )


def shorten(name: str, most: int) -> str:
    """Return a name cut to `most` characters, with an ellipsis if it was longer."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _block_mark(line: str) -> str:
    """Return "|-|" for the rule below a table's header, "|x|" for another table row, and the start of another line."""
    if not line.startswith("|"):
        return line[:LONGEST_LINE]
    return "|x|" if line.strip(" \t|:-") else "|-|"


def _cut_position(text: str, start: int) -> int:
    """Return where to cut the next LONGEST_PROSE characters: after a paragraph, line or word in their second half."""
    middle, end = start + LONGEST_PROSE // 2, start + LONGEST_PROSE
    if end >= len(text):
        return len(text)
    cuts = (text.rfind(mark, middle, end) + len(mark) for mark in ("\n\n", "\n", " "))
    return next((cut for cut in cuts if cut > middle), end)


def _whole_figures(pieces: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield (offset, piece); move a figure from a piece's end to the adjacent next piece, where its unit may be."""
    moved = ""
    for (offset, cut), (next_offset, next_cut) in pairwise([*pieces, (-1, "")]):
        start, piece = offset - len(moved), moved + cut
        is_adjacent = next_cut and next_offset == offset + len(cut)
        figure = _LAST_FIGURE.search(piece) if is_adjacent else None
        moved = figure[0] if figure else ""
        yield start, piece.removesuffix(moved)


def _merge(before: _Section, section: _Section) -> _Section:
    """Merge two sections; if the first has text, the new path has only the headings that both have at the same level.

    If they have no heading in common, the new path is the first section's top heading.
    """
    if before.has_body:
        common = (title for title, other in zip(before.path, section.path, strict=False) if title == other)
        path = tuple(common) or before.path[:1]
    else:
        path = section.path
    has_body = before.has_body or section.has_body
    return replace(before, end=section.end, path=path, tokens=before.tokens + section.tokens, has_body=has_body)


def _join_pages(parsed: Parsed) -> tuple[str, list[int]]:
    """Return all pages as one text, so that a section can span pages, and the offset of each page."""
    starts: list[int] = []
    parts: list[str] = []
    length = 0
    for page in parsed.pages:
        starts.append(length)
        # CommonMark also treats a lone carriage return as a line ending.
        parts.append(_RETURN.sub("\n", page.markdown) + "\n\n")
        length += len(parts[-1])
    return "".join(parts), starts


def _cells(row: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in _CELL_BORDER.split(row.strip())[1:-1]]
