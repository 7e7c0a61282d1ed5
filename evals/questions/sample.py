"""A data set in a folder: questions, their known answers, and the relevant corpus entries.

A folder has `queries.jsonl`, `qrels.tsv` (query-id, corpus-id, score, with a header) and either `corpus.jsonl` or, like
our own set, `documents/` with the manifest of `ingest load`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

T = TypeVar("T")
HANBIT = Path(__file__).parents[1] / "datasets" / "hanbit"
"""The sample bank's documents and golden questions."""


class DatasetBroken(Exception):
    """The folder is not a valid data set; the message names the file and the line."""


class HistoryTurn(msgspec.Struct, frozen=True):
    """A message in the conversation before the question."""

    role: Literal["user", "assistant"]
    text: str


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A question; a correct answer contains one of `answers`, and citing an entry of `also_in` is also correct.

    A question with `as_of` asks about that day and is used only for retrieval. `split` is dev (used to choose
    thresholds and weights) or test; without one a question belongs to both. `whole` is a follow-up reworded to be
    understood alone, against which its answer is judged.
    """

    id: str
    text: str
    answers: tuple[str, ...] = ()
    unanswerable: bool = False
    kind: str = ""
    history: tuple[HistoryTurn, ...] = ()
    also_in: tuple[str, ...] = ()
    as_of: date | None = None
    split: str = ""
    whole: str = ""

    @property
    def earlier(self) -> tuple[str, ...]:
        """The customer's earlier questions, oldest first."""
        return tuple(turn.text for turn in self.history if turn.role == "user")


class CorpusEntry(msgspec.Struct, frozen=True):
    """One text of a corpus."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Questions in order, and the graded relevance of each one's relevant entries."""

    folder: Path
    samples: tuple[Sample, ...]
    relevant: Mapping[str, Mapping[str, int]]

    @property
    def name(self) -> str:
        return self.folder.name

    def right_documents(self, sample: Sample) -> frozenset[str]:
        """Return the documents whose citation is correct."""
        return frozenset(self.relevant.get(sample.id, {})) | frozenset(sample.also_in)


def read_dataset(folder: Path, *, limit: int | None = None, split: str | None = None) -> Dataset:
    """Read the data set in a folder, optionally of one split, and at most `limit` questions.

    Raises:
        DatasetBroken: a file is missing or a line is invalid.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise DatasetBroken(f"{folder} is not a folder")
    all_samples = read_lines(folder / "queries.jsonl", Sample)
    samples = tuple(sample for sample in all_samples if split is None or sample.split in ("", split))
    if not samples:
        raise DatasetBroken(f"{folder / 'queries.jsonl'} has no question{f' of the split {split}' if split else ''}")
    return Dataset(folder=folder, samples=samples[:limit], relevant=_qrels(folder / "qrels.tsv"))


def read_lines(path: Path, kind: type[T]) -> Iterator[T]:
    """Yield one value of the type per line of a JSON lines file.

    Raises:
        DatasetBroken: the file is missing or a line is invalid.
    """
    decoder = msgspec.json.Decoder(kind)
    for n, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError as exc:
            raise DatasetBroken(f"{path.name}, line {n}: {exc}") from exc


def _qrels(path: Path) -> dict[str, dict[str, int]]:
    relevant: dict[str, dict[str, int]] = {}
    for n, line in enumerate(_text(path).split("\n"), 1):
        fields = line.split("\t")
        if n == 1 or not line.strip():
            continue
        try:
            query, entry, score = fields
            relevant.setdefault(query, {})[entry] = int(score)
        except ValueError as exc:
            raise DatasetBroken(f"{path.name}, line {n}: not query-id, corpus-id and a whole score") from exc
    return relevant


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise DatasetBroken(f"{path} cannot be read: {exc}") from exc
