"""Pictures of PDF and image pages, for reviewers."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pypdfium2

from ingest.parsing.image import image_format, preview_image
from ingest.parsing.parsed import Reason, Unreadable
from ingest.parsing.pdf import is_pdf, open_pdf
from ingest.parsing.pdf_letters import has_undrawable_letters

LONGEST_SIDE = 1600  # pixels: 8 pt text on an A4 page is legible


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePreview:
    """A page's picture and the number of pages; `picture` is None if the file has no such page.

    `is_incomplete`: the picture lacks letters whose font is neither embedded nor installed.
    """

    pages: int
    picture: bytes | None = None  # PNG
    is_incomplete: bool = False


def preview_page(path: Path, number: int) -> PagePreview:
    """Render a page, counted from 1, of a PDF or image; raise Unreadable for other formats."""
    with path.open("rb") as file:
        head = file.read(1024)
    if image_format(head):
        count, picture = preview_image(path, number, LONGEST_SIDE)
        return PagePreview(pages=count, picture=picture)
    if not is_pdf(head):
        raise Unreadable(Reason.UNKNOWN_TYPE, "only pages of PDFs and images are drawn: download the original")
    document = open_pdf(path)
    try:
        if not 1 <= number <= len(document):
            return PagePreview(pages=len(document))
        page = document[number - 1]
        scale = min(LONGEST_SIDE / max(*page.get_size(), 1.0), 4.0)  # pixels per point
        png = BytesIO()
        page.render(scale=scale).to_pil().save(png, "PNG")
        return PagePreview(pages=len(document), picture=png.getvalue(), is_incomplete=has_undrawable_letters(page))
    except pypdfium2.PdfiumError as exc:
        raise Unreadable(Reason.MALFORMED, "a page of the PDF is damaged") from exc
    finally:
        document.close()
