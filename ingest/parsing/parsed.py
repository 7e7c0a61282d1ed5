"""The result of a parser, and the reasons why a file cannot be read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Format(StrEnum):
    """A file's format, detected from its content."""

    MARKDOWN = "markdown"
    TEXT = "text"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"
    XLSX = "xlsx"
    PPTX = "pptx"
    CSV = "csv"
    EML = "eml"
    HWP = "hwp"
    HWPX = "hwpx"
    PNG = "png"
    JPEG = "jpeg"
    TIFF = "tiff"


class Reason(StrEnum):
    """Why a file is refused; shown to staff and used as a metric label."""

    EMPTY_TEXT = "empty_text"  # a blank file, or a picture without text
    UNREADABLE_TEXT = "unreadable_text"  # the text is stored as symbols that no font maps to characters
    UNKNOWN_TYPE = "unknown_type"
    ENCRYPTED = "encrypted"
    PROTECTED = "protected"  # a distribution copy (배포용 HWP), readable only by Hancom's viewer
    MALFORMED = "malformed"
    HOSTILE = "hostile"  # macros, document type declarations, archives that unpack to more than they declare
    TOO_LARGE = "too_large"  # bytes, pages, or the memory to read it
    TOO_SLOW = "too_slow"
    NOT_INDEXED = "not_indexed"  # the index doesn't contain or find the written passages


class LeftOut(StrEnum):
    """A kind of text that the file marks as hidden; it is left out, and the approver sees the count.

    Rows, columns and elements are counted only if they have text.
    """

    TEXT = "hidden_text"  # paragraphs, and cells hidden by their number format
    DELETED = "deleted_revision"
    ROW = "hidden_row"
    COLUMN = "hidden_column"
    SHEET = "hidden_sheet"
    SLIDE = "hidden_slide"
    ELEMENT = "hidden_element"
    INVISIBLE = "invisible_text"  # letters that a PDF draws without colour, such as those below a scan
    OFF_PAGE = "text_off_page"
    TINY = "tiny_text"  # under 1.5 points
    COMMENT = "comment"
    NOTES = "speaker_notes"


class Unreadable(Exception):
    """A file that cannot be turned into passages: the reason, and a message for its uploader."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


MOST_CHARACTERS = 10_000_000  # per document: ten long novels
MOST_PAGES = 2000
OnPage = Callable[[], None]
"""Callback before each page that gets its own time limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The text of a page, slide or sheet as Markdown; `number` counts from 1, or is None if the format has no pages."""

    number: int | None
    markdown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A document's text with headings, tables and pages, and the number of left-out pieces by kind."""

    format: Format
    title: str | None
    pages: tuple[Page, ...]
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)

    @property
    def characters(self) -> int:
        """Length of the text in code points."""
        return sum(len(page.markdown) for page in self.pages)


def one_page(kind: Format, markdown: str, title: str | None, left_out: Mapping[LeftOut, int] | None = None) -> Parsed:
    """Return a document in a format without pages."""
    return Parsed(format=kind, title=title, pages=(Page(number=None, markdown=markdown),), left_out=left_out or {})
