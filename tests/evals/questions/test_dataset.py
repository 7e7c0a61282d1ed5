"""The sample documents of Hanbit Bank and their golden questions fit together."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import pypdfium2
import pytest
import yaml
from bs4 import BeautifulSoup
from docx import Document
from pydantic import BaseModel

from evals.scorers import holds_answer

ROOT = Path(__file__).parents[3]
DATASET = ROOT / "evals" / "datasets" / "hanbit"
DOCUMENTS = DATASET / "documents"

# What no document of a bank could say: needs no list of words that the documents lack.
NEVER_SAID = {"unanswerable_account", "unanswerable_advice", "unanswerable_attack", "unanswerable_future"}


class Entry(BaseModel, frozen=True, extra="forbid"):
    """One row of documents.yaml."""

    file: str
    document_id: str
    title: str
    product: str
    language: str
    effective_from: date


class HistoryMessage(BaseModel, frozen=True, extra="forbid"):
    role: str
    text: str


class Query(BaseModel, frozen=True, extra="forbid"):
    """One row of queries.jsonl."""

    id: str
    text: str
    answers: tuple[str, ...]
    also_in: tuple[str, ...] = ()
    unanswerable: bool
    kind: str
    language: str
    history: tuple[HistoryMessage, ...] = ()
    as_of: date | None = None
    absent: tuple[str, ...] = ()
    split: Literal["dev", "test"]


@dataclass(frozen=True, slots=True)
class Dataset:
    entries: tuple[Entry, ...]
    queries: tuple[Query, ...]
    relevant: dict[str, frozenset[str]]
    texts: dict[str, str]  # by document id: the text of its newest version
    dated: tuple[tuple[Entry, str], ...]  # every version with its text, the oldest first

    def in_force(self, query: Query) -> dict[str, str]:
        """Return what may answer the question: the newest versions, or those of its date."""
        day = query.as_of or date.max
        return {entry.document_id: text for entry, text in self.dated if entry.effective_from <= day}


def read_text(path: Path) -> str:
    """Return what a person reads in a file, with every run of white space as one space."""
    match path.suffix:
        case ".pdf":
            text = "\n".join(page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(path))
        case ".docx":
            text = "\n".join(_docx_lines(path))
        case ".html":
            text = BeautifulSoup(path.read_text(encoding="utf-8"), "lxml").get_text(" ")
        case _:
            text = path.read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", text)


def _docx_lines(path: Path) -> Iterator[str]:
    for block in Document(str(path)).iter_inner_content():
        if hasattr(block, "rows"):
            yield from (" | ".join(cell.text for cell in row.cells) for row in block.rows)
        else:
            yield block.text


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    manifest = yaml.safe_load((DOCUMENTS / "documents.yaml").read_text(encoding="utf-8"))
    entries = tuple(Entry.model_validate(row) for row in manifest["documents"])
    lines = (DATASET / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    qrels = [line.split("\t") for line in (DATASET / "qrels.tsv").read_text(encoding="utf-8").splitlines()]
    assert qrels[0] == ["query-id", "corpus-id", "score"]
    assert all(len(row) == 3 and row[2] == "1" for row in qrels[1:])
    assert len({(row[0], row[1]) for row in qrels[1:]}) == len(qrels) - 1
    by_age = sorted(entries, key=lambda entry: entry.effective_from)
    dated = tuple((entry, read_text(DOCUMENTS / entry.file)) for entry in by_age)
    return Dataset(
        entries=entries,
        queries=tuple(Query.model_validate(json.loads(line)) for line in lines),
        relevant={query: frozenset(r[1] for r in qrels[1:] if r[0] == query) for query in {r[0] for r in qrels[1:]}},
        texts={entry.document_id: text for entry, text in dated},
        dated=dated,
    )


def test_the_manifest_names_every_file_and_no_other(dataset: Dataset) -> None:
    on_disk = {str(path.relative_to(DOCUMENTS)) for path in DOCUMENTS.glob("*/*")}
    assert sorted(entry.file for entry in dataset.entries) == sorted(on_disk)
    assert all(entry.file.startswith(f"{entry.language}/") for entry in dataset.entries)
    assert all(entry.document_id.endswith(f"-{entry.language}") for entry in dataset.entries)


def test_a_question_has_answers_and_documents_unless_it_is_unanswerable(dataset: Dataset) -> None:
    for query in dataset.queries:
        assert query.unanswerable == query.kind.startswith("unanswerable_"), query.id
        assert bool(query.answers) != query.unanswerable, query.id
        assert (query.id in dataset.relevant) != query.unanswerable, query.id
        assert (query.kind == "multi_turn") == bool(query.history), query.id


def test_judgements_name_documents_and_questions_that_exist(dataset: Dataset) -> None:
    assert set(dataset.relevant) <= {query.id for query in dataset.queries}
    assert frozenset().union(*dataset.relevant.values()) <= set(dataset.texts)
    for query in dataset.queries:
        # `also_in` holds the documents in the other language; they are judged alone where the own language has none.
        assert set(query.also_in) <= set(dataset.texts), query.id
        assert not any(name.endswith(f"-{query.language}") for name in query.also_in), query.id
        own = {name for name in dataset.relevant.get(query.id, ()) if name.endswith(f"-{query.language}")}
        assert not query.also_in or own, query.id


def test_every_answer_stands_in_a_relevant_document(dataset: Dataset) -> None:
    missing = []
    for query in dataset.queries:
        in_force = dataset.in_force(query)
        gold = [in_force.get(name, "") for name in dataset.relevant.get(query.id, ())]
        if not query.unanswerable and not any(answer in text for answer in query.answers for text in gold):
            missing.append(query.id)
    assert missing == []


def test_every_relevant_document_holds_the_answer(dataset: Dataset) -> None:
    wrong = [
        (query.id, name)
        for query in dataset.queries
        for name in dataset.relevant.get(query.id, ())
        if not holds_answer(dataset.in_force(query).get(name, ""), query.answers)
    ]
    assert wrong == []


def test_no_document_holds_the_subject_of_an_unanswerable_question(dataset: Dataset) -> None:
    for query in dataset.queries:
        assert bool(query.absent) == (query.unanswerable and query.kind not in NEVER_SAID), query.id
        texts = dataset.in_force(query).values()
        assert [word for word in query.absent for text in texts if word.lower() in text.lower()] == [], query.id
