"""Remove and count content that a Word file marks as hidden: text, rows, deleted revisions. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.etree.ElementTree import Element, SubElement

from ingest.parsing.archive import has_text, local_name
from ingest.parsing.parsed import LeftOut

_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STRICT: Final = "{http://purl.oclc.org/ooxml/wordprocessingml/main}"
_OFF: Final = frozenset({"0", "false", "off"})
_DRAWING: Final = "{http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing}docPr"
_MOST_BASES: Final = 12  # maximum length of a chain of base styles
_RUN_PROPERTIES: Final = f"{_W}rPr"

Properties = Mapping[str, Element]
"""Run properties by name."""


@dataclass(frozen=True, slots=True)
class Styles:
    """The run properties of each style of a Word file, including those inherited from base styles."""

    named: Mapping[str, Properties] = field(default_factory=dict)
    default_paragraph: str = ""
    """The name of the default paragraph style."""

    @classmethod
    def of(cls, root: Element) -> "Styles":
        """Parse a styles part."""
        styles = {str(style.get(f"{_W}styleId")): style for style in root.iter(f"{_W}style")}
        defaults = (
            name
            for name, style in styles.items()
            if style.get(f"{_W}type") == "paragraph" and style.get(f"{_W}default", "0") not in _OFF
        )
        return cls({name: _with_base(style, styles) for name, style in styles.items()}, next(defaults, ""))

    def of_paragraph(self, paragraph: Element | None) -> Properties:
        """Return the run properties from a paragraph's style."""
        name = _style_of(paragraph, "pPr", "pStyle")
        return self.named.get(name if name in self.named else self.default_paragraph, {})


def as_transitional(root: Element) -> Element:
    """Rename the elements of strict Office Open XML to the equivalent transitional names, which Word itself writes."""
    for element in root.iter():
        if isinstance(element.tag, str) and element.tag.startswith(_STRICT):
            element.tag = element.tag.replace(_STRICT, _W)
            element.attrib = {name.replace(_STRICT, _W): value for name, value in element.attrib.items()}
    return root


def remove_hidden_drawings(root: Element) -> int:
    """Remove drawings marked as hidden; return the number that contain text."""
    count = 0
    unvisited = [root]
    while unvisited:
        parent = unvisited.pop()
        for child in list(parent):
            is_drawing = local_name(child) in {"drawing", "AlternateContent"}
            if is_drawing and any(drawing.get("hidden", "0") not in _OFF for drawing in child.iter(_DRAWING)):
                count += has_text(child)
                parent.remove(child)
            else:
                unvisited.append(child)
    return count


def remove_hidden(root: Element, styles: Styles) -> Counter[LeftOut]:
    """Remove a part's hidden text; return the number of left-out paragraphs, rows, revisions and comments.

    Also mark the runs that a style makes superscript.
    """
    left_out = Counter({LeftOut.ROW: _remove_rows(root, "hidden"), LeftOut.DELETED: _remove_rows(root, "del")})
    for name in ("del", "moveFrom"):  # mammoth drops these elements itself
        left_out[LeftOut.DELETED] += sum(map(has_text, root.iter(f"{_W}{name}")))
    left_out[LeftOut.COMMENT] += sum(map(has_text, root.iter(f"{_W}comment")))
    paragraphs_with_hidden_text = set()
    for paragraph, run in _runs(root):
        properties = {
            **styles.of_paragraph(paragraph),
            **styles.named.get(_style_of(run, "rPr", "rStyle"), {}),
            **_properties(run.find(_RUN_PROPERTIES)),
        }
        _mark_superscript(run, properties.get("vertAlign"))
        if _is_on(properties.get("vanish")):
            if has_text(run):
                paragraphs_with_hidden_text.add(paragraph)
            run[:] = []
    left_out[LeftOut.TEXT] += len(paragraphs_with_hidden_text)
    return left_out


def _remove_rows(root: Element, mark: str) -> int:
    """Remove table rows that have a mark; return the number that contain text."""
    count = 0
    for table in root.iter(f"{_W}tbl"):
        for row in [row for row in table if _is_on(row.find(f"{_W}trPr/{_W}{mark}"))]:
            count += has_text(row)
            table.remove(row)
    return count


def _runs(root: Element) -> Iterator[tuple[Element | None, Element]]:
    """Yield each run with its paragraph."""
    unvisited: list[tuple[Element | None, Element]] = [(None, root)]
    while unvisited:
        paragraph, element = unvisited.pop()
        if element.tag == f"{_W}p":
            paragraph = element
        unvisited += [(paragraph, child) for child in element]
        if element.tag == f"{_W}r":
            yield paragraph, element


def _mark_superscript(run: Element, position: Element | None) -> None:
    """Mark a run itself as superscript if its style makes it superscript, unless the run has its own position."""
    if _value(position) != "superscript":
        return
    properties = run.find(_RUN_PROPERTIES)
    if properties is None:
        properties = Element(_RUN_PROPERTIES)
        run.insert(0, properties)
    if properties.find(f"{_W}vertAlign") is None:
        SubElement(properties, f"{_W}vertAlign").set(f"{_W}val", "superscript")


def _with_base(style: Element, styles: Mapping[str, Element]) -> Properties:
    """Return a style's run properties, with those inherited from its base styles."""
    merged: dict[str, Element] = {}
    next_style: Element | None = style
    for _ in range(_MOST_BASES):  # bounded because base styles may form a cycle
        if next_style is None:
            break
        merged = {**_properties(next_style.find(_RUN_PROPERTIES)), **merged}
        next_style = styles.get(_value(next_style.find(f"{_W}basedOn")))
    return merged


def _properties(element: Element | None) -> Properties:
    return {} if element is None else {child.tag.removeprefix(_W): child for child in element}


def _style_of(element: Element | None, properties: str, name: str) -> str:
    return "" if element is None else _value(element.find(f"{_W}{properties}/{_W}{name}"))


def _value(element: Element | None) -> str:
    return "" if element is None else str(element.get(f"{_W}val", ""))


def _is_on(element: Element | None) -> bool:
    return element is not None and element.get(f"{_W}val", "1") not in _OFF
