"""Dialogues: what a customer says turn by turn, with each turn written out whole and its known answers."""

from pathlib import Path
from typing import Literal

import msgspec

from evals.questions.sample import read_lines


class DialogueTurn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a customer says; `whole` says the same so that it is understood alone.

    `kind` is how the turn leans on those before it; the data set's README describes each. A correct answer contains
    one of `answers`, and each of `documents` holds one. Both are empty where no document answers.
    """

    text: str
    kind: Literal[
        "opening",
        "choice",
        "comparison",
        "condition",
        "correction",
        "ellipsis",
        "pronoun",
        "return",
        "standalone",
        "statement",
        "three_back",
        "topic_change",
    ]
    whole: str
    answers: tuple[str, ...]
    documents: tuple[str, ...]
    unanswerable: bool


class Dialogue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The turns of one customer, in order. No turn depends on the bot's words, only on what is right."""

    id: str
    language: Literal["ko", "en"]
    split: Literal["dev", "test"]
    turns: tuple[DialogueTurn, ...]


def read_dialogues(folder: Path) -> tuple[Dialogue, ...]:
    """Return the dialogues of a data set's folder.

    Raises:
        DatasetBroken: `dialogues.jsonl` is missing or a line of it is invalid.
    """
    return tuple(read_lines(folder / "dialogues.jsonl", Dialogue))
