"""The gates of CI hold on what is committed, and each goes red on a planted regression."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from evals.__main__ import app
from evals.quality.gate import ranking_run
from evals.quality.report import Task, gate_lines, read_task
from evals.quality.rescore import rescore
from evals.quality.retrieve import rank
from evals.quality.run import loaded_corpus
from evals.quality.summary import Run
from evals.questions import (
    Dataset,
    Recording,
    read_dataset,
    read_recording,
    write_recording,
)
from evals.sample_bank import sample_banks
from ingest.bulk import find_files
from ingest.settings import Settings
from knowledge.profiles import AnswerMode

ROOT = Path(__file__).parents[3]
FEWER = 15
"""Recorded answers that a planted regression is tried on: enough to fall below a gate, and quick."""


@pytest.fixture(scope="module")
def task() -> Task:
    read = read_task(ROOT / "evals" / "tasks" / "recorded.yaml")
    recording = read.recording
    assert recording is not None
    return read.model_copy(update={"dataset": ROOT / read.dataset, "recording": ROOT / recording})


@pytest.fixture(scope="module")
def dataset(task: Task) -> Dataset:
    return read_dataset(task.dataset)


@pytest.fixture(scope="module")
def recording(task: Task) -> Recording:
    assert task.recording is not None
    return read_recording(task.recording)


def missed(run: Run, task: Task) -> set[str]:
    """Return the measures below their gates."""
    return {line.measure for line in gate_lines(run, task.gates) if line.holds is False}


def test_the_recorded_answers_of_today_hold_every_gate(task: Task, dataset: Dataset, recording: Recording) -> None:
    run = rescore(recording, dataset, bank=sample_banks().first)
    assert missed(run, task) == set()
    assert isinstance(run.measures["altered_numbers"], int)
    assert run.measures["altered_numbers"] >= 60
    assert len(run.rows) >= 100


@pytest.mark.parametrize(
    ("change", "red"),
    [
        ({"prompt_version": "worse"}, {"prompt_is_recorded"}),
        ({"documents": "others"}, {"documents_are_recorded"}),
        ({}, set()),
    ],
)
def test_a_changed_prompt_or_document_misses_its_gate(
    task: Task, dataset: Dataset, recording: Recording, change: dict[str, str], red: set[str]
) -> None:
    other = msgspec.structs.replace(recording.header, **change)
    run = rescore(replace(first(recording, 5), header=other), dataset, bank=sample_banks().first)
    assert missed(run, task) & {"prompt_is_recorded", "documents_are_recorded"} == red


def test_a_wrong_number_is_shown_in_neither_mode(dataset: Dataset, recording: Recording) -> None:
    wrong = reworded(first(recording), lambda text: f"{text} 수수료는 77,777원입니다.")
    for answer in AnswerMode:
        run = rescore(wrong, dataset, bank=sample_banks().first, answer=answer)
        assert run.measures["altered_numbers_shown"] == 0
        assert all(row.judged and "77,777" not in row.judged.answer.text for row in run.rows)


def test_the_command_of_ci_fails_with_a_gate(tmp_path: Path, task: Task, recording: Recording) -> None:
    stale = replace(first(recording, 5), header=msgspec.structs.replace(recording.header, prompt_version="worse"))
    write_recording(stale, tmp_path / "recorded.jsonl")
    described = {
        "dataset": str(task.dataset),
        "recording": str(tmp_path / "recorded.jsonl"),
        "gates": [{"measure": "prompt_is_recorded", "least": 1}],
    }
    (tmp_path / "task.yaml").write_bytes(msgspec.json.encode(described))
    measured = CliRunner().invoke(app, ["gate", "--task", str(tmp_path / "task.yaml"), "--output", str(tmp_path)])
    assert measured.exit_code == 1
    assert "MISSED" in measured.output
    assert (tmp_path / "gate-task.md").exists()


def first(recording: Recording, count: int = FEWER) -> Recording:
    """Return a recording of the first answers with a text."""
    answers = [answer for answer in recording.answers if answer.model_text]
    return replace(recording, answers=tuple(answers[:count]))


def reworded(recording: Recording, reword: Callable[[str], str]) -> Recording:
    """Return a recording with other texts in place of the model's."""
    answers = tuple(
        answer if answer.model_text is None else msgspec.structs.replace(answer, model_text=reword(answer.model_text))
        for answer in recording.answers
    )
    return replace(recording, answers=answers)


FEW = ("자유적금", "정기적금", "청년우대적금", "파킹통장", "수수료안내_2025", "수수료안내_2026")
"""Documents that are easily confused, whose morphemes tell them apart, and two versions of one."""


@pytest.fixture
def fewer(tmp_path: Path, dataset: Dataset) -> Dataset:
    """The golden questions of a few documents, with only these documents to find."""
    documents = tmp_path / "few" / "documents"
    (documents / "ko").mkdir(parents=True)
    manifest = (dataset.folder / "documents" / "documents.yaml").read_text("utf-8").splitlines()
    entries = [line for line in manifest if "file:" not in line or any(f"ko/{name}." in line for name in FEW)]
    (documents / "documents.yaml").write_text("\n".join(entries) + "\n", "utf-8")
    for file in (dataset.folder / "documents" / "ko").iterdir():
        if file.stem in FEW:
            shutil.copy(file, documents / "ko")
    document_ids = {file.document_id for file in find_files([documents])}
    relevant = {
        question: scores
        for question, judged in dataset.relevant.items()
        if (scores := {name: score for name, score in judged.items() if name in document_ids})
    }
    samples = tuple(sample for sample in dataset.samples if sample.id in relevant and not sample.history)
    return Dataset(folder=documents.parent, samples=samples, relevant=relevant)


@pytest.mark.anyio
async def test_retrieval_holds_its_gates_at_every_date(fewer: Dataset, tmp_path: Path) -> None:
    task = read_task(ROOT / "evals" / "tasks" / "retrieval.yaml")
    async with loaded_corpus(fewer, Settings(), tmp_path / "data", Console(quiet=True)) as (services, corpus):
        rankings = [ranking async for ranking in rank(fewer.samples, services.index, corpus.entries)]
    run = ranking_run(fewer, rankings)
    assert missed(run, task) == set()
    of_a_date = [row.measures["answer_in_top5"] for row in run.rows if row.kind == "as_of"]
    assert len(of_a_date) >= 12
    assert set(of_a_date) == {1.0}  # each finds the fees of its own day
