"""Pictures of the pages of PDFs and images, for reviewers."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pypdfium2

from ingest.parsing.image import image_format, preview_image
from ingest.parsing.parsed import Reason, Unreadable
from ingest.parsing.pdf import is_pdf, open_pdf
from ingest.parsing.pdf_letters import has_undrawable_letters

LONGEST_SIDE = 1600  # dots: letters of 8 points on an A4 page can be read


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePreview:
    """The picture of a page and the number of pages; without a picture the file has no such page.

    `is_incomplete`: the picture lacks letters whose font is neither embedded in the file nor installed.
    """

    pages: int
    picture: bytes | None = None  # PNG
    is_incomplete: bool = False


def preview_page(path: Path, number: int) -> PagePreview:
    """Return the picture of a page, counted from 1."""
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
        scale = min(LONGEST_SIDE / max(*page.get_size(), 1.0), 4.0)
        page.render(scale=scale).to_pil().save(png := BytesIO(), "PNG")
        return PagePreview(pages=len(document), picture=png.getvalue(), is_incomplete=has_undrawable_letters(page))
    except pypdfium2.PdfiumError as exc:
        raise Unreadable(Reason.MALFORMED, "a page of the PDF is damaged") from exc
    finally:
        document.close()
