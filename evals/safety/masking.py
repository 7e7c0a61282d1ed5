"""`python -m evals.safety.masking`: recall and precision of masking as one JSON line; exit 1 below a bound.

Recall is over made-up identifiers in every spelling (`evals/questions/spellings.py`): one is masked when none of its
characters is left. Precision is over benign questions (`--clean`, the queries of banking77 as CSV) and over a set with
labelled spans (`--labelled`, in presidio-research's form): a mask is correct where it covers a labelled identifier.
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

from evals.questions import SpelledIdentifier, spelled_identifiers
from knowledge.screening import find_identifiers

LEAST = 0.98
# Presidio's types that the chatbot masks; persons, places and dates are topics of honest questions.
MASKED = frozenset({"CREDIT_CARD", "PHONE_NUMBER", "EMAIL_ADDRESS", "IBAN_CODE", "US_SSN", "US_DRIVER_LICENSE"})


class Span(msgspec.Struct, frozen=True):
    """A labelled span of a text, with presidio-research's field names."""

    entity_type: str
    start_position: int
    end_position: int


class LabelledText(msgspec.Struct, frozen=True):
    """A text with its labels."""

    full_text: str
    spans: tuple[Span, ...]


def is_masked(spelled: SpelledIdentifier) -> bool:
    """Return whether no character of the identifier is left."""
    return any(
        identifier.start <= spelled.start and spelled.end <= identifier.end
        for identifier in find_identifiers(spelled.text)
    )


def recall(sentences: Sequence[SpelledIdentifier]) -> tuple[dict[str, float], list[SpelledIdentifier]]:
    """Return the shares masked, in all and by kind, and the sentences with an unmasked identifier."""
    missed = [sentence for sentence in sentences if not is_masked(sentence)]
    total_by_kind = Counter(sentence.kind for sentence in sentences)
    missed_by_kind = Counter(sentence.kind for sentence in missed)
    shares = {f"recall_{kind}": round(1 - missed_by_kind[kind] / total, 4) for kind, total in total_by_kind.items()}
    return {"recall": round(1 - len(missed) / len(sentences), 4), **shares}, missed


def false_masks(questions: Sequence[str]) -> list[str]:
    """Return the benign questions in which something is masked."""
    return [question for question in questions if find_identifiers(question)]


def labelled_measures(texts: Sequence[LabelledText]) -> dict[str, float | int]:
    """Return recall over the labelled spans of masked types, and precision over all masks."""
    labelled = [(text, span) for text in texts for span in text.spans if span.entity_type in MASKED]
    covered = sum(_is_covered(text, span) for text, span in labelled)
    masks = [(text, mask.start, mask.end) for text in texts for mask in find_identifiers(text.full_text)]
    correct = sum(
        any(
            span.entity_type in MASKED and start < span.end_position and span.start_position < end
            for span in text.spans
        )
        for text, start, end in masks
    )
    return {
        "labelled_spans": len(labelled),
        "labelled_recall": round(covered / max(1, len(labelled)), 4),
        "labelled_masks": len(masks),
        "labelled_precision": round(correct / max(1, len(masks)), 4),
    }


def _is_covered(text: LabelledText, span: Span) -> bool:
    return any(
        mask.start <= span.start_position and span.end_position <= mask.end for mask in find_identifiers(text.full_text)
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
    measures, missed = recall(list(spelled_identifiers(count)))
    for sentence in missed[:20]:
        name = f"{sentence.kind}, {sentence.spelling}"
        console.print(f"not masked: {name}: {sentence.text!r}", markup=False, highlight=False)
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
        line |= labelled_measures(msgspec.json.decode(labelled.read_bytes(), type=list[LabelledText]))
    typer.echo(json.dumps(line))
    if min(bounds) < LEAST:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
