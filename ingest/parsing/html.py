"""HTML to Markdown: drops scripts, styles and navigation; keeps headings, lists and tables, with spans filled in."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, pairwise, takewhile
from uuid import uuid4

from bs4 import BeautifulSoup, Comment, Tag
from bs4.builder import HTMLTreeBuilder
from bs4.element import NavigableString, PreformattedString
from markdownify import MarkdownConverter

from ingest.parsing.parsed import Format, LeftOut, Parsed, one_page
from ingest.parsing.superscripts import as_superscript
from ingest.parsing.tables import Merged, header_rows, to_markdown
from ingest.parsing.text import first_heading

# Not <form>: some sites wrap a whole page in one.
_DROPPED = ["script", "style", "noscript", "template", "nav", "iframe", "object", "embed", "svg", "canvas"]
_DROPPED += ["button", "input", "select", "textarea", "head", "link", "meta"]
_XML_PROLOGUE = re.compile(r"\A\s*<\?xml[^>]*>")
_BLANK_LINES = re.compile(r"\n{3,}")
# Block elements that markdownify treats as inline.
_BLOCKS = ["address", "aside", "center", "details", "dialog", "dir", "fieldset", "figure", "footer", "form", "header"]
_BLOCKS += ["hgroup", "legend", "main", "menu", "optgroup", "option", "search", "summary"]
# A style that makes an inline element a block of its own.
_BLOCK_STYLE = re.compile(
    r"display\s{0,4}+:\s{0,4}+(?:block|flex|grid|table|list-item|flow-root)|float\s{0,4}+:\s{0,4}+(?:left|right)",
    re.IGNORECASE,
)
_CHECKABLE = re.compile(r"\A(?:checkbox|radio)\Z", re.IGNORECASE)
_BREAKS = [*HTMLTreeBuilder.DEFAULT_BLOCK_ELEMENTS, "br"]
_NOT_INLINE = re.compile(r"display\s{0,4}+:\s{0,4}+(?!inline\s{0,4}(?:[;!]|\Z)|contents)", re.IGNORECASE)
_STRUCK = re.compile(r"text-decoration(?:-line)?\s{0,4}:[^;]{0,60}line-through", re.IGNORECASE)
_NOT_DISPLAYED = re.compile(r"display\s{0,4}:\s{0,4}none", re.IGNORECASE)
_RAISED = re.compile(r"vertical-align\s{0,4}:\s{0,4}super", re.IGNORECASE)
_EMPHASIS = {"b", "strong", "i", "em"}
_INLINE = {*_EMPHASIS, "u", "span", "a", "font", "small", "big", "mark", "ins", "sub", "sup"}
_CELLS = ["td", "th"]
_IN_NUMBER = re.compile(r"[\d⁰¹²³⁴-⁹⁾]\S|\S\d")  # two characters that may belong to one number
MOST_SPANNED = 200


def parse_html(text: str) -> Parsed:
    """Return a web page's content; the title is its <title>, or else its first heading."""
    soup = BeautifulSoup(_XML_PROLOGUE.sub("", text), "lxml")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    left_out = +Counter({LeftOut.ELEMENT: _remove_hidden(soup)})  # unary + drops zero counts
    markdown = to_text(soup)
    return one_page(Format.HTML, markdown, title or first_heading(markdown), left_out)


def _remove_hidden(soup: BeautifulSoup) -> int:
    """Remove elements hidden by attribute or inline style; return the number that contain text."""
    count = 0
    for tag in [*soup(hidden=True), *soup(style=_NOT_DISPLAYED)]:
        if not tag.decomposed:
            count += bool(tag.get_text(strip=True))
            tag.decompose()
    return count


def to_text(soup: BeautifulSoup) -> str:
    """Return the soup as Markdown with pipe tables; modifies the soup."""
    _simplify(soup)
    tables = dict(_extract_tables(soup))
    converter = MarkdownConverter(
        heading_style="ATX", bullets="-", strip=["a", "img"], escape_asterisks=False, escape_underscores=False,
        escape_misc=False,
    )  # fmt: skip
    markdown = str(converter.convert_soup(soup))
    for placeholder, table in tables.items():
        markdown = markdown.replace(placeholder, table)
    return _BLANK_LINES.sub("\n\n", markdown.replace("\xa0", " ")).strip()


def _simplify(soup: BeautifulSoup) -> None:
    """Remove elements without text, and rewrite those that markdownify would drop or join."""
    for box in soup("input", type=_CHECKABLE):
        box.replace_with("☑" if box.has_attr("checked") else "☐")
    for tag in soup(_DROPPED):
        tag.decompose()
    for tag in [*soup(["del", "s", "strike"]), *soup(style=_STRUCK)]:
        _strike(tag)
    for node in soup.find_all(string=lambda text: isinstance(text, Comment | PreformattedString)):
        node.extract()
    for tag in soup(_is_superscript):
        _rewrite_superscript(tag)
    for tag in [*soup(_BLOCKS), *soup(list(_INLINE), style=_BLOCK_STYLE)]:
        tag.name = "div"
    _join_numbers(soup)


def _strike(tag: Tag) -> None:
    """Mark struck text with ~~, in tables too."""
    tag.name = "span" if tag.name in {"del", "s", "strike"} else tag.name
    if tag.get_text(strip=True) and tag.find(_BREAKS) is None:
        tag.insert(0, "~~")
        tag.append("~~")


def _is_superscript(tag: Tag) -> bool:
    is_raised = tag.name == "sup" or (tag.name in _INLINE and _RAISED.search(str(tag.get("style", ""))) is not None)
    return is_raised and tag.find([*_BREAKS, *_CELLS]) is None


def _rewrite_superscript(tag: Tag) -> None:
    """Rewrite a superscript that could be read as part of the number before it, unless it is alone in its cell."""
    text = tag.get_text()
    before = tag.find_previous(string=True) if text.strip() else None
    superscript = as_superscript(text, str(before or ""))
    if superscript != text and not _fills_cell(tag):
        tag.string = superscript


def _fills_cell(tag: Tag) -> bool:
    """Return whether an element is the only content of a table cell."""
    for element in (tag, *tag.parents):
        if element.name in _CELLS:
            return True
        if any(str(sibling).strip() for sibling in chain(element.next_siblings, element.previous_siblings)):
            return False
    return False


def _join_numbers(soup: BeautifulSoup) -> None:
    """Remove emphasis that starts or ends inside a number, because its marks in Markdown would split the number."""
    for before, after in pairwise(soup.find_all(string=True)):
        if not _IN_NUMBER.fullmatch(before[-1:] + after[:1]):
            continue
        between = _between(before, after)
        if not any(map(_is_block, between)):
            for tag in [tag for tag in between if tag.name in _EMPHASIS]:
                tag.name = "span"  # renaming is faster than removing it, which searches its siblings


def _is_block(tag: Tag) -> bool:
    return tag.name in _BREAKS or _NOT_INLINE.search(str(tag.get("style", ""))) is not None


def _between(before: NavigableString, after: NavigableString) -> list[Tag]:
    """Return the elements that end after the first text or start before the second."""
    around_after = {id(tag) for tag in after.parents}
    ending = [tag for tag in before.parents if id(tag) not in around_after]
    nodes_between = takewhile(lambda node: node is not before, after.previous_elements)
    return [*ending, *(node for node in nodes_between if isinstance(node, Tag))]


def _extract_tables(soup: BeautifulSoup) -> Iterator[tuple[str, str]]:
    """Replace each data table with a placeholder and yield (placeholder, Markdown); turn layout tables into divs."""
    for table in soup.find_all("table"):
        rows = [row for row in table.find_all("tr") if row.find_parent("table") is table]
        if table.find("table") or all(len(_cells(row)) < 2 for row in rows):
            for tag in [table, *table.find_all(["tr", "td", "th", "tbody", "thead", "tfoot"])]:
                tag.name = "div"
            continue
        grid, header_count = _grid(rows)
        caption = table.find("caption")
        title = f"{_text(caption)}\n\n" if caption else ""
        placeholder = f"TABLE{uuid4().hex}"
        paragraph = soup.new_tag("p")
        paragraph.string = placeholder
        table.replace_with(paragraph)
        yield placeholder, f"\n\n{title}{to_markdown(grid, header_rows=header_count, drop_repeated=True)}\n\n"


def _cells(row: Tag) -> list[Tag]:
    return row.find_all(_CELLS, recursive=False)


def _grid(rows: list[Tag]) -> tuple[list[list[str]], int]:
    """Return the texts of a table's cells, with spans filled in, and the number of header rows."""
    grid: list[list[str]] = []
    merged: list[Merged] = []
    open_spans: dict[int, tuple[int, str]] = {}  # column → (remaining rows, text)
    for row in rows:
        line: list[str] = []
        for cell in _cells(row):
            _append_spanned(line, open_spans)
            text = _text(cell)
            down = _span(cell, "rowspan")
            if cell.get("rowspan") == "0":  # to the end of its row group
                down = len(row.find_next_siblings("tr")) + 1
            across = _span(cell, "colspan")
            if down > 1 or across > 1:
                merged.append(Merged(len(grid), len(line), down, across))
            for _ in range(across):
                if down > 1:
                    open_spans[len(line)] = (down - 1, text)
                line.append(text)
        _append_spanned(line, open_spans)
        grid.append(line)
    header_count = 0
    while header_count < len(rows) - 1 and _is_header(rows[header_count]):
        header_count += 1
    return grid, header_rows(grid, merged, least=max(header_count, 1))


def _text(tag: Tag) -> str:
    """Return an element's text, separating its text nodes by spaces unless they belong to one number."""
    texts = tag.find_all(string=True)
    parts = list(map(str, texts[:1]))
    for before, after in pairwise(texts):
        parts.append(after if _belong_to_one_number(before, after) else f" {after}")
    return " ".join("".join(parts).split())


def _belong_to_one_number(before: NavigableString, after: NavigableString) -> bool:
    """Return whether two adjacent texts belong to one number, with only inline elements between them."""
    if not _IN_NUMBER.fullmatch(before[-1:] + after[:1]):
        return False
    return all(tag.name in _INLINE and not _is_block(tag) for tag in _between(before, after))


def _append_spanned(line: list[str], open_spans: dict[int, tuple[int, str]]) -> None:
    """Append the texts of cells of earlier rows that extend into this one at the next columns."""
    while len(line) in open_spans:
        remaining_rows, text = open_spans.pop(len(line))
        if remaining_rows > 1:
            open_spans[len(line)] = (remaining_rows - 1, text)
        line.append(text)


def _is_header(row: Tag) -> bool:
    cells = _cells(row)
    in_head = row.parent is not None and row.parent.name == "thead"
    return bool(cells) and (in_head or all(cell.name == "th" for cell in cells))


def _span(cell: Tag, name: str) -> int:
    """Return the value of `rowspan` or `colspan`, at most MOST_SPANNED; 1 if it is missing or invalid."""
    value = str(cell.get(name, "1"))
    return min(max(int(value), 1), MOST_SPANNED) if value.isdecimal() and len(value) < 5 else 1
