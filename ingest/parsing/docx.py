"""DOCX to Markdown via HTML (mammoth): keeps headings, lists and tables; a DOCX has no pages until it is printed."""

from collections import Counter
from dataclasses import replace
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import mammoth
from bs4 import BeautifulSoup

from ingest.parsing.archive import Office, local_name
from ingest.parsing.docx_hidden import Styles, as_transitional, remove_hidden, remove_hidden_drawings
from ingest.parsing.docx_plain import normalise_for_mammoth
from ingest.parsing.html import to_text
from ingest.parsing.parsed import Format, LeftOut, Parsed, one_page
from ingest.parsing.text import first_heading

_ROOTS = {"document", "footnotes", "endnotes", "comments", "hdr", "ftr", "styles"}
_APPEARANCE = {"docDefaults", "latentStyles", "rPr", "tblPr", "trPr", "tcPr", "tblStylePr"}
"""Style elements without a Markdown equivalent; mammoth takes 0.1 s to read those of a typical template."""
_STYLES = "\n".join(
    ["p[style-name='Title'] => h1:fresh", "p[style-name='제목'] => h1:fresh", "p[style-name='Subtitle'] => p:fresh"]
    + [f"p[style-name='제목 {level}'] => h{level}:fresh" for level in range(1, 7)]
)


def parse_docx(office: Office) -> Parsed:
    """Return a Word document's text."""
    visible, left_out = _without_hidden(office)
    # mammoth would fetch external pictures, so all pictures are dropped.
    no_images = mammoth.images.img_element(lambda _: {})
    html = mammoth.convert_to_html(visible.repack(), style_map=_STYLES, convert_image=no_images).value
    markdown = to_text(BeautifulSoup(html, "lxml"))
    return one_page(Format.DOCX, markdown, office.title or first_heading(markdown), +left_out)


def _without_hidden(office: Office) -> tuple[Office, Counter[LeftOut]]:
    """Return the document without its hidden text, rewritten for mammoth, and the number of hidden pieces."""
    all_roots = ((name, _root(office, name)) for name in office.parts)
    roots = {name: as_transitional(root) for name, root in all_roots if local_name(root) in _ROOTS}
    main = next(iter(office.links("", "/officeDocument").values()), "word/document.xml")
    style_parts = [*office.links(main, "/styles").values(), "word/styles.xml"]
    styles = next((Styles.of(roots[name]) for name in style_parts if name in roots), Styles())
    parts, left_out = dict(office.parts), Counter[LeftOut]()
    for name, root in roots.items():
        if local_name(root) == "styles":
            for element in (root, *root):
                element[:] = [child for child in element if local_name(child) not in _APPEARANCE]
        else:
            left_out[LeftOut.ELEMENT] += remove_hidden_drawings(root)
            normalise_for_mammoth(root)
            left_out += remove_hidden(root, styles)
        parts[name] = ElementTree.tostring(root, "utf-8")
    return replace(office, parts=parts), left_out


def _root(office: Office, name: str) -> Element:
    try:
        return office.root(name)
    except ElementTree.ParseError:  # mammoth reports a damaged part if it needs it
        return Element("damaged")
