"""The result of a parser, and the closed set of reasons why a file cannot be read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Format(StrEnum):
    """The format of a file, judged by its bytes."""

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
    """Why a file is refused; staff read it, metrics are labelled with it."""

    EMPTY_TEXT = "empty_text"  # no text was found: a blank file, a picture without text
    UNREADABLE_TEXT = "unreadable_text"  # the text is stored as symbols that no font maps to characters
    UNKNOWN_TYPE = "unknown_type"
    ENCRYPTED = "encrypted"
    PROTECTED = "protected"  # a distribution copy (배포용 HWP), which shows its text to one program only
    MALFORMED = "malformed"
    HOSTILE = "hostile"  # macros, document type declarations, archives that unpack to more than they say
    TOO_LARGE = "too_large"  # bytes, pages, or the memory that reading takes
    TOO_SLOW = "too_slow"
    NOT_INDEXED = "not_indexed"  # the index does not hold or find the passages that were written


class LeftOut(StrEnum):
    """A kind of text that the file itself marks as hidden; it is left out and counted, and its approver sees how much.

    Rows, columns and elements count where they have text.
    """

    TEXT = "hidden_text"  # paragraphs, and cells that a number format hides
    DELETED = "deleted_revision"
    ROW = "hidden_row"
    COLUMN = "hidden_column"
    SHEET = "hidden_sheet"
    SLIDE = "hidden_slide"
    ELEMENT = "hidden_element"
    INVISIBLE = "invisible_text"  # letters that a PDF draws in no colour, such as those below a scan
    OFF_PAGE = "text_off_page"
    TINY = "tiny_text"  # under 1.5 points
    COMMENT = "comment"
    NOTES = "speaker_notes"


class Unreadable(Exception):
    """A file that cannot become passages: the reason, and a sentence for its uploader. Each reader raises it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


MOST_CHARACTERS = 10_000_000  # of a document: ten long novels
MOST_PAGES = 2000
OnPage = Callable[[], None]
"""Called before each page that may take a page's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The text of a page, slide or sheet as Markdown; `number` counts from 1, None where a format has no pages."""

    number: int | None
    markdown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A document's text with its headings, tables and pages kept, and the number of left-out pieces of each kind."""

    format: Format
    title: str | None
    pages: tuple[Page, ...]
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)

    @property
    def characters(self) -> int:
        """The length of the text in code points."""
        return sum(len(page.markdown) for page in self.pages)


def one_page(kind: Format, markdown: str, title: str | None, left_out: Mapping[LeftOut, int] | None = None) -> Parsed:
    """Return a document of a format without pages."""
    return Parsed(format=kind, title=title, pages=(Page(number=None, markdown=markdown),), left_out=left_out or {})
