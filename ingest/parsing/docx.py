"""DOCX to Markdown by way of HTML (mammoth): headings, lists and tables survive; a DOCX has no pages until printed.

mammoth and markdownify instead of markitdown, because markitdown brings onnxruntime along for the same two calls.
"""

import zipfile
from dataclasses import replace
from xml.etree.ElementTree import ParseError
from xml.parsers.expat import ExpatError

import mammoth
from bs4 import BeautifulSoup

from ingest.parsing.archive import Office
from ingest.parsing.docx_unseen import letter_styles, without_unseen_runs
from ingest.parsing.html import to_text
from ingest.parsing.markdown import first_heading
from ingest.parsing.parsed import Format, Page, Parsed, Reason, Unreadable

_STYLES = "\n".join(
    ["p[style-name='Title'] => h1:fresh", "p[style-name='제목'] => h1:fresh", "p[style-name='Subtitle'] => p:fresh"]
    + [f"p[style-name='제목 {level}'] => h{level}:fresh" for level in range(1, 7)]
)


def parse_docx(office: Office) -> Parsed:
    """Return a Word document's text.

    Raises:
        Unreadable: malformed.
    """
    try:
        # mammoth would fetch external pictures; without pictures there is nothing to fetch.
        html = mammoth.convert_to_html(
            _seen(office).packed_again(), style_map=_STYLES, convert_image=mammoth.images.img_element(_no_image)
        ).value
    except (zipfile.BadZipFile, ExpatError, ParseError, KeyError, ValueError, AttributeError, OSError) as exc:
        raise Unreadable(Reason.MALFORMED, "the document inside the archive is damaged") from exc
    markdown = to_text(BeautifulSoup(html, "lxml"))
    return Parsed(
        format=Format.DOCX,
        title=office.title or first_heading(markdown),
        pages=(Page(number=None, markdown=markdown),),
    )


def _seen(office: Office) -> Office:
    """Return the document without the text that Word does not show."""
    styles = letter_styles(office.parts["word/styles.xml"]) if "word/styles.xml" in office.parts else {}
    parts = {
        name: without_unseen_runs(part, styles)
        if name.startswith("word/") and b"<w:r" in part and name != "word/styles.xml"
        else part
        for name, part in office.parts.items()
    }
    return replace(office, parts=parts)


def _no_image(_image: object) -> dict[str, str]:
    return {}
