"""What becomes of every file of a folder: read in full, or refused with the right reason, in time and within memory.

    python -m evals.formats FOLDER

Each file goes through the product's own parser process (its limits are the defaults). What was read is compared with
another parser's text (`evals/formats/other_parsers.py`): the share of that parser's letters and digits that ours has
too, each counted as often as it stands there. What was refused is compared with the reason that
`evals/formats/formats.yaml` expects; a file that it does not know may be read or refused, but never crash, and never be
slow or large.

Prints a table by folder and format, no content; exits with 1 where a file ended otherwise than expected.
"""

import logging
import os
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

from evals.formats.other_parsers import other_text
from evals.formats.peak_memory import watched
from ingest.parsing import Parsed, ParserSettings, Unreadable, open_parser

EXPECTED = Path(__file__).with_name("formats.yaml")
LEAST_SHARE = 0.95
REFUSED_WITHIN = 30.0
MOST_MEMORY = 1024**3
READ = "read"


class Expected(BaseModel, frozen=True, extra="forbid"):
    """What the files that a pattern matches must come to: "read", or one of some reasons; and why.

    A `least_share` of 0 lets a file through of which the other parser finds nothing: nobody has checked what was read.
    """

    files: str
    outcome: tuple[str, ...]
    why: str
    least_share: float = LEAST_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of a file; `share` is None where it was refused or the other parser found nothing."""

    name: str
    outcome: str
    detail: str
    format: str
    pages: int
    seconds: float
    memory: int
    share: float | None
    other: int  # letters and digits that the other parser found
    wrong: str  # why this is not what was expected, "" where it is


def read_expected(path: Path) -> list[Expected]:
    """Return what is expected, the most particular patterns first."""
    return [Expected.model_validate(one) for one in yaml.safe_load(path.read_text("utf-8"))]


def share_of(ours: str, other: str) -> tuple[float | None, int]:
    """Return the share of the other text's letters and digits that ours has, and how many the other has."""
    wanted, had = _letters(other), _letters(ours)
    total = wanted.total()
    return (None, 0) if total == 0 else ((wanted & had).total() / total, total)


def _letters(text: str) -> Counter[str]:
    return Counter(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


async def look_at(path: Path, name: str, expected: Expected | None) -> Found:
    """Read a file in a parser of its own, so that the memory is this file's."""
    parsed, reason, detail = None, READ, ""
    async with open_parser(ParserSettings()) as parser:
        with watched(await parser.start()) as peak:
            began = time.monotonic()
            try:
                parsed = await parser.parse(path)
            except Unreadable as exc:
                reason, detail = str(exc.reason), exc.detail
            seconds = time.monotonic() - began
    share, other = await anyio.to_thread.run_sync(_compared, path, parsed) if parsed else (None, 0)
    pages = max(len(parsed.pages), 1) if parsed else 1
    found = Found(
        name=name, outcome=reason, detail=detail, format=str(parsed.format) if parsed else path.suffix.lower()[1:],
        pages=pages, seconds=seconds, memory=peak.bytes, share=share, other=other, wrong="",
    )  # fmt: skip
    return found if not (wrong := "; ".join(_wrong(found, expected))) else _with(found, wrong)


def _with(found: Found, wrong: str) -> Found:
    return Found(**{name: getattr(found, name) for name in Found.__slots__ if name != "wrong"}, wrong=wrong)


def _compared(path: Path, parsed: Parsed) -> tuple[float | None, int]:
    ours = "\n".join([parsed.title or "", *(page.markdown for page in parsed.pages)])
    return share_of(ours, other_text(path, parsed.format))


def _wrong(found: Found, expected: Expected | None) -> Iterator[str]:
    if expected is not None and found.outcome not in expected.outcome:
        yield f"{found.outcome} ({found.detail}), not {' or '.join(expected.outcome)}"
    least = expected.least_share if expected else LEAST_SHARE
    if found.outcome == READ and found.share is None and least > 0:
        yield "read, but the other parser finds nothing to compare with"
    if found.share is not None and found.share < least:
        yield f"{found.share:.1%} of the other parser's characters, not {least:.0%}"
    if found.memory > MOST_MEMORY:
        yield f"{found.memory / 2**20:.0f} MiB"
    if found.outcome != READ and found.seconds > REFUSED_WITHIN:
        yield f"refused only after {found.seconds:.0f} s"


def table(all_found: Sequence[Found]) -> str:
    """Return the report by folder and format as Markdown: figures only."""
    lines = [
        "| folder | format | files | read | refused | share of the other parser's characters: all, lowest file |"
        " slowest s (s a page) | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[Found]] = {}
    for found in all_found:
        groups.setdefault((str(Path(found.name).parent), found.format), []).append(found)
    lines += [_row(folder, kind, group) for (folder, kind), group in sorted(groups.items())]
    return "\n".join(lines)


def _row(folder: str, kind: str, group: Sequence[Found]) -> str:
    refused = Counter(found.outcome for found in group if found.outcome != READ)
    shares = [(found.share, found.other) for found in group if found.share is not None]
    total = sum(other for _, other in shares)
    said = f"{sum(s * n for s, n in shares) / total:.1%}, {min(s for s, _ in shares):.1%}" if total else ""
    slowest = max(group, key=lambda found: found.seconds)
    cells = (
        folder, kind, len(group), sum(found.outcome == READ for found in group),
        ", ".join(f"{reason} {count}" for reason, count in sorted(refused.items())), said,
        f"{slowest.seconds:.1f} ({max(found.seconds / found.pages for found in group):.1f})",
        f"{max(found.memory for found in group) / 2**20:.0f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


async def look_at_all(
    folder: Path, files: Sequence[Path], expected: Sequence[Expected], console: Console
) -> list[Found]:
    """Read the files, one after the other."""
    all_found = []
    for path in track(files, console=console, transient=True):
        name = unicodedata.normalize("NFC", str(path.relative_to(folder)))
        what = next((one for one in expected if fnmatch(name, one.files)), None)
        all_found.append(await look_at(path, name, what))
    return all_found


def main(
    folder: Annotated[Path, typer.Argument(help="A folder of documents; those below it are read too.")],
    expected: Annotated[Path, typer.Option(help="What each file must come to.")] = EXPECTED,
    every: Annotated[bool, typer.Option("--every", help="Print a line for every file.")] = False,  # noqa: FBT002
) -> None:
    """Print the table and what went wrong."""
    console = Console(soft_wrap=True, highlight=False)
    logging.disable(logging.CRITICAL)  # other parsers warn with pieces of the content
    os.environ["OMP_THREAD_LIMIT"] = "1"  # noqa: TID251  the edge: pytesseract passes it on, two threads wait for each other
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".tsv"]
    all_found = anyio.run(look_at_all, folder, files, read_expected(expected), Console(stderr=True))
    for found in all_found if every else ():
        share = "" if found.share is None else f" {found.share:.1%} of {found.other}"
        console.print(f"{found.name}: {found.outcome}{share}, {found.seconds:.1f} s", markup=False)
    console.print(table(all_found), markup=False)
    wrong = [found for found in all_found if found.wrong]
    for found in wrong:
        console.print(f"WRONG {found.name}: {found.wrong}", markup=False)
    read = sum(found.outcome == READ for found in all_found)
    console.print(f"{len(all_found)} files, {read} read, {len(all_found) - read} refused, {len(wrong)} not as expected")
    raise typer.Exit(1 if wrong or not all_found else 0)
