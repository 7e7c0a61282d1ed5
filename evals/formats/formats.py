"""Reports for every file of a folder whether it is read in full, or refused with the expected reason, time and memory.

    python -m evals.formats FOLDER

Each file goes through the product's own parser process with its default limits. The text that it reads is compared with
another parser's (`evals/formats/other_parsers.py`): the shares of that parser's letters and digits, and of its figures
("2.35", "1,000,000"), that ours has too, as multisets. The reason of a refusal is compared with that of
`evals/formats/formats.yaml`; a file that it does not list may be read or refused, but must not crash, take long or use
much memory.

Prints a table by folder and format, no content; exits with 1 where a file has another outcome than expected.
"""

import logging
import os
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Final

import anyio
import typer
import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.progress import track

from evals.formats.other_parsers import other_text
from evals.formats.peak_memory import watch_peak_memory
from ingest.parsing import Parsed, ParserSettings, Unreadable, open_parser

EXPECTED = Path(__file__).with_name("formats.yaml")
LEAST_SHARE = 0.95
REFUSAL_SECONDS = 30.0
MOST_MEMORY = 1024**3
"""Bytes."""
READ = "read"
_FIGURE: Final = re.compile(r"\d+(?:[.,]\d+)*")


class Expectation(BaseModel, frozen=True, extra="forbid"):
    """The expected outcome of the files that a pattern matches: "read" or reasons of refusal, with an explanation.

    A `least_share` of 0 accepts a file in which the other parser finds nothing: its text is not verified.
    """

    files: str
    outcome: tuple[str, ...]
    why: str
    least_share: float = LEAST_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How many letters and digits, and how many figures, another parser found in a file, and ours has too."""

    letters: int = 0
    letters_found: int = 0
    figures: int = 0
    figures_found: int = 0

    @property
    def share(self) -> float | None:
        """The share of the letters and digits; None where the other parser found none."""
        return self.letters_found / self.letters if self.letters else None

    @property
    def figures_missing(self) -> int:
        """How many figures ours lacks."""
        return self.figures - self.figures_found


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """The outcome of one file; nothing is compared where it was refused."""

    name: str
    outcome: str
    detail: str
    format: str
    pages: int
    seconds: float
    memory: int
    """Peak of the parser process in bytes."""
    compared: Comparison
    wrong: str
    """Why the outcome is not the expected one; empty where it is."""


def read_expected(path: Path) -> list[Expectation]:
    """Return the expectations in the order of the file: the first matching pattern applies."""
    return [Expectation.model_validate(entry) for entry in yaml.safe_load(path.read_text("utf-8"))]


def compare(ours: str, other: str) -> Comparison:
    """Compare our text of a file with another parser's."""
    ours, other = (unicodedata.normalize("NFKC", text).casefold() for text in (ours, other))
    letters, figures = Counter(filter(str.isalnum, other)), Counter(_FIGURE.findall(other))
    return Comparison(
        letters=letters.total(),
        letters_found=(letters & Counter(ours)).total(),
        figures=figures.total(),
        figures_found=(figures & Counter(_FIGURE.findall(ours))).total(),
    )


async def report_file(path: Path, name: str, expected: Expectation | None) -> FileReport:
    """Read a file in a parser process of its own, so that the measured memory is this file's."""
    parsed, reason, detail = None, READ, ""
    async with open_parser(ParserSettings()) as parser:
        with watch_peak_memory(await parser.start()) as peak:
            began = time.monotonic()
            try:
                parsed = await parser.parse(path)
            except Unreadable as exc:
                reason, detail = str(exc.reason), exc.detail
            seconds = time.monotonic() - began
    compared = await anyio.to_thread.run_sync(_compared, path, parsed) if parsed else Comparison()
    pages = max(len(parsed.pages), 1) if parsed else 1
    report = FileReport(
        name=name, outcome=reason, detail=detail, format=str(parsed.format) if parsed else path.suffix.lower()[1:],
        pages=pages, seconds=seconds, memory=peak.bytes, compared=compared, wrong="",
    )  # fmt: skip
    return replace(report, wrong="; ".join(_deviations(report, expected)))


def _compared(path: Path, parsed: Parsed) -> Comparison:
    ours = "\n".join([parsed.title or "", *(page.markdown for page in parsed.pages)])
    return compare(ours, other_text(path, parsed.format))


def _deviations(report: FileReport, expected: Expectation | None) -> Iterator[str]:
    if expected is not None and report.outcome not in expected.outcome:
        yield f"{report.outcome} ({report.detail}), not {' or '.join(expected.outcome)}"
    least = expected.least_share if expected else LEAST_SHARE
    share = report.compared.share
    if report.outcome == READ and share is None and least > 0:
        yield "read, but the other parser finds nothing to compare with"
    if share is not None and share < least:
        yield f"{share:.1%} of the other parser's characters, not {least:.0%}"
    if report.memory > MOST_MEMORY:
        yield f"{report.memory / 2**20:.0f} MiB"
    if report.outcome != READ and report.seconds > REFUSAL_SECONDS:
        yield f"refused only after {report.seconds:.0f} s"


def table(reports: Sequence[FileReport]) -> str:
    """Return the report by folder and format as a Markdown table without content."""
    lines = [
        "| folder | format | files | read | refused | share of the other parser's characters: all, lowest file |"
        " figures that are missing | slowest s (s a page) | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[FileReport]] = {}
    for report in reports:
        groups.setdefault((str(Path(report.name).parent), report.format), []).append(report)
    lines += [_row(folder, kind, group) for (folder, kind), group in sorted(groups.items())]
    return "\n".join(lines)


def _row(folder: str, kind: str, group: Sequence[FileReport]) -> str:
    refused = Counter(report.outcome for report in group if report.outcome != READ)
    compared = [report.compared for report in group]
    shares = [each.share for each in compared if each.share is not None]
    letters, found = sum(each.letters for each in compared), sum(each.letters_found for each in compared)
    figures, missing = sum(each.figures for each in compared), sum(each.figures_missing for each in compared)
    slowest = max(group, key=lambda report: report.seconds)
    cells = (
        folder, kind, len(group), sum(report.outcome == READ for report in group),
        ", ".join(f"{reason} {count}" for reason, count in sorted(refused.items())),
        f"{found / letters:.1%}, {min(shares):.1%}" if letters else "", f"{missing} of {figures}" if figures else "",
        f"{slowest.seconds:.1f} ({max(report.seconds / report.pages for report in group):.1f})",
        f"{max(report.memory for report in group) / 2**20:.0f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


async def report_files(
    folder: Path, files: Sequence[Path], expected: Sequence[Expectation], console: Console
) -> list[FileReport]:
    """Read the files, one after the other."""
    reports = []
    for path in track(files, console=console, transient=True):
        name = unicodedata.normalize("NFC", str(path.relative_to(folder)))
        matching = next((expectation for expectation in expected if fnmatch(name, expectation.files)), None)
        reports.append(await report_file(path, name, matching))
    return reports


def main(
    folder: Annotated[Path, typer.Argument(help="A folder of documents; those below it are read too.")],
    expected: Annotated[Path, typer.Option(help="What each file must come to.")] = EXPECTED,
    every: Annotated[bool, typer.Option("--every", help="Print a line for every file.")] = False,  # noqa: FBT002
) -> None:
    """Print the table and the files with an unexpected outcome."""
    console = Console(soft_wrap=True, highlight=False)
    logging.disable(logging.CRITICAL)  # other parsers warn with pieces of the content
    os.environ["OMP_THREAD_LIMIT"] = "1"  # noqa: TID251  the edge: pytesseract passes it on, two threads wait for each other
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".tsv"]
    reports = anyio.run(report_files, folder, files, read_expected(expected), Console(stderr=True))
    for report in reports if every else ():
        compared = report.compared
        share = "" if compared.share is None else f" {compared.share:.1%} of {compared.letters}"
        missing = (
            f", {compared.figures_missing} of {compared.figures} figures missing" if compared.figures_missing else ""
        )
        console.print(f"{report.name}: {report.outcome}{share}{missing}, {report.seconds:.1f} s", markup=False)
    console.print(table(reports), markup=False)
    wrong = [report for report in reports if report.wrong]
    for report in wrong:
        console.print(f"WRONG {report.name}: {report.wrong}", markup=False)
    read = sum(report.outcome == READ for report in reports)
    console.print(f"{len(reports)} files, {read} read, {len(reports) - read} refused, {len(wrong)} not as expected")
    raise typer.Exit(1 if wrong or not reports else 0)
