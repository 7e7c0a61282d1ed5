"""Where a Word file lays a picture or a shape over its text: what that covers must not be approved unread. Pure.

Where it lies is known only once the pages are set. So a mark (`COVERED`) is put before its paragraph, and a version
with a mark cannot be approved. A picture may cover all text of its page, as far as the file itself breaks pages, and
the boxes that lie lower; not where text flows around it, nor from a header or a footer, which lie behind all text.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element, SubElement

from ingest.parsing.docx_floats import IsLace, floats, height_of, is_in_front, is_opaque
from ingest.parsing.drawing_fills import Palette
from ingest.parsing.elements import Parents, ancestors, local, parents_of
from knowledge.passage import COVERED

# Within these no page begins, or not in every program.
_ASIDE: Final = frozenset({"tbl", "txbxContent", "del", "moveFrom", "AlternateContent", "drawing", "pict"})
_BODY: Final = float("-inf")  # the height of text that stands in the page itself


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A piece of text, or what floats over it: its page, how high it lies, and what it is a part of."""

    element: Element
    page: int
    height: float
    whole: Element | None


def mark_covers(root: Element, palette: Palette, is_lace: IsLace) -> None:
    """Put a mark before each paragraph of a part of a Word file from which something may cover text."""
    if local(root) in {"hdr", "ftr"}:
        return
    parents = parents_of(root)
    drawn = list(_drawn(root, parents))
    words = [one for one in drawn if local(one.element) == "t"]
    covers = (one for one in drawn if local(one.element) != "t" and is_in_front(one.element))
    hiding = [cover.element for cover in covers if is_opaque(cover.element, palette, is_lace) and _hides(cover, words)]
    paragraphs = [_paragraph(one, parents) for one in (*hiding, *_other_words(root))]
    for paragraph in dict.fromkeys(one for one in paragraphs if one is not None):
        _mark(paragraph, parents[paragraph])


def _drawn(root: Element, parents: Parents) -> Iterator[_Drawn]:
    """Yield the text and what floats, with the page that the last break before it began."""
    page = 0
    for element in root.iter():
        if _breaks_page(element, parents):
            page += 1
        is_text = local(element) == "t" and bool((element.text or "").strip())
        if is_text or (floats(element) and not _is_for_others(element, parents)):
            inside = [one for one in (element, *ancestors(element, parents)) if floats(one)]
            height = height_of(inside[-1]) if inside else _BODY
            yield _Drawn(element, page, height, _whole(inside[-1], parents) if inside else None)


def _hides(cover: _Drawn, words: list[_Drawn]) -> bool:
    return any(cover.page == one.page and cover.whole is not one.whole and cover.height > one.height for one in words)


def _breaks_page(element: Element, parents: Parents) -> bool:
    values = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    if local(element) == "br":
        breaks = values.get("type") == "page"
    elif local(element) == "pageBreakBefore":
        breaks = values.get("val") not in {"0", "false", "off"} and local(parents[parents[element]]) == "p"
    else:
        return False
    return breaks and not any(local(one) in _ASIDE for one in ancestors(element, parents))


def _is_for_others(element: Element, parents: Parents) -> bool:
    """Tell whether something is drawn only by programs that cannot draw what stands beside it."""
    last = next((one for one in ancestors(element, parents) if local(one) == "Fallback"), None)
    return last is not None and any(local(one) == "drawing" for one in parents[last].iter())


def _whole(element: Element, parents: Parents) -> Element:
    """Return what holds all the ways in which something is drawn."""
    ways = [one for one in ancestors(element, parents) if local(one) == "AlternateContent"]
    return ways[-1] if ways else element


def _other_words(root: Element) -> Iterator[Element]:
    """Yield what says other words to programs that cannot draw what is seen: those that are read, and nobody sees."""
    for ways in root.iter("{http://schemas.openxmlformats.org/markup-compatibility/2006}AlternateContent"):
        said = ["".join("".join(one.text or "" for one in way.iter() if local(one) == "t").split()) for way in ways]
        if any(words not in said[0] for words in said[1:]):
            yield ways


def _paragraph(element: Element, parents: Parents) -> Element | None:
    """Return the paragraph of the page itself in which something stands."""
    paragraphs = [one for one in ancestors(element, parents) if local(one) == "p"]
    return paragraphs[-1] if paragraphs else None


def _mark(paragraph: Element, parent: Element) -> None:
    word = paragraph.tag.removesuffix("p")
    mark = Element(f"{word}p")
    SubElement(SubElement(mark, f"{word}r"), f"{word}t").text = COVERED
    parent.insert(list(parent).index(paragraph), mark)
