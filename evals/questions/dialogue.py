"""Dialogues: a customer's turns, each with a standalone wording and known answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from evals.questions.sample import DatasetBroken, Sample, read_lines

Kind = Literal[
    "opening", "choice", "comparison", "condition", "correction", "ellipsis", "pronoun", "return", "standalone",
    "statement", "three_back", "topic_change",
]  # fmt: skip
"""How a turn depends on earlier ones; described in the data set's README."""


class DialogueTurn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A customer's message; `whole` is the same message worded to be understood alone.

    A correct answer contains one of `answers`, and each of `documents` contains one. Both are empty if no document
    answers.
    """

    text: str
    kind: Kind
    whole: str
    answers: tuple[str, ...]
    documents: tuple[str, ...]
    unanswerable: bool


class Dialogue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The turns of one customer, in order; they depend on correct answers, not on the bot's wording."""

    id: str
    language: Literal["ko", "en"]
    split: Literal["dev", "test"]
    turns: tuple[DialogueTurn, ...]

    def turn_id(self, n: int) -> str:
        """Return the id of turn `n`, counted from 0."""
        return f"{self.id}/{n}"

    def samples(self) -> Iterator[tuple[Sample, tuple[str, ...]]]:
        """Yield each turn as a question, with the documents that answer it."""
        for n, turn in enumerate(self.turns):
            sample = Sample(
                id=self.turn_id(n),
                text=turn.text,
                whole=turn.whole,
                answers=turn.answers,
                unanswerable=turn.unanswerable,
                kind=turn.kind,
                split=self.split,
            )
            yield sample, turn.documents


def read_dialogues(folder: Path, *, language: str | None = None, split: str | None = None) -> tuple[Dialogue, ...]:
    """Return the dialogues in a data set's folder, optionally of one language or split.

    Raises:
        DatasetBroken: `dialogues.jsonl` is missing or invalid, or no dialogue matches.
    """
    dialogues = tuple(
        dialogue
        for dialogue in read_lines(folder / "dialogues.jsonl", Dialogue)
        if language in {None, dialogue.language} and split in {None, dialogue.split}
    )
    if not dialogues:
        raise DatasetBroken(f"{folder / 'dialogues.jsonl'} has no such dialogue")
    return dialogues
