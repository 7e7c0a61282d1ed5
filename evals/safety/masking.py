"""`python -m evals.safety.masking`: are identifiers masked, and is nothing else? Prints one JSON line; exit 1 below a
bound.

Recall is over made-up identifiers in every spelling (`evals/questions/spellings.py`): one is masked when none of its
characters is left. Precision is over honest questions (`--clean`, the queries of banking77 as CSV) and over a set with
labelled spans (`--labelled`, in presidio-research's form): a mask counts as right where it covers a labelled
identifier.
"""

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from evals.questions import Spelled, spelled
from knowledge.screening import find_identifiers

LEAST = 0.98
# What a bank's chatbot masks of presidio's types; persons, places and dates are what customers ask about.
MASKED = frozenset({"CREDIT_CARD", "PHONE_NUMBER", "EMAIL_ADDRESS", "IBAN_CODE", "US_SSN", "US_DRIVER_LICENSE"})


class Span(msgspec.Struct, frozen=True):
    """A labelled piece of a text, in presidio-research's words."""

    entity_type: str
    start_position: int
    end_position: int


class LabelledText(msgspec.Struct, frozen=True):
    """A text with its labels."""

    full_text: str
    spans: tuple[Span, ...]


def is_masked(one: Spelled) -> bool:
    """Return whether no character of the identifier is left."""
    return any(found.start <= one.start and one.end <= found.end for found in find_identifiers(one.text))


def recall(sentences: Sequence[Spelled]) -> tuple[dict[str, float], list[Spelled]]:
    """Return the share masked, whole and by kind, and what was not."""
    missed = [one for one in sentences if not is_masked(one)]
    of_kind, missed_of_kind = Counter(one.kind for one in sentences), Counter(one.kind for one in missed)
    shares = {f"recall_{kind}": round(1 - missed_of_kind[kind] / of_kind[kind], 4) for kind in of_kind}
    return {"recall": round(1 - len(missed) / len(sentences), 4), **shares}, missed


def false_masks(questions: Sequence[str]) -> list[str]:
    """Return the honest questions of which something is masked."""
    return [question for question in questions if find_identifiers(question)]


def on_labelled(texts: Sequence[LabelledText]) -> dict[str, float | int]:
    """Return recall over the types that are masked, and precision over all that was masked."""
    wanted = [(text, span) for text in texts for span in text.spans if span.entity_type in MASKED]
    hit = sum(_overlaps(text, span) for text, span in wanted)
    masks = [(text, found.start, found.end) for text in texts for found in find_identifiers(text.full_text)]
    right = sum(
        any(
            span.entity_type in MASKED and start < span.end_position and span.start_position < end
            for span in text.spans
        )
        for text, start, end in masks
    )
    return {
        "labelled_spans": len(wanted),
        "labelled_recall": round(hit / max(1, len(wanted)), 4),
        "labelled_masks": len(masks),
        "labelled_precision": round(right / max(1, len(masks)), 4),
    }


def _overlaps(text: LabelledText, span: Span) -> bool:
    return any(
        found.start <= span.start_position and span.end_position <= found.end
        for found in find_identifiers(text.full_text)
    )


def questions_of(folder: Path) -> Iterator[str]:
    """Yield the `text` column of every CSV file of a folder."""
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as lines:
            yield from (row["text"] for row in csv.DictReader(lines))


def main(
    clean: Annotated[Path | None, typer.Option(help="A folder of CSV files with honest questions.")] = None,
    labelled: Annotated[Path | None, typer.Option(help="A JSON file with labelled spans.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Sentences of every kind and spelling.")] = 20,
) -> None:
    """Measure the masking of identifiers."""
    console = Console(stderr=True)
    measures, missed = recall(list(spelled(count)))
    for one in missed[:20]:
        console.print(f"not masked: {one.kind}, {one.spelling}: {one.text!r}", markup=False, highlight=False)
    line: dict[str, float | int] = dict(measures)
    bounds = [measures["recall"]]
    if clean is not None:
        questions = list(questions_of(clean))
        wrong = false_masks(questions)
        for question in wrong[:20]:
            console.print(f"masked for nothing: {question}", markup=False, highlight=False)
        line |= {"clean_questions": len(questions), "clean_masked": len(wrong)}
        line["clean_precision"] = round(1 - len(wrong) / max(1, len(questions)), 4)
        bounds.append(float(line["clean_precision"]))
    if labelled is not None:
        line |= on_labelled(msgspec.json.decode(labelled.read_bytes(), type=list[LabelledText]))
    typer.echo(json.dumps(line))
    if min(bounds) < LEAST:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
