"""The sample documents of Hanbit Bank and their golden questions fit together."""

import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
import yaml
from bs4 import BeautifulSoup
from docx import Document

from evals.questions import HANBIT, read_dataset
from evals.questions.sample import Sample, read_lines
from evals.scorers import holds_answer

DOCUMENTS = HANBIT / "documents"
RELEVANT = read_dataset(HANBIT).relevant
# What no document of a bank could say: needs no list of words that the documents lack.
NEVER_SAID = {"unanswerable_account", "unanswerable_advice", "unanswerable_attack", "unanswerable_future"}


class GoldenQuestion(Sample, frozen=True, kw_only=True):
    """A question with what only these tests read."""

    language: str
    absent: tuple[str, ...] = ()


QUESTIONS = tuple(read_lines(HANBIT / "queries.jsonl", GoldenQuestion))


def entries() -> list[dict[str, Any]]:
    """Return the rows of the manifest, the oldest version first."""
    rows = yaml.safe_load((DOCUMENTS / "documents.yaml").read_text("utf-8"))["documents"]
    return sorted(rows, key=lambda row: row["effective_from"])


def read_text(path: Path) -> str:
    """Return what a person reads in a file, with every run of white space as one space."""
    match path.suffix:
        case ".pdf":
            text = "\n".join(page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(path))
        case ".docx":
            text = "\n".join(_docx_lines(path))
        case ".html":
            text = BeautifulSoup(path.read_text("utf-8"), "lxml").get_text(" ")
        case _:
            text = path.read_text("utf-8")
    return re.sub(r"\s+", " ", text)


def _docx_lines(path: Path) -> Iterator[str]:
    for block in Document(str(path)).iter_inner_content():
        if hasattr(block, "rows"):
            yield from (" | ".join(cell.text for cell in row.cells) for row in block.rows)
        else:
            yield block.text


@pytest.fixture(scope="module")
def texts() -> dict[str, list[tuple[date, str]]]:
    """Return the versions of each document by its id, the oldest first."""
    versions: dict[str, list[tuple[date, str]]] = {}
    for row in entries():
        versions.setdefault(row["document_id"], []).append((row["effective_from"], read_text(DOCUMENTS / row["file"])))
    return versions


def in_force(texts: Mapping[str, list[tuple[date, str]]], question: Sample) -> dict[str, str]:
    """Return what may answer the question: the newest versions, or those of its date."""
    day = question.as_of or date.max
    dated = {name: [text for begins, text in versions if begins <= day] for name, versions in texts.items()}
    return {name: versions[-1] for name, versions in dated.items() if versions}


def test_the_manifest_names_every_file_and_no_other() -> None:
    on_disk = {str(path.relative_to(DOCUMENTS)) for path in DOCUMENTS.glob("*/*")}
    assert sorted(row["file"] for row in entries()) == sorted(on_disk)
    assert all(row["file"].startswith(f"{row['language']}/") for row in entries())
    assert all(row["document_id"].endswith(f"-{row['language']}") for row in entries())


def test_a_question_has_answers_and_documents_unless_it_is_unanswerable() -> None:
    for question in QUESTIONS:
        assert question.unanswerable == question.kind.startswith("unanswerable_"), question.id
        assert bool(question.answers) != question.unanswerable, question.id
        assert (question.id in RELEVANT) != question.unanswerable, question.id
        assert (question.kind == "multi_turn") == bool(question.history), question.id
        assert question.split in {"dev", "test"}, question.id


def test_judgements_name_documents_and_questions_that_exist(texts: Mapping[str, object]) -> None:
    assert set(RELEVANT) <= {question.id for question in QUESTIONS}
    assert {name for judged in RELEVANT.values() for name in judged} <= set(texts)
    for question in QUESTIONS:
        # `also_in` holds the documents in the other language; they are judged alone where the own language has none.
        assert set(question.also_in) <= set(texts), question.id
        assert not any(name.endswith(f"-{question.language}") for name in question.also_in), question.id
        own = {name for name in RELEVANT.get(question.id, ()) if name.endswith(f"-{question.language}")}
        assert not question.also_in or own, question.id


def test_documents_contain_answers_and_no_unanswerable_subjects(
    texts: Mapping[str, list[tuple[date, str]]],
) -> None:
    for question in QUESTIONS:
        there = in_force(texts, question)
        gold = {name: there.get(name, "") for name in RELEVANT.get(question.id, ())}
        literal = any(answer in text for answer in question.answers for text in gold.values())
        assert literal != question.unanswerable, question.id
        lacking = [name for name, text in gold.items() if not holds_answer(text, question.answers)]
        assert lacking == [], question.id
        assert bool(question.absent) == (question.unanswerable and question.kind not in NEVER_SAID), question.id
        present = [word for word in question.absent for text in there.values() if word.lower() in text.lower()]
        assert present == [], question.id
