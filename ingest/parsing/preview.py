"""Previews of a page for reviewers: a picture where the format has pages to draw, else the text that was read."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pypdfium2

from ingest.parsing.image import image_format, preview_image
from ingest.parsing.parsed import OnPage, Reason, Unreadable
from ingest.parsing.pdf import is_pdf, open_pdf
from ingest.parsing.pdf_letters import has_undrawable_letters
from ingest.parsing.read import read_document

LONGEST_SIDE = 1600  # dots: letters of 8 points on an A4 page can be read
MOST_CHARACTERS = 200_000  # of a page's text; a document without pages is one


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePreview:
    """A page and the number of pages; with neither picture nor text the file has no such page.

    `is_incomplete`: the picture lacks letters whose font is neither embedded in the file nor installed.
    """

    pages: int
    picture: bytes | None = None  # PNG
    text: str | None = None
    is_incomplete: bool = False


def preview_page(path: Path, number: int, on_page: OnPage) -> PagePreview:
    """Return a preview of a page, counted from 1.

    Raises:
        Unreadable: with the reason.
    """
    with path.open("rb") as file:
        head = file.read(1024)
    if is_pdf(head):
        return _drawn(path, number)
    if image_format(head):
        count, picture = preview_image(path, number, LONGEST_SIDE)
        return PagePreview(pages=count, picture=picture)
    pages = read_document(path, on_page).pages
    numbered = {page.number or at: page.markdown for at, page in enumerate(pages, start=1)}
    text = numbered.get(number)
    return PagePreview(pages=max(numbered), text=None if text is None else text[:MOST_CHARACTERS])


def _drawn(path: Path, number: int) -> PagePreview:
    document = open_pdf(path)
    try:
        if not 1 <= number <= len(document):
            return PagePreview(pages=len(document))
        page = document[number - 1]
        return PagePreview(pages=len(document), picture=_png(page), is_incomplete=has_undrawable_letters(page))
    except pypdfium2.PdfiumError as exc:
        raise Unreadable(Reason.MALFORMED, "a page of the PDF is damaged") from exc
    finally:
        document.close()


def _png(page: pypdfium2.PdfPage) -> bytes:
    bitmap = page.render(scale=min(LONGEST_SIDE / max(*page.get_size(), 1.0), 4.0))
    try:
        png = BytesIO()
        bitmap.to_pil().save(png, "PNG")
        return png.getvalue()
    finally:
        bitmap.close()
