"""Turns decided cases into golden questions; a case that the documents do not prove is refused."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.quality.triage import FeedbackCase
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
"""A question that failed for a customer is worked on next, so it never counts as unseen."""


class NotAdopted(Exception):
    """Some cases cannot become golden questions; the message says why for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedLines:
    """The lines that were appended to a data set's two files."""

    queries: tuple[str, ...]
    qrels: tuple[str, ...]


def adopt(cases: Sequence[FeedbackCase], folder: Path) -> AdoptedLines:
    """Append the cases with the decision "adopt" to the data set in a folder; none of them where one is refused.

    Raises:
        DatasetBroken: the folder holds no data set.
        NotAdopted: a case is incomplete, not proved by the documents, or still identifies a person.
    """
    dataset = read_dataset(folder)
    texts = document_texts(folder / "documents")
    known = {sample.id for sample in dataset.samples}
    new = [case for case in cases if case.decision == ADOPT and case.id not in known]
    refused = [f"{case.id}: {why}" for case in new for why in objections(case, dataset, texts)]
    refused += [f"{case.id}: decision is {case.decision!r}" for case in cases if case.decision not in ("", ADOPT, DROP)]
    if refused:
        raise NotAdopted("; ".join(refused))
    adopted = AdoptedLines(
        queries=tuple(json.dumps(query_of(case), ensure_ascii=False) for case in new),
        qrels=tuple(f"{case.id}\t{document}\t1" for case in new for document in case.documents),
    )
    _append(folder / "queries.jsonl", adopted.queries)
    _append(folder / "qrels.tsv", adopted.qrels)
    return adopted


def objections(case: FeedbackCase, dataset: Dataset, texts: Mapping[str, str]) -> Iterator[str]:
    """Yield the reasons why a case cannot be a golden question."""
    if any(_is_same_question(case, sample) for sample in dataset.samples):
        yield "the data set asks this already"
    texts_of_case = [case.question, *(turn.text for turn in case.history)]
    # A masked identifier reads [계좌번호] or [account number]: staff rewrite the question without it.
    if any("[" in text or find_identifiers(text) for text in texts_of_case):
        yield "the question still names something personal: write it without"
    if not case.kind or case.unanswerable != case.kind.startswith("unanswerable_"):
        yield "kind is missing, or says otherwise than unanswerable"
    yield from _unproved_absence(case, texts) if case.unanswerable else _unproved_answer(case, texts)


def _is_same_question(case: FeedbackCase, sample: Sample) -> bool:
    same_history = [turn.text for turn in sample.history] == [turn.text for turn in case.history]
    return sample.text.split() == case.question.split() and same_history


def _unproved_answer(case: FeedbackCase, texts: Mapping[str, str]) -> Iterator[str]:
    if not case.answers or not case.documents:
        yield "answers or documents are missing"
    for name in case.documents:
        if not holds_answer(texts.get(name, ""), case.answers):
            yield f"{name} does not say any of the answers"


def _unproved_absence(case: FeedbackCase, texts: Mapping[str, str]) -> Iterator[str]:
    if case.answers or case.documents:
        yield "it is unanswerable and has answers"
    if not case.absent and case.kind not in NEEDS_NO_PROOF:
        yield "absent is missing: the words that no document has"
    for word in case.absent:
        if any(word.lower() in text.lower() for text in texts.values()):
            yield f"{word} stands in a document"


def query_of(case: FeedbackCase) -> dict[str, object]:
    """Return the case as a line of `queries.jsonl`."""
    query: dict[str, object] = {
        "id": case.id,
        "text": case.question,
        "answers": list(case.answers),
        "unanswerable": case.unanswerable,
        "kind": case.kind,
        "language": language_of(case.question),
    }
    if case.history:
        query["history"] = [{"role": turn.role, "text": turn.text} for turn in case.history]
    if case.absent:
        query["absent"] = list(case.absent)
    return {**query, "split": SPLIT}


def document_texts(folder: Path) -> dict[str, str]:
    """Return the text of every document's newest version by document id, as the product's parsers read it."""
    return {
        str(file.document_id): " ".join(page.markdown for page in read_document(file.path).pages)
        for file in find_files([folder])
    }


def _append(path: Path, lines: Sequence[str]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
