"""`python -m evals.safety.masking`: recall and precision of masking as one JSON line; exits with code 1 below a bound.

Recall is over the synthetic identifiers in `evals/datasets/made`; an identifier is masked if none of its digits and
letters remains. Precision is over honest questions (`--clean`: banking77's queries as CSV). Masks in third-party
texts (`--foreign`, JSON lines) are listed, since some are identifiers. Intervals are of 95 %.
"""

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from evals.questions import IDENTIFIER_SETS, MadeIdentifier, read_identifiers
from evals.scorers import share_interval
from knowledge.screening import find_identifiers

LEAST_SHARE = 0.98
"""Minimum recall of each set, and minimum precision."""
MISSED_SHOWN = 20
Figures = dict[str, float | int | tuple[float, float]]


def is_masked(made: MadeIdentifier) -> bool:
    """Return whether no digit or letter of the identifier's pieces remains."""
    masked_places = {at for mask in find_identifiers(made.text) for at in range(mask.start, mask.end)}
    places = {at for start, end in made.pieces for at in range(start, end) if made.text[at].isalnum()}
    return places <= masked_places


def recall(name: str, identifiers: Sequence[MadeIdentifier]) -> tuple[Figures, list[MadeIdentifier]]:
    """Return the masked share of a set with its interval, the share by kind, and the missed identifiers."""
    missed = [identifier for identifier in identifiers if not is_masked(identifier)]
    total = len(identifiers)
    figures: Figures = {name: total, **_share(f"{name}_recall", total - len(missed), total)}
    missed_by_kind = Counter(identifier.kind for identifier in missed)
    for kind, number in Counter(identifier.kind for identifier in identifiers).items():
        figures[f"{name}_recall_{kind}"] = round(1 - missed_by_kind[kind] / number, 4)
    return figures, missed


def _share(name: str, hits: int, total: int) -> Figures:
    interval = share_interval(hits, total)
    return {name: round(hits / total, 4), f"{name}_interval": (interval.low, interval.high)}


def questions_of(folder: Path) -> Iterator[str]:
    """Yield the `text` column of each CSV file in a folder."""
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as lines:
            yield from (row["text"] for row in csv.DictReader(lines))


def texts_of(folder: Path) -> Iterator[str]:
    """Yield the `text` of each line of each JSONL file in or below a folder."""
    for path in sorted(folder.rglob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            yield from (str(json.loads(line)["text"]) for line in lines)


def set_figures() -> Figures:
    """Return the recall of each set; print missed identifiers on stderr."""
    figures: Figures = {}
    for name in IDENTIFIER_SETS:
        recall_figures, missed = recall(name, read_identifiers(name))
        figures |= recall_figures
        for identifier in missed[:MISSED_SHOWN]:
            typer.echo(f"not masked: {identifier.kind}, {identifier.form}: {identifier.text!r}", err=True)
    return figures


def clean_figures(questions: Sequence[str]) -> Figures:
    """Return the precision over honest questions; print the questions with a mask."""
    wrong = [question for question in questions if find_identifiers(question)]
    for question in wrong[:MISSED_SHOWN]:
        typer.echo(f"masked without an identifier: {question}", err=True)
    counts: Figures = {"clean_questions": len(questions), "clean_masked": len(wrong)}
    return counts | _share("clean_precision", len(questions) - len(wrong), len(questions))


def foreign_figures(texts: Sequence[str]) -> Figures:
    """Count the masks in third-party texts, and print them, since some are identifiers."""
    masks = [text[mask.start : mask.end] for text in texts for mask in find_identifiers(text)]
    for masked in dict.fromkeys(masks):
        typer.echo(f"masked in a foreign text: {masked!r}", err=True)
    masked_texts = sum(bool(find_identifiers(text)) for text in texts)
    return {"foreign_texts": len(texts), "foreign_masked": masked_texts, "foreign_masks": len(masks)}


def main(
    clean: Annotated[Path | None, typer.Option(help="A folder of CSV files with honest questions.")] = None,
    foreign: Annotated[Path | None, typer.Option(help="A folder of JSONL files with third-party texts.")] = None,
) -> None:
    """Measure the masking of identifiers."""
    figures = set_figures()
    if clean is not None:
        figures |= clean_figures(list(questions_of(clean)))
    if foreign is not None:
        figures |= foreign_figures(list(texts_of(foreign)))
    typer.echo(json.dumps(figures))
    bounds = [figures[f"{name}_recall"] for name in IDENTIFIER_SETS] + [figures.get("clean_precision", 1.0)]
    if any(isinstance(bound, float | int) and bound < LEAST_SHARE for bound in bounds):
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
