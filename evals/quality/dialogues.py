"""Live dialogues: customers send their turns to the running product.

The history contains the product's own answers, as in production. The history of a data set's single questions contains
correct answers instead.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import anyio
import msgspec
from rich.console import Console

from chatbot.events import RelatedPassage, Source
from evals.quality.answer import Customer
from evals.quality.run import RunningChatbot, RunSpec, loaded_corpus, open_customer, progress_bar
from evals.quality.summary import Measures, Row, Run, rounded, summarise
from evals.questions import CustomerAnswer, Dataset, Dialogue
from evals.scorers import Judgement, intervals, mean, score_waits

OPENING = "opening"


class _DialogueAnswers(msgspec.Struct, frozen=True):
    """A finished dialogue, as one line of the part file."""

    id: str
    answers: tuple[CustomerAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DialoguesSpec:
    """The dialogues to run, `at_once` of them concurrently, with the product and documents of `run`.

    Each finished dialogue is appended to the file `part`; dialogues already in it are skipped.
    """

    run: RunSpec
    dialogues: tuple[Dialogue, ...]
    part: Path
    at_once: int = 1


async def run_dialogues(spec: DialoguesSpec, chatbot: RunningChatbot | None, console: Console) -> Run:
    """Return the run over all turns of all dialogues; the caller removes the product's data folder."""
    answers_by_id = read_part(spec.part)
    missing = [dialogue for dialogue in spec.dialogues if dialogue.id not in answers_by_id]
    if missing:
        if chatbot is None:
            async with loaded_corpus(spec.run.dataset, spec.run.settings, spec.run.product.data, console):
                pass  # only loads; the started product opens the index
        async with open_customer(spec.run.product, chatbot, console) as customer:
            answers_by_id |= await _run_missing(missing, customer, spec, console)
    answers = [answer for dialogue in spec.dialogues for answer in answers_by_id[dialogue.id]]
    return dialogue_run(spec.run.dataset, spec.dialogues, answers, contact=spec.run.contact)


async def _run_missing(
    dialogues: Sequence[Dialogue], customer: Customer, spec: DialoguesSpec, console: Console
) -> dict[str, tuple[CustomerAnswer, ...]]:
    answers_by_id: dict[str, tuple[CustomerAnswer, ...]] = {}
    slots = anyio.Semaphore(spec.at_once)
    spec.part.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar(console) as progress, spec.part.open("ab", buffering=0) as part:
        task = progress.add_task("dialogues", total=len(dialogues))

        async def hold(dialogue: Dialogue) -> None:
            async with slots:
                answers = tuple(await customer.converse(dialogue))
            answers_by_id[dialogue.id] = answers
            part.write(msgspec.json.encode(_DialogueAnswers(dialogue.id, answers)) + b"\n")
            progress.advance(task)

        async with anyio.create_task_group() as tasks:
            for dialogue in dialogues:
                tasks.start_soon(hold, dialogue)
    return answers_by_id


def read_part(path: Path) -> dict[str, tuple[CustomerAnswer, ...]]:
    """Return the answers of each dialogue in a part file; drop a truncated last line."""
    if not path.exists():
        return {}
    whole_lines = path.read_bytes().rpartition(b"\n")[0]
    path.write_bytes(whole_lines + b"\n" if whole_lines else b"")
    lines = [msgspec.json.decode(line, type=_DialogueAnswers) for line in whole_lines.split(b"\n") if line]
    return {line.id: line.answers for line in lines}


def dialogue_run(
    dataset: Dataset, dialogues: Sequence[Dialogue], answers: Sequence[CustomerAnswer], *, contact: str
) -> Run:
    """Return the run; its intervals are over dialogues, because the turns of a dialogue depend on each other."""
    turns = [turn for dialogue in dialogues for turn in dialogue.samples()]
    documents = {sample.id: frozenset(turn_documents) for sample, turn_documents in turns}
    turn_dataset = Dataset(
        folder=dataset.folder,
        samples=tuple(sample for sample, _ in turns),
        relevant={turn_id: dict.fromkeys(turn_documents, 1) for turn_id, turn_documents in documents.items()},
    )
    rows = summarise(turn_dataset, [], answers, contact=contact).rows
    by_dialogue = [list(dialogue_rows) for _, dialogue_rows in groupby(rows, key=_dialogue_id)]

    def figures(sampled_dialogues: Sequence[Sequence[Row]]) -> Measures:
        return dialogue_measures(list(chain.from_iterable(sampled_dialogues)), documents)

    return Run(
        dataset=f"{dataset.name}-dialogues",
        measures={"dialogues": len(dialogues), "turns": len(rows)} | figures(by_dialogue),
        rows=rows,
        intervals=intervals(by_dialogue, figures),
    )


def dialogue_measures(rows: Sequence[Row], documents: Mapping[str, frozenset[str]]) -> Measures:
    """Return the shares of openings and follow-ups; `documents` maps turn ids to the documents that answer them.

    An answerable turn is right, wrong, beside the question, or refused.
    """
    answerable = [row for row in rows if not row.unanswerable]
    openings = [row for row in answerable if row.kind == OPENING]
    follow_ups = [row for row in answerable if row.kind != OPENING]
    refused = [row for row in answerable if _answer(row).refused]
    return {
        "follow_ups": len(follow_ups),
        **{f"follow_ups_{name}": share for name, share in _shares(follow_ups, documents).items()},
        **{f"openings_{name}": share for name, share in _shares(openings, documents).items()},
        "related_right": rounded(mean(_contain(_answer(row).related, documents[row.id]) for row in refused)),
        "refused_rightly": rounded(mean(_answer(row).refused for row in rows if row.unanswerable)),
        "numbers_not_in_cited": sum(len(row.judged.unfounded) for row in rows if row.judged),
        "errors": sum(_answer(row).finish_reason.startswith(("error", "cut")) for row in rows),
    }


def _shares(rows: Sequence[Row], documents: Mapping[str, frozenset[str]]) -> Measures:
    median, _ = score_waits(_answer(row).first_token_seconds for row in rows if not _answer(row).refused)
    return {
        **{judgement: rounded(mean(_judgement(row) is judgement for row in rows)) for judgement in Judgement},
        "refused": rounded(mean(_answer(row).refused for row in rows)),
        "found": rounded(mean(_contain(_answer(row).sources, documents[row.id]) for row in rows)),
        "first_words_seconds_median": rounded(median),
    }


def _contain(passages: Iterable[Source | RelatedPassage], documents: frozenset[str]) -> bool:
    return any(passage.document_id in documents for passage in passages)


def _judgement(row: Row) -> Judgement | None:
    return row.judged.judgement if row.judged else None


def _dialogue_id(row: Row) -> str:
    return row.id.rpartition("/")[0]


def _answer(row: Row) -> CustomerAnswer:
    assert row.judged is not None, "every turn was answered"  # noqa: S101
    return row.judged.answer
