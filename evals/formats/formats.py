"""Report for each file of a folder whether it is read, or refused with the expected reason, and how long that takes.

    python -m evals.formats.formats FOLDER

Each file is read by the product's parser process with its default limits, and the outcome is compared with
`evals/formats/formats.yaml`; an unlisted file may be read or refused, but must not crash or take too long. Prints a
table by folder and format, without the files' content; exits with code 1 if an outcome is unexpected.
"""

import time
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import anyio
import typer
import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.progress import track

from ingest.parsing import ParserSettings, Unreadable, open_parser

EXPECTED = Path(__file__).with_name("formats.yaml")
REFUSAL_SECONDS = 30.0
READ = "read"


class Expectation(BaseModel, frozen=True, extra="forbid"):
    """The expected outcome of files that match a pattern: "read" or refusal reasons, with an explanation."""

    files: str
    outcome: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """The outcome of one file, and the number of letters and digits read."""

    name: str
    outcome: str
    detail: str
    format: str
    pages: int
    letters: int
    seconds: float

    def deviations(self, expected: Expectation | None) -> Iterator[str]:
        """Yield each deviation from the expected outcome."""
        if expected is not None and self.outcome not in expected.outcome:
            yield f"{self.outcome} ({self.detail}), not {' or '.join(expected.outcome)}"
        if self.outcome != READ and self.seconds > REFUSAL_SECONDS:
            yield f"refused only after {self.seconds:.0f} s"


def read_expected(path: Path) -> list[Expectation]:
    """Return the expectations in file order; the first matching pattern applies."""
    return [Expectation.model_validate(entry) for entry in yaml.safe_load(path.read_text("utf-8"))]


def expectation_of(name: str, expected: Sequence[Expectation]) -> Expectation | None:
    """Return the first expectation that matches a file's name."""
    return next((expectation for expectation in expected if fnmatch(name, expectation.files)), None)


async def report_files(folder: Path, files: Sequence[Path], console: Console) -> list[FileReport]:
    """Read the files one by one, and return a report of each."""
    async with open_parser(ParserSettings()) as parser:
        reports = []
        for path in track(files, console=console, transient=True):
            parsed = None
            outcome, detail = READ, ""
            began = time.monotonic()
            try:
                parsed = await parser.parse(path)
            except Unreadable as exc:
                outcome, detail = str(exc.reason), exc.detail
            pages = parsed.pages if parsed else ()
            report = FileReport(
                name=unicodedata.normalize("NFC", str(path.relative_to(folder))),
                outcome=outcome,
                detail=detail,
                format=str(parsed.format) if parsed else path.suffix.lower()[1:],
                pages=len(pages),
                letters=sum(map(str.isalnum, "".join(page.markdown for page in pages))),
                seconds=time.monotonic() - began,
            )
            reports.append(report)
    return reports


def table(reports: Sequence[FileReport]) -> str:
    """Return the report by folder and format as a Markdown table, without the files' content."""
    lines = [
        "| folder | format | files | read | refused | letters, fewest in a file | slowest s (s a page) |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[FileReport]] = {}
    for report in reports:
        groups.setdefault((str(Path(report.name).parent), report.format), []).append(report)
    lines += [_row(folder, kind, group) for (folder, kind), group in sorted(groups.items())]
    return "\n".join(lines)


def _row(folder: str, kind: str, group: Sequence[FileReport]) -> str:
    refused = Counter(report.outcome for report in group if report.outcome != READ)
    letters = [report.letters for report in group if report.outcome == READ]
    cells = (
        folder,
        kind,
        len(group),
        len(letters),
        ", ".join(f"{reason} {count}" for reason, count in sorted(refused.items())),
        f"{sum(letters)}, {min(letters)}" if letters else "",
        f"{max(report.seconds for report in group):.1f} "
        f"({max(report.seconds / max(1, report.pages) for report in group):.1f})",
    )
    return f"| {' | '.join(map(str, cells))} |"


def main(
    folder: Annotated[Path, typer.Argument(help="A folder of documents, subfolders included.")],
    expected: Annotated[Path, typer.Option(help="The expected outcome of each file.")] = EXPECTED,
) -> None:
    """Print the table and the files with an unexpected outcome."""
    console = Console(soft_wrap=True, highlight=False)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".tsv"]
    reports = anyio.run(report_files, folder, files, Console(stderr=True))
    console.print(table(reports), markup=False)
    expectations = read_expected(expected)
    unexpected = 0
    for report in reports:
        deviations = list(report.deviations(expectation_of(report.name, expectations)))
        if deviations:
            unexpected += 1
            console.print(f"WRONG {report.name}: {'; '.join(deviations)}", markup=False)
    read = sum(report.outcome == READ for report in reports)
    console.print(f"{len(reports)} files, {read} read, {len(reports) - read} refused, {unexpected} not as expected")
    raise typer.Exit(1 if unexpected or not reports else 0)


if __name__ == "__main__":
    typer.run(main)
