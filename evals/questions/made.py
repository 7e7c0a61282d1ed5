"""Sentences that were made once and are kept in `evals/datasets/made`: identifiers, honest questions, falsifications.

Identifiers were composed from public formats and Unicode, once by the author of the patterns (`spelled`, `composed`)
and once by another hand that had read no pattern (`held-out`); add what is missed in the field, and fit none to a
pattern. Honest questions use words of attacks in their everyday sense. Falsifications change one thing in a sentence of
the sample bank's documents.
"""

from pathlib import Path

import msgspec

from evals.questions.sample import read_lines
from knowledge.passage import Language

MADE = Path(__file__).parents[1] / "datasets" / "made"
IDENTIFIER_SETS = ("spelled", "composed", "held-out")


class MadeIdentifier(msgspec.Struct, frozen=True, kw_only=True):
    """A message with an identifier: its kind, how it is written, and the spans that must be masked."""

    kind: str
    form: str
    text: str
    pieces: tuple[tuple[int, int], ...]


class HonestQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question that a customer may ask, and the word of attacks in it."""

    kind: str
    language: Language
    text: str


class Falsification(msgspec.Struct, frozen=True, kw_only=True):
    """A true sentence, false ones by what was changed, and its passage (the first) with two others by key."""

    true: str
    false: dict[str, str]
    passages: tuple[tuple[str, int, int], ...]


def read_identifiers(name: str) -> list[MadeIdentifier]:
    """Return one of `IDENTIFIER_SETS`."""
    return list(read_lines(MADE / f"identifiers-{name}.jsonl", MadeIdentifier))


def read_honest_questions() -> list[HonestQuestion]:
    """Return the honest questions."""
    return list(read_lines(MADE / "honest.jsonl", HonestQuestion))


def read_falsifications() -> list[Falsification]:
    """Return the falsifications."""
    return list(read_lines(MADE / "falsified.jsonl", Falsification))
