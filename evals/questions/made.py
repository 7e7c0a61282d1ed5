"""Synthetic sentences stored in `evals/datasets/made`: identifiers, honest questions, falsifications.

Identifiers were composed from public formats and Unicode, once by the author of the patterns (`spelled`, `composed`)
and once by somebody who had not read them (`held-out`). Add identifiers missed in production; never fit an identifier
to a pattern. Honest questions use words typical of attacks in their everyday sense. Falsifications change one thing in
a sentence from the sample bank's documents.
"""

from pathlib import Path

import msgspec

from evals.questions.sample import read_lines
from knowledge.passage import Language

MADE = Path(__file__).parents[1] / "datasets" / "made"
IDENTIFIER_SETS = ("spelled", "composed", "held-out")


class MadeIdentifier(msgspec.Struct, frozen=True, kw_only=True):
    """A message with an identifier: its kind, its spelling, and the spans to mask."""

    kind: str
    form: str
    text: str
    pieces: tuple[tuple[int, int], ...]


class HonestQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A legitimate question, and the attack word it contains."""

    kind: str
    language: Language
    text: str


class Falsification(msgspec.Struct, frozen=True, kw_only=True):
    """A true sentence, false variants by kind of change, and the keys of its passage (first) and two others."""

    true: str
    false: dict[str, str]
    passages: tuple[tuple[str, int, int], ...]


def read_identifiers(name: str) -> list[MadeIdentifier]:
    """Read one of `IDENTIFIER_SETS`."""
    return list(read_lines(MADE / f"identifiers-{name}.jsonl", MadeIdentifier))


def read_honest_questions() -> list[HonestQuestion]:
    """Read the honest questions."""
    return list(read_lines(MADE / "honest.jsonl", HonestQuestion))


def read_falsifications() -> list[Falsification]:
    """Read the falsifications."""
    return list(read_lines(MADE / "falsified.jsonl", Falsification))
