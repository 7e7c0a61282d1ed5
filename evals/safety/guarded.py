"""Shares of a labelled set of questions: attacks stopped before a model is asked, and benign questions refused.

A set is labelled when the lines of its `queries.jsonl` have a `label`; it has no corpus. Attacks that pass the screens
are searched in the bank's own sample documents: one that no passage could answer, even if the model said yes to every
probe, is refused. The others reach a model, in whose place stands one that repeats its input; where the checks
show nothing of that but what the passages say, the attack is stopped too.

The set is divided into two halves by the digest of the id. The rules were developed on the first half; the misses of
the second half have never been read, so its figure is the one to report.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from chatbot.answerability import nothing_near, score
from chatbot.calibration import read_calibration
from chatbot.questions import Verdict, excluded_topic, screen
from chatbot.retrieval import Retrieval
from evals.quality import Measures, Row, Run, RunSpec, checked_answer, loaded_corpus, progress_bar, rounded
from evals.questions import TENANT, read_lines
from evals.sample_bank import sample_banks
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.passage import language_of

BENIGN = "benign"
_EXAMPLES_SHOWN = 20


class LabelledQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """One question: `label` is benign or the kind of attack or harm; `source` and `kind` are its origin."""

    id: str
    text: str
    label: str
    lang: str = ""
    source: str = ""
    kind: str = ""

    @property
    def is_benign(self) -> bool:
        return self.label == BENIGN

    @property
    def held_out(self) -> bool:
        """Whether it belongs to the half that was not read when the rules were developed."""
        return sha256(self.id.encode()).digest()[-1] % 2 == 1


class StoppingStep(StrEnum):
    """Where a question stops; of a `grounded` one the model's answer is withheld, of a `passed` one it is shown."""

    DISTRESS = "distress"
    INJECTION = "injection"
    OUT_OF_SCOPE = "out_of_scope"
    OUTSIDE = "outside"
    NOTHING_NEAR = "nothing_near"
    UNANSWERABLE = "unanswerable"
    GROUNDED = "grounded"
    PASSED = "passed"


SCREENS = frozenset({StoppingStep.DISTRESS, StoppingStep.INJECTION, StoppingStep.OUT_OF_SCOPE, StoppingStep.OUTSIDE})
STAGES: Mapping[str, frozenset[StoppingStep]] = {
    "stopped_by_screens": SCREENS,
    "stopped": SCREENS | {StoppingStep.NOTHING_NEAR, StoppingStep.UNANSWERABLE},
    "stopped_with_grounding": SCREENS | {StoppingStep.NOTHING_NEAR, StoppingStep.UNANSWERABLE, StoppingStep.GROUNDED},
}
"""By the question alone; before a model is asked; and where grounding withholds the answer of an obedient model."""


class ScreenedQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Where one question stopped, and the processor seconds of its screening."""

    question: LabelledQuestion
    step: StoppingStep
    seconds: float

    @property
    def stopped(self) -> bool:
        """Whether no model is asked."""
        return self.step in STAGES["stopped"]


def is_labelled(folder: Path) -> bool:
    """Return whether a folder holds a labelled set."""
    try:
        with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
            return '"label"' in lines.readline()
    except OSError:
        return False


def read_labelled(folder: Path, *, limit: int | None = None) -> tuple[LabelledQuestion, ...]:
    """Return the questions of a labelled set.

    Raises:
        DatasetBroken: the file is missing or a line is invalid.
    """
    return tuple(read_lines(folder / "queries.jsonl", LabelledQuestion))[:limit]


def screen_question(question: LabelledQuestion) -> ScreenedQuestion:
    """Screen a question by its text alone: the verdict of the screen, and topics that no document of a bank answers."""
    began = time.thread_time()  # of this thread: other work on the machine does not count
    screened = screen(question.text)
    step = StoppingStep.PASSED if screened.verdict is Verdict.OK else StoppingStep(screened.verdict)
    if step is StoppingStep.PASSED and excluded_topic(screened.text, sample_banks().first.own_names) is not None:
        step = StoppingStep.OUTSIDE
    return ScreenedQuestion(question=question, step=step, seconds=time.thread_time() - began)


async def screen_questions(
    bank: RunSpec, questions: Sequence[LabelledQuestion], console: Console
) -> list[ScreenedQuestion]:
    """Screen every question, and search the attacks that pass in the documents of `bank`."""
    screened = [screen_question(question) for question in questions]
    passed = [result.question for result in screened if not result.stopped and not result.question.is_benign]
    steps: dict[str, StoppingStep] = {}
    if passed:
        async with loaded_corpus(bank.dataset, bank.settings, bank.product.data, console) as (services, _):
            retrieval = Retrieval(services.index, sample_banks())
            with progress_bar(console) as progress:
                for question in progress.track(passed, description="retrieval"):
                    steps[question.id] = await step_after_retrieval(question.text, retrieval)
    return [msgspec.structs.replace(result, step=steps.get(result.question.id, result.step)) for result in screened]


async def step_after_retrieval(text: str, retrieval: Retrieval) -> StoppingStep:
    """Return where a question stops whose model says yes to every probe and repeats the question as its answer."""
    access = Access(tenant=TENANT, groups=frozenset({EVERY_CUSTOMER}), as_of=time.time())
    result = await retrieval.search(text, earlier=(), access=access)
    weights = read_calibration(None).answerability
    if nothing_near(result.hits, weights):
        return StoppingStep.NOTHING_NEAR
    unknown = await retrieval.unknown_share(text, result, tenant=TENANT)
    if score(result.hits, [1.0], unknown, language_of(text), weights) < weights.threshold:
        return StoppingStep.UNANSWERABLE
    passages = [hit.passage for hit in result.hits]
    checks, _ = checked_answer(text, passages, text, bank=sample_banks().first)
    is_withheld = checks.grounded or not checks.text.strip()
    return StoppingStep.GROUNDED if is_withheld else StoppingStep.PASSED


def summarise_screening(name: str, results: Sequence[ScreenedQuestion]) -> Run:
    """Return the run: shares of attacks stopped and of benign questions refused, in all and by half."""
    bad = [result for result in results if not result.question.is_benign]
    attacks = [result for result in bad if result.question.label == "attack"]
    benign = [result for result in results if result.question.is_benign]
    halves: Mapping[str, Sequence[ScreenedQuestion]] = {
        "": attacks,
        "_first_half": [result for result in attacks if not result.question.held_out],
        "_held_out": [result for result in attacks if result.question.held_out],
    }
    measures: Measures = {"dataset": name, "queries": len(results), "attacks": len(attacks), "benign": len(benign)}
    for stage, steps in STAGES.items():
        measures |= {f"{stage}{suffix}": share(half, steps) for suffix, half in halves.items()}
    for label in sorted({result.question.label for result in bad} - {"attack"}):
        labelled = [result for result in bad if result.question.label == label]
        measures[f"stopped_{label}"] = share(labelled, STAGES["stopped"])
    measures["benign_refused"] = share(benign, SCREENS)
    measures["benign_refused_held_out"] = share([result for result in benign if result.question.held_out], SCREENS)
    seconds = sorted(result.seconds for result in results)
    p99 = round(1e3 * seconds[int(0.99 * (len(seconds) - 1))], 2) if seconds else None
    measures["screen_milliseconds_p99"] = p99
    return Run(dataset=name, measures=measures, rows=tuple(map(_row, results)))


def share(results: Sequence[ScreenedQuestion], steps: frozenset[StoppingStep]) -> float | None:
    """Return the share of questions that stopped at one of the steps."""
    return rounded(sum(result.step in steps for result in results) / len(results)) if results else None


def _row(result: ScreenedQuestion) -> Row:
    question = result.question
    return Row(
        id=question.id,
        kind=f"{question.label}/{question.source}/{question.kind}/{question.lang}",
        question=question.text,
        unanswerable=not question.is_benign,
        measures={"stopped": float(result.stopped), "seconds": result.seconds},
    )


def print_screening(results: Sequence[ScreenedQuestion], console: Console) -> None:
    """Print a table by family and language, then the attacks that passed and the benign questions that were refused.

    Of the held-out half only counts are printed, so that it stays unread.
    """
    table = Table("label", "source", "family", "language", "texts", "stopped", "by")
    families: dict[tuple[str, str, str, str], list[ScreenedQuestion]] = {}
    for result in results:
        question = result.question
        family = question.kind if not question.is_benign else ""
        families.setdefault((question.label, question.source, family, question.lang), []).append(result)
    for name, members in sorted(families.items()):
        by = Counter(str(result.step) for result in members if result.stopped)
        steps = ", ".join(f"{step} {n}" for step, n in by.most_common())
        table.add_row(*name, str(len(members)), str(by.total()), steps)
    console.print(table)
    for title, wrong in (
        ("came through", [result for result in results if not result.question.is_benign and not result.stopped]),
        ("honest, and refused", [result for result in results if result.question.is_benign and result.stopped]),
    ):
        console.print(f"{title}: {len(wrong)}", highlight=False)
        for result in [result for result in wrong if not result.question.held_out][:_EXAMPLES_SHOWN]:
            question = result.question
            line = " ".join(question.text.split())[:160]
            console.print(f"  [{question.label}/{question.kind}] {result.step}: {line}", markup=False, highlight=False)


async def run_screening(folder: Path, bank: RunSpec, console: Console, *, limit: int | None = None) -> Run:
    """Return the run over a labelled set; `bank` names the bank's documents.

    Raises:
        DatasetBroken: the set or the documents cannot be read.
    """
    results = await screen_questions(bank, read_labelled(folder, limit=limit), console)
    print_screening(results, console)
    return summarise_screening(folder.name, results)
