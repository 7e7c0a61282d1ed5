"""HTML to Markdown: without scripts, styles and navigation; with headings, lists and tables, their spans filled in."""

import re
from collections.abc import Iterator
from uuid import uuid4

from bs4 import BeautifulSoup, Comment, Tag
from bs4.element import PreformattedString
from markdownify import MarkdownConverter

from ingest.parsing.html_unseen import remove_unseen
from ingest.parsing.markdown import first_heading
from ingest.parsing.parsed import Format, Page, Parsed
from ingest.parsing.tables import Merged, header_rows, to_markdown

# Not <form>: some sites wrap a whole page in one.
_DROPPED = ["script", "style", "noscript", "template", "nav", "iframe", "object", "embed", "svg", "canvas"]
_DROPPED += ["button", "input", "select", "textarea", "head", "link", "meta"]
_XML_PROLOGUE = re.compile(r"\A\s*<\?xml[^>]*>")
_BLANK_LINES = re.compile(r"\n{3,}")
MOST_SPANNED = 200


def parse_html(text: str) -> Parsed:
    """Return a page's content; the title is its <title>, else its first heading."""
    soup = BeautifulSoup(_XML_PROLOGUE.sub("", text), "lxml")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    markdown = to_text(soup)
    return Parsed(
        format=Format.HTML, title=title or first_heading(markdown), pages=(Page(number=None, markdown=markdown),)
    )


def to_text(soup: BeautifulSoup) -> str:
    """Return the soup as Markdown with pipe tables; the soup is changed on the way."""
    _strip(soup)
    tables = dict(_take_tables(soup))
    converter = MarkdownConverter(
        heading_style="ATX", bullets="-", strip=["a", "img"], escape_asterisks=False, escape_underscores=False,
        escape_misc=False,
    )  # fmt: skip
    markdown = str(converter.convert_soup(soup))
    for mark, table in tables.items():
        markdown = markdown.replace(mark, table)
    return _BLANK_LINES.sub("\n\n", markdown.replace("\xa0", " ")).strip()


def _strip(soup: BeautifulSoup) -> None:
    remove_unseen(soup)  # before its style sheets go
    for tag in soup(_DROPPED):
        tag.decompose()
    for node in soup.find_all(string=lambda text: isinstance(text, Comment | PreformattedString)):
        node.extract()


def _take_tables(soup: BeautifulSoup) -> Iterator[tuple[str, str]]:
    """Replace each table of data by a mark and yield (mark, Markdown); tables that only lay out a page become divs."""
    for table in soup.find_all("table"):
        rows = [row for row in table.find_all("tr") if row.find_parent("table") is table]
        if table.find("table") or all(len(_cells(row)) < 2 for row in rows):
            for tag in [table, *table.find_all(["tr", "td", "th", "tbody", "thead", "tfoot"])]:
                tag.name = "div"
            continue
        grid, depth = _grid(rows)
        caption = table.find("caption")
        mark = f"TABLE{uuid4().hex}"
        title = f"{' '.join(caption.get_text().split())}\n\n" if caption else ""
        holder = soup.new_tag("p")
        holder.string = mark
        table.replace_with(holder)
        yield mark, f"\n\n{title}{to_markdown(grid, header_rows=depth, filled=True)}\n\n"


def _cells(row: Tag) -> list[Tag]:
    return row.find_all(["td", "th"], recursive=False)


def _grid(rows: list[Tag]) -> tuple[list[list[str]], int]:
    """Return the cells with spans filled in, and the number of header rows."""
    grid: list[list[str]] = []
    merged: list[Merged] = []
    hanging: dict[int, tuple[int, str]] = {}  # column → (rows still covered, text)
    for row in rows:
        line: list[str] = []
        for cell in _cells(row):
            _fill(line, hanging)
            text = cell.get_text(" ", strip=True)
            down, across = _span(cell, "rowspan"), _span(cell, "colspan")
            if down > 1 or across > 1:
                merged.append(Merged(len(grid), len(line), down, across))
            for _ in range(across):
                if down > 1:
                    hanging[len(line)] = (down - 1, text)
                line.append(text)
        _fill(line, hanging)
        grid.append(line)
    heads = 0
    while heads < len(rows) - 1 and _is_header(rows[heads]):
        heads += 1
    return grid, header_rows(grid, merged, known=max(heads, 1))


def _fill(line: list[str], hanging: dict[int, tuple[int, str]]) -> None:
    while len(line) in hanging:
        left, text = hanging.pop(len(line))
        if left > 1:
            hanging[len(line)] = (left - 1, text)
        line.append(text)


def _is_header(row: Tag) -> bool:
    cells = _cells(row)
    in_head = row.parent is not None and row.parent.name == "thead"
    return bool(cells) and (in_head or all(cell.name == "th" for cell in cells))


def _span(cell: Tag, name: str) -> int:
    value = str(cell.get(name, "1"))
    return min(max(int(value), 1), MOST_SPANNED) if value.isdecimal() and len(value) < 5 else 1
