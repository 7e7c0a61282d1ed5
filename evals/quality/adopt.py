"""Turns cases that a person has decided on into golden questions; what is not proved by the documents is refused."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.quality.triage import Case
from evals.questions import Dataset, Sample, read_dataset
from evals.scorers import holds_answer
from ingest.bulk import find_files
from ingest.parsing import read_document
from knowledge.passage import language_of
from knowledge.screening import find_identifiers

ADOPT, DROP = "adopt", "drop"
NEEDS_NO_PROOF = frozenset(
    {"unanswerable_account", "unanswerable_advice", "unanswerable_attack", "unanswerable_future"}
)
SPLIT = "dev"
"""What failed in front of a customer is what is worked on next: it never counts as unseen."""


class NotAdopted(Exception):
    """Cases that cannot become golden questions; the message says of each why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """The lines that a data set's two files grow by."""

    queries: tuple[str, ...]
    qrels: tuple[str, ...]


def adopt(cases: Sequence[Case], folder: Path) -> Adopted:
    """Append the cases that are decided on to the data set in a folder; none of them where one is refused.

    Raises:
        DatasetBroken: the folder is no data set.
        NotAdopted: a case is not filled in, not proved by the documents, or still identifies somebody.
    """
    dataset = read_dataset(folder)
    texts = document_texts(folder / "documents")
    there = {sample.id for sample in dataset.samples}
    wanted = [case for case in cases if case.decision == ADOPT and case.id not in there]
    refused = [f"{case.id}: {why}" for case in wanted for why in objections(case, dataset, texts)]
    refused += [f"{case.id}: decision is {case.decision!r}" for case in cases if case.decision not in ("", ADOPT, DROP)]
    if refused:
        raise NotAdopted("; ".join(refused))
    adopted = Adopted(
        queries=tuple(json.dumps(query_of(case), ensure_ascii=False) for case in wanted),
        qrels=tuple(f"{case.id}\t{document}\t1" for case in wanted for document in case.documents),
    )
    _append(folder / "queries.jsonl", adopted.queries)
    _append(folder / "qrels.tsv", adopted.qrels)
    return adopted


def objections(case: Case, dataset: Dataset, texts: Mapping[str, str]) -> Iterator[str]:
    """Yield what keeps a case from being a golden question."""
    if any(_alike(case, sample) for sample in dataset.samples):
        yield "the data set asks this already"
    said = [case.question, *(said.text for said in case.history)]
    # A masked identifier reads [계좌번호] or [account number]: whoever adopts writes the question anew without it.
    if any("[" in text or find_identifiers(text) for text in said):
        yield "the question still names something personal: write it without"
    if not case.kind or case.unanswerable != case.kind.startswith("unanswerable_"):
        yield "kind is missing, or says otherwise than unanswerable"
    yield from _unproved_absence(case, texts) if case.unanswerable else _unproved_answer(case, texts)


def _alike(case: Case, sample: Sample) -> bool:
    same_history = [said.text for said in sample.history] == [said.text for said in case.history]
    return sample.text.split() == case.question.split() and same_history


def _unproved_answer(case: Case, texts: Mapping[str, str]) -> Iterator[str]:
    if not case.answers or not case.documents:
        yield "answers or documents are missing"
    for name in case.documents:
        if not holds_answer(texts.get(name, ""), case.answers):
            yield f"{name} does not say any of the answers"


def _unproved_absence(case: Case, texts: Mapping[str, str]) -> Iterator[str]:
    if case.answers or case.documents:
        yield "it is unanswerable and has answers"
    if not case.absent and case.kind not in NEEDS_NO_PROOF:
        yield "absent is missing: the words that no document has"
    for word in case.absent:
        if any(word.lower() in text.lower() for text in texts.values()):
            yield f"{word} stands in a document"


def query_of(case: Case) -> dict[str, object]:
    """Return the line of `queries.jsonl`."""
    query: dict[str, object] = {
        "id": case.id,
        "text": case.question,
        "answers": list(case.answers),
        "unanswerable": case.unanswerable,
        "kind": case.kind,
        "language": language_of(case.question),
    }
    if case.history:
        query["history"] = [{"role": said.role, "text": said.text} for said in case.history]
    if case.absent:
        query["absent"] = list(case.absent)
    return {**query, "split": SPLIT}


def document_texts(folder: Path) -> dict[str, str]:
    """Return the text of the newest version of every document, by its id, as the product's parsers read it."""
    return {
        str(file.document_id): " ".join(page.markdown for page in read_document(file.path).pages)
        for file in find_files([folder])
    }


def _append(path: Path, lines: Sequence[str]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
