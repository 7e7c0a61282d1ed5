"""Data sets are read from folders, and a corpus goes through the product's own pipeline."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from evals.questions.corpus import CorpusNotLoaded, require_loaded
from evals.questions.sample import DatasetBroken, read_dataset
from ingest.bulk import LoadOutcome, SourceFile
from ingest.catalogue import Metadata

LOADED = LoadOutcome(file=SourceFile(path=Path("a.txt"), name="a.txt", document_id="a", metadata=Metadata()))


def written(folder: Path, queries: str, qrels: str) -> Path:
    (folder / "queries.jsonl").write_text(queries, "utf-8")
    (folder / "qrels.tsv").write_text(qrels, "utf-8")
    return folder


def test_a_folder_is_read_as_a_data_set(tmp_path: Path) -> None:
    history = [{"role": "user", "text": "one"}, {"role": "assistant", "text": "two"}, {"role": "user", "text": "three"}]
    # A line separator within a text ends no line of the file.
    rows = [
        {"id": "a", "text": "그럼?\u2028", "history": history, "unknown": 1, "split": "dev"},
        {"id": "b", "text": "?", "split": "test"},
        {"id": "c", "text": "?"},
    ]
    queries = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    dataset = read_dataset(written(tmp_path, queries, "query-id\tcorpus-id\tscore\na\td1\t1\na\td2\t2\n"))
    assert [sample.id for sample in dataset.samples] == ["a", "b", "c"]
    assert dataset.samples[0].earlier == ("one", "three")
    assert dataset.relevant == {"a": {"d1": 1, "d2": 2}}
    assert [sample.id for sample in read_dataset(tmp_path, limit=1).samples] == ["a"]
    assert [sample.id for sample in read_dataset(tmp_path, split="test").samples] == ["b", "c"]


@pytest.mark.parametrize(
    ("queries", "qrels", "sentence"),
    [
        ('{"id": "a"}', "h\n", "queries.jsonl, line 1"),
        ('{"id": "a", "text": "?"}', "h\na\td1\n", "qrels.tsv, line 2"),
        ('{"id": "a", "text": "?"}', "h\na\td1\tmuch\n", "qrels.tsv, line 2"),
        ("", "h\n", "no question"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, queries: str, qrels: str, sentence: str) -> None:
    with pytest.raises(DatasetBroken, match=sentence):
        read_dataset(written(tmp_path, queries, qrels))


@pytest.mark.parametrize(("reason", "may_be_refused"), [("suspicious", False), ("malformed", True)])
def test_a_document_that_was_not_loaded_stops_a_run(reason: str, *, may_be_refused: bool) -> None:
    with pytest.raises(CorpusNotLoaded, match=f"1 of 2 entries were not loaded, first a.txt: {reason}"):
        require_loaded([LOADED, replace(LOADED, reason=reason)], may_be_refused=may_be_refused)
    assert require_loaded([LOADED, replace(LOADED, reason="empty_text")], may_be_refused=may_be_refused) == 0
