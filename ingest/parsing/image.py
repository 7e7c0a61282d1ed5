"""PNG, JPEG and TIFF to Markdown by character recognition, like a scanned page."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image

from ingest.parsing.ocr import DPI, MOST_PIXELS, ORIENTATION_DPI, Picture, detect_orientation, recognise
from ingest.parsing.parsed import MOST_PAGES, Format, OnPage, Reason, Unreadable
from ingest.parsing.pdf_layout import Line

MOST_DECODED = 50_000_000  # pixels: an A3 page at 600 dpi
MOST_ENLARGED = 2.0  # times, at most to a page at 300 dpi
SIDE_FOR_ORIENTATION = 1754  # pixels: an A4 page at 150 dpi
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": Format.PNG, b"\xff\xd8\xff": Format.JPEG, b"II*\x00": Format.TIFF, b"MM\x00*": Format.TIFF,
}  # fmt: skip


def image_format(head: bytes) -> Format | None:
    """Return an image's format from the first bytes of its file; None for other files."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def lines_of_image(path: Path, on_page: OnPage) -> Iterator[list[Line]]:
    """Yield the recognised lines of each image in a file (a TIFF may have several)."""
    with _opened(path) as image:
        for number in range(_page_count(image)):
            on_page()
            yield _lines(_page(image, number))


def preview_image(path: Path, number: int, longest_side: int) -> tuple[int, bytes | None]:
    """Return the number of images in a file and image `number` as a PNG, or None if it doesn't exist."""
    with _opened(path) as image:
        count = _page_count(image)
        if not 1 <= number <= count:
            return count, None
        page = _page(image, number - 1)
        page.thumbnail((longest_side, longest_side))
        png = BytesIO()
        page.save(png, "PNG")
        return count, png.getvalue()


def _page_count(image: Image.Image) -> int:
    """Return the number of images in a file; raise Unreadable above MOST_PAGES."""
    count = int(getattr(image, "n_frames", 1)) if image.format == "TIFF" else 1
    if count > MOST_PAGES:
        raise Unreadable(Reason.TOO_LARGE, f"more than {MOST_PAGES} pages")
    return count


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
            yield image
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as exc:
        raise Unreadable(Reason.MALFORMED, "the picture is damaged") from exc


def _page(image: Image.Image, number: int) -> Image.Image:
    """Return one image of a file on a white background."""
    image.seek(number)
    if image.width * image.height > MOST_DECODED:
        raise Unreadable(Reason.TOO_LARGE, f"a picture of more than {MOST_DECODED // 1_000_000} million dots")
    if not image.has_transparency_data:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    page = Image.new("RGBA", transparent.size, "white")
    page.alpha_composite(transparent)
    return page.convert("RGB")


def _lines(image: Image.Image) -> list[Line]:
    """Recognise the lines of an image in any orientation."""
    small = image.copy()
    small.thumbnail((SIDE_FOR_ORIENTATION, SIDE_FOR_ORIENTATION))
    orientation = detect_orientation(_picture(small, ORIENTATION_DPI))
    scale = min((MOST_PIXELS / (image.width * image.height)) ** 0.5, MOST_ENLARGED)
    scaled = image.resize((max(int(image.width * scale), 1), max(int(image.height * scale), 1)))
    return recognise(_picture(scaled.rotate(-orientation.turn, expand=True), DPI), orientation.languages)


def _picture(image: Image.Image, dpi: int) -> Picture:
    pixmap = b"P6 %d %d 255\n" % image.size + image.tobytes()
    return Picture(pixmap=pixmap, dpi=dpi, height=image.height)
