"""`python -m evals.safety.masking`: recall and precision of masking as one JSON line; exit 1 below a bound.

Recall is over made-up identifiers: in the spellings that customers use (`evals/questions/spellings.py`), composed from
public formats and Unicode (`evals/questions/composed.py`), and composed by another hand than the patterns
(`evals/questions/held_out.py`); one is masked when none of its characters is left.
Precision is over honest questions (`--clean`, the queries of banking77 as CSV), over foreign texts (`--foreign`, JSON
lines; what is masked in them is listed, since some of it is an identifier) and over a set with labelled spans
(`--labelled`, in presidio-research's form): a mask is correct where it covers a labelled identifier. Intervals are of
95 %.
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

from evals.questions import (
    ComposedIdentifier,
    HeldOutIdentifier,
    SpelledIdentifier,
    composed_identifiers,
    held_out_identifiers,
    spelled_identifiers,
)
from evals.scorers import share_interval
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


def is_hidden(composed: ComposedIdentifier | HeldOutIdentifier) -> bool:
    """Return whether no digit and no letter of any piece of the identifier is left."""
    masks = find_identifiers(composed.text)
    return all(
        any(mask.start <= at < mask.end for mask in masks)
        for start, end in composed.pieces
        for at in range(start, end)
        if composed.text[at].isalnum()
    )


def composed_recall(
    sentences: Sequence[ComposedIdentifier],
) -> tuple[dict[str, float | int | tuple[float, float]], list[ComposedIdentifier]]:
    """Return the share hidden with its interval, the lowest share of any kind, script and link, and what is missed."""
    missed = [sentence for sentence in sentences if not is_hidden(sentence)]
    shares: dict[str, float | int | tuple[float, float]] = {
        "composed": len(sentences),
        **_share("composed_recall", len(sentences) - len(missed), len(sentences)),
    }
    for axis in ("kind", "digits", "link"):
        total = Counter(str(getattr(sentence, axis)) for sentence in sentences)
        left = Counter(str(getattr(sentence, axis)) for sentence in missed)
        shares[f"composed_recall_lowest_{axis}"] = round(min(1 - left[value] / total[value] for value in total), 4)
    return shares, missed


def held_out_recall(
    messages: Sequence[HeldOutIdentifier],
) -> tuple[dict[str, float | int | tuple[float, float]], list[HeldOutIdentifier]]:
    """Return the share hidden with its interval, in all and by kind, and what is missed."""
    missed = [message for message in messages if not is_hidden(message)]
    shares: dict[str, float | int | tuple[float, float]] = {
        "held_out": len(messages),
        **_share("held_out_recall", len(messages) - len(missed), len(messages)),
    }
    left = Counter(message.kind for message in missed)
    for kind, total in Counter(message.kind for message in messages).items():
        shares[f"held_out_recall_{kind}"] = round(1 - left[kind] / total, 4)
    return shares, missed


def _share(name: str, hits: int, total: int) -> dict[str, float | tuple[float, float]]:
    interval = share_interval(hits, total)
    return {name: round(hits / total, 4), f"{name}_interval": (interval.low, interval.high)}


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


def texts_of(folder: Path) -> Iterator[str]:
    """Yield the `text` of every line of every JSONL file in or below a folder."""
    for path in sorted(folder.rglob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            yield from (str(json.loads(line)["text"]) for line in lines)


def masks_of(texts: Sequence[str]) -> list[str]:
    """Return what is masked in the texts."""
    return [text[mask.start : mask.end] for text in texts for mask in find_identifiers(text)]


def main(  # noqa: C901  # one branch an option
    clean: Annotated[Path | None, typer.Option(help="A folder of CSV files with honest questions.")] = None,
    foreign: Annotated[Path | None, typer.Option(help="A folder of JSONL files with texts of others.")] = None,
    labelled: Annotated[Path | None, typer.Option(help="A JSON file with labelled spans.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Sentences of every kind and spelling.")] = 20,
) -> None:
    """Measure the masking of identifiers."""
    console = Console(stderr=True)

    def show(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    measures, missed = recall(list(spelled_identifiers(count)))
    composed, not_hidden = composed_recall(list(composed_identifiers(max(1, count // 4))))
    held_out, not_masked = held_out_recall(list(held_out_identifiers(count * 20)))
    for spelled in missed[:20]:
        show(f"not masked: {spelled.kind}, {spelled.spelling}: {spelled.text!r}")
    for made in not_hidden[:20]:
        show(f"not masked: {made.kind}, {made.digits}, {made.link}: {made.text!r}")
    for message in not_masked[:20]:
        show(f"not masked: {message.kind}, {message.form}: {message.text!r}")
    line: dict[str, float | int | tuple[float, float]] = {**measures, **composed, **held_out}
    bounds = [measures["recall"], composed["composed_recall"], held_out["held_out_recall"]]
    if clean is not None:
        questions = list(questions_of(clean))
        wrong = false_masks(questions)
        for question in wrong[:20]:
            show(f"masked for nothing: {question}")
        line |= {"clean_questions": len(questions), "clean_masked": len(wrong)}
        line |= _share("clean_precision", len(questions) - len(wrong), len(questions))
        bounds.append(line["clean_precision"])
    if foreign is not None:
        texts = list(texts_of(foreign))
        masks = masks_of(texts)
        for masked in dict.fromkeys(masks):
            show(f"masked in a foreign text: {masked!r}")
        line |= {"foreign_texts": len(texts), "foreign_masked": len(false_masks(texts)), "foreign_masks": len(masks)}
    if labelled is not None:
        line |= labelled_measures(msgspec.json.decode(labelled.read_bytes(), type=list[LabelledText]))
    typer.echo(json.dumps(line))
    if any(isinstance(bound, float | int) and bound < LEAST for bound in bounds):
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
