"""What a reader of an HWPX document would not see of it: white, tiny and struck letters, memos, hidden explanations,
what was deleted while changes are tracked. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from ingest.parsing.colours import blends, rgb_of
from ingest.parsing.elements import ancestors, local, parents_of

_SMALLEST: Final = 200  # hundredths of a point
_SMALLEST_PERCENT: Final = 10
_NOTHING: Final = ("", "none")
_NO_LINE: Final = frozenset({"NONE", "3D"})  # of what crosses letters out; Hangul writes 3D where there is none
_KINDS: Final = ("charPr", "paraPr", "borderFill")
_SHAPES: Final = frozenset({"rect", "ellipse", "polygon", "curve", "arc", "container"})


@dataclass(frozen=True, slots=True)
class Looks:
    """What a document's headers say of letters and of grounds, by their numbers."""

    letters: Mapping[str, Element]
    paragraphs: Mapping[str, Element]
    fills: Mapping[str, Element]

    @classmethod
    def of(cls, headers: list[Element]) -> "Looks":
        """Return what all header parts say."""
        said = [one for header in headers for one in header.iter()]
        by_kind = ({str(one.get("id")): one for one in said if local(one) == kind} for kind in _KINDS)
        letters, paragraphs, fills = by_kind
        return cls(letters, paragraphs, fills)

    def remove_unseen(self, root: Element) -> None:
        """Take from a section's part what nobody sees on its pages."""
        _remove_deleted(root)
        parents = parents_of(root)
        for aside in [one for one in root.iter() if _is_aside(one)]:
            for child in list(aside):
                aside.remove(child)
        page = [one for one in root.iter() if local(one) == "pageBorderFill"]
        for run in [one for one in root.iter() if local(one) == "run"]:
            letters = self.letters.get(run.get("charPrIDRef", ""))
            if letters is not None and self._is_unseen(letters, [*ancestors(run, parents), *page]):
                for text in [one for one in run if local(one) == "t"]:
                    run.remove(text)

    def _is_unseen(self, letters: Element, around: list[Element]) -> bool:
        if any(local(one) == "strikeout" and one.get("shape", "NONE") not in _NO_LINE for one in letters):
            return True
        sizes = next((one for one in letters if local(one) == "relSz"), None)
        share = min((int(size) for size in ({} if sizes is None else sizes.attrib).values()), default=100)
        if int(letters.get("height", "1000")) < _SMALLEST or share < _SMALLEST_PERCENT:
            return True
        grounds = (ground for one in (letters, *around) if (ground := self._ground(one)) not in _NOTHING)
        return blends(rgb_of(letters.get("textColor", "")), rgb_of(next(grounds, "#FFFFFF")))

    def _ground(self, element: Element) -> str:
        """Return the colour that an element gives its ground, if it gives one; "unknown" of a picture or a gradient."""
        if (shade := element.get("shadeColor", "")) not in _NOTHING:
            return shade
        if local(element) in _SHAPES:
            return _face(element)
        if local(element) == "p":
            paragraph = self.paragraphs.get(element.get("paraPrIDRef", ""))
            border = None if paragraph is None else next((one for one in paragraph if local(one) == "border"), None)
            element = Element("") if border is None else border
        fill = self.fills.get(element.get("borderFillIDRef", ""))
        return "" if fill is None else _face(fill)


def _remove_deleted(root: Element) -> None:
    """Take out what was deleted while changes are tracked: all that stands between the two ends of a deletion."""
    ended = {one.get("Id") for one in root.iter() if local(one) == "deleteEnd"}
    open_ones: set[str | None] = set()
    for element in root.iter():
        if local(element) == "deleteBegin" and element.get("Id") in ended:
            open_ones.add(element.get("Id"))
        elif local(element) == "deleteEnd":
            open_ones.discard(element.get("Id"))
        if open_ones:
            element.text = element.tail = None


def _is_aside(element: Element) -> bool:
    return local(element) == "hiddenComment" or (local(element) == "fieldBegin" and element.get("type") == "MEMO")


def _face(element: Element) -> str:
    brush = next((one for one in element if local(one) == "fillBrush"), None)
    if brush is None or not len(brush):
        return ""
    return brush[0].get("faceColor", "unknown") if len(brush) == 1 else "unknown"
