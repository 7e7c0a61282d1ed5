"""Recognise the characters of page pictures (Korean, English) with tesseract, a child process with its own limits.

Input and output go through pipes: pytesseract would use temporary files, which the sandbox forbids.
"""

import csv
import resource
import shutil
import subprocess
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from statistics import median

from ingest.parsing.parsed import Reason, Unreadable
from ingest.parsing.pdf_layout import Line

# Measured share of recognised letters (and words) on pages of Korean bank documents: kor .99 to 1.00 (.93 to .98),
# kor+eng .96 to .99 (.89 to .96). Share of recognised letters on pages in Latin script: kor .02, kor+eng .99.
LANGUAGES = {"Korean": "kor", "Hangul": "kor", "Han": "kor", "Japanese": "kor"}
OTHER_LANGUAGES = "kor+eng"
INSTALL = "install it (Debian, Ubuntu: apt-get install tesseract-ocr tesseract-ocr-kor)"
# One column of text of varied sizes. Automatic layout (1, 3) treats ruled tables as pictures and loses half a page.
LAYOUT = "4"
DPI = 300
ORIENTATION_DPI = 150  # enough to detect the orientation
MOST_PIXELS = 9_000_000  # an A4 page at 300 dpi
CPU_SECONDS = 28  # a page takes 1 to 5 s
MEMORY_BYTES = 512 * 1024 * 1024
LEAST_CONFIDENCE = 30.0  # of 100: "words" with less are often parts of pictures
MOST_BLANK = 100  # characters between two words
LEAST_TURN_CONFIDENCE = 2.0  # tesseract's confidence in an orientation; correct ones score 7 to 40
HEADING = 1.5  # times the page's median line height

_FIELDS = ("level", "page", "block", "par", "line", "word", "left", "top", "width", "height", "confidence", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A page as a portable pixmap (P6), its resolution in dpi and its height in pixels."""

    pixmap: bytes
    dpi: float
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Word:
    """A recognised word; its box is in pixels from the top left corner."""

    line: tuple[int, int, int]
    left: int
    top: int
    right: int
    bottom: int
    confidence: float
    follows_space: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOrientation:
    """The clockwise rotation in degrees that makes a page upright, and the tesseract languages for its script."""

    turn: int
    languages: str


def detect_orientation(picture: Picture) -> PageOrientation:
    """Detect a page's orientation and script; upright if it has too little text."""
    output = _tesseract(picture, "--psm", "0")
    fields = dict(line.split(": ", 1) for line in output.splitlines() if ": " in line)
    languages = LANGUAGES.get(fields.get("Script", ""), OTHER_LANGUAGES)
    is_confident = float(fields.get("Orientation confidence", "0")) >= LEAST_TURN_CONFIDENCE
    return PageOrientation(turn=int(fields.get("Rotate", "0")) if is_confident else 0, languages=languages)


def recognise(picture: Picture, languages: str, *, seconds: int = CPU_SECONDS) -> list[Line]:
    """Return the lines of an upright picture in order; boxes and heights are in points, as in a PDF."""
    output = _tesseract(picture, "-l", languages, "--psm", LAYOUT, "tsv", "txt", seconds=seconds)
    return _lines(list(_words(output)), picture)


def _tesseract(picture: Picture, *options: str, seconds: int = CPU_SECONDS) -> str:
    """Return tesseract's output for a picture; "" if it can't read the picture."""
    program = shutil.which("tesseract")
    if program is None:
        raise Unreadable(
            Reason.EMPTY_TEXT, f"it has pages that are pictures, and tesseract is not installed: {INSTALL}"
        )
    command = [program, "stdin", "stdout", "--dpi", f"{picture.dpi:.0f}", *options]
    with _memory_lent_to_child():
        result = subprocess.run(  # noqa: S603  the program is found on PATH, the arguments are ours
            command,
            input=picture.pixmap,
            capture_output=True,
            check=False,
            env={"OMP_THREAD_LIMIT": "1", "LC_ALL": "C.UTF-8"},
            preexec_fn=partial(_limit, seconds),  # safe: the forking process has one thread
        )
    if result.returncode < 0:
        raise Unreadable(Reason.TOO_SLOW, "recognising the characters of a page took too much time or memory")
    # With several languages, tesseract continues without the missing one.
    if b"Failed loading language" in result.stderr:
        raise Unreadable(
            Reason.EMPTY_TEXT, f"it has pages that are pictures, and tesseract lacks a language: {INSTALL}"
        )
    return result.stdout.decode("utf-8", "replace") if result.returncode == 0 else ""


@contextmanager
def _memory_lent_to_child() -> Generator[None]:
    """Lower this process's memory limit by the child's, so that both together stay within it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (soft - MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _limit(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _words(output: str) -> Iterator[_Word]:
    """Yield the words of tesseract's output, which is a TSV followed by the plain text.

    In Korean the TSV has one row per syllable, and each syllable is yielded as a word. Only the plain text shows which
    words follow a space.
    """
    lines = output.split("\n")
    row_count = next((i for i, line in enumerate(lines) if line.count("\t") != len(_FIELDS) - 1), len(lines))
    text = "\n".join(lines[row_count:])
    end = 0  # of the previous word in the plain text
    for row in csv.DictReader(lines[:row_count], fieldnames=_FIELDS, delimiter="\t", quoting=csv.QUOTE_NONE):
        word = row["text"].strip()
        if row["level"] != "5" or not word:
            continue
        following = text[end : end + MOST_BLANK]
        start = end + len(following) - len(following.lstrip())
        is_in_text = text.startswith(word, start)
        left, top = int(row["left"]), int(row["top"])
        yield _Word(
            line=(int(row["block"]), int(row["par"]), int(row["line"])),
            left=left,
            top=top,
            right=left + int(row["width"]),
            bottom=top + int(row["height"]),
            confidence=float(row["confidence"]),
            text=word,
            follows_space=start > end or not is_in_text,
        )
        end = start + len(word) if is_in_text else end


def _lines(words: Sequence[_Word], picture: Picture) -> list[Line]:
    confident = [word for word in words if word.confidence >= LEAST_CONFIDENCE]
    if not confident:
        return []
    usual_height = median(word.bottom - word.top for word in confident)
    by_line = groupby(confident, key=lambda word: word.line)
    return [_line(list(line_words), usual_height, picture) for _, line_words in by_line]


def _line(words: Sequence[_Word], usual_height: float, picture: Picture) -> Line:
    points = 72 / picture.dpi  # points per pixel
    height = median(word.bottom - word.top for word in words)
    # Letters with and without tails differ in height, so only a much taller line is a heading.
    size = height if height >= HEADING * usual_height else usual_height
    return Line(
        text="".join(f" {word.text}" if word.follows_space else word.text for word in words).strip(),
        size_step=round(size * points * 2) / 2,
        left=min(word.left for word in words) * points,
        bottom=(picture.height - max(word.bottom for word in words)) * points,
        right=max(word.right for word in words) * points,
        top=(picture.height - min(word.top for word in words)) * points,
    )
