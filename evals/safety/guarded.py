"""What of a labelled set of questions is stopped before any model is asked, and how many honest ones are refused.

A set is labelled when the lines of its `queries.jsonl` carry a `label`; it has no corpus. Attacks that pass the screens
are looked up in the bank's own sample documents: one that no passage could answer, were the model to say yes to
everything, is refused as out of scope. What is left reaches a model: one that repeats what it is told stands in for it,
and where strict grounding shows nothing of that but what the passages say, the attack is stopped too.

The set is cut into two halves by the digest of the id. The rules were made with the first half in sight; the second
half's misses have never been read, so its figure is the one to report.
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

from chatbot.answerability import AnswerabilitySettings, nothing_near, score
from chatbot.grounding import GroundingMode, grounding_stream
from chatbot.questions import Verdict, excluded_topic, screen
from chatbot.retrieval import Retrieval, RetrievalSettings, SearchResult
from evals.quality import Errand, Measures, Row, Run, bar, loaded, rounded
from evals.questions import TENANT, read_lines
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.glossary import load_glossary
from knowledge.passage import language_of

BANK = ("한빛은행", "Hanbit Bank")
BENIGN = "benign"
_WORST = 20


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """One text: `label` is benign, or names what is wrong with it; `source` and `kind` say where it is from."""

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
        """Whether it belongs to the half that nobody read while the rules were made."""
        return sha256(self.id.encode()).digest()[-1] % 2 == 1


class Step(StrEnum):
    """Where a text stops; `grounded` reaches a model whose words are withheld, `passed` would be shown them."""

    DISTRESS = "distress"
    INJECTION = "injection"
    OUT_OF_SCOPE = "out_of_scope"
    OUTSIDE = "outside"
    NOTHING_NEAR = "nothing_near"
    UNANSWERABLE = "unanswerable"
    GROUNDED = "grounded"
    PASSED = "passed"


SCREENS = frozenset({Step.DISTRESS, Step.INJECTION, Step.OUT_OF_SCOPE, Step.OUTSIDE})
STAGES: Mapping[str, frozenset[Step]] = {
    "stopped_by_screens": SCREENS,
    "stopped": SCREENS | {Step.NOTHING_NEAR, Step.UNANSWERABLE},
    "stopped_with_grounding": SCREENS | {Step.NOTHING_NEAR, Step.UNANSWERABLE, Step.GROUNDED},
}
"""By the question alone; before any model is asked; and with what strict grounding withholds of an obedient model."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """Where one text stopped, and the seconds of processor that screening it took."""

    text: Labelled
    step: Step
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


def read_labelled(folder: Path, *, limit: int | None = None) -> tuple[Labelled, ...]:
    """Return the texts of a labelled set.

    Raises:
        DatasetBroken: the file is missing or a line is not what it should be.
    """
    return tuple(read_lines(folder / "queries.jsonl", Labelled))[:limit]


def screened(text: Labelled) -> Judged:
    """Return what the question alone tells: the guard's verdict, and what no document of the bank can answer."""
    began = time.thread_time()  # of this thread: whatever else runs on the machine is not ours
    found = screen(text.text)
    step = Step.PASSED if found.verdict is Verdict.OK else Step(found.verdict)
    if step is Step.PASSED and excluded_topic(found.text, BANK) is not None:
        step = Step.OUTSIDE
    return Judged(text=text, step=step, seconds=time.thread_time() - began)


async def guarded(what: Errand, texts: Sequence[Labelled], console: Console) -> list[Judged]:
    """Screen every text, and look those attacks up that pass; `what` says which documents the bank has."""
    judged = [screened(text) for text in texts]
    passed = [one for one in judged if not one.stopped and not one.text.is_benign]
    steps: dict[str, Step] = {}
    if passed:
        async with loaded(what.dataset, what.settings, what.wanted.data, console) as (services, _):
            retrieval = Retrieval(services.index, RetrievalSettings(), load_glossary(), own_names=BANK)
            with bar(console) as progress:
                for one in progress.track(passed, description="retrieval"):
                    steps[one.text.id] = await looked_up(one.text, retrieval)
    return [msgspec.structs.replace(one, step=steps.get(one.text.id, one.step)) for one in judged]


async def looked_up(text: Labelled, retrieval: Retrieval) -> Step:
    """Return whether any passage could answer the text, however readily the model said so."""
    access = Access(tenant=TENANT, groups=frozenset({EVERY_CUSTOMER}), as_of=time.time())
    found = await retrieval.search(text.text, earlier=(), access=access)
    settings = AnswerabilitySettings()
    if nothing_near(found.hits, settings):
        return Step.NOTHING_NEAR
    if await _if_a_model_says_yes(text, found, retrieval) < settings.threshold:
        return Step.UNANSWERABLE
    return Step.GROUNDED if withheld(text, found) else Step.PASSED


def withheld(text: Labelled, found: SearchResult) -> bool:
    """Return whether a model that repeats the text is shown with nothing that the passages do not say."""
    passages = [hit.passage for hit in found.hits]
    checks = grounding_stream(text.text, passages, grounding=GroundingMode.STRICT)
    checks.feed(text.text)
    checks.close()
    return checks.grounded or not checks.text.strip()


async def _if_a_model_says_yes(text: Labelled, found: SearchResult, retrieval: Retrieval) -> float:
    unknown = await retrieval.unknown_share(text.text, found)
    return score(found.hits, [1.0], unknown, language_of(text.text), AnswerabilitySettings())


def summarise(name: str, judged: Sequence[Judged]) -> Run:
    """Return the run: shares of attacks stopped and of honest questions refused, whole and by half."""
    bad = [one for one in judged if not one.text.is_benign]
    attacks = [one for one in bad if one.text.label == "attack"]
    benign = [one for one in judged if one.text.is_benign]
    halves: Mapping[str, Sequence[Judged]] = {
        "": attacks,
        "_first_half": [one for one in attacks if not one.text.held_out],
        "_held_out": [one for one in attacks if one.text.held_out],
    }
    measures: Measures = {"dataset": name, "queries": len(judged), "attacks": len(attacks), "benign": len(benign)}
    for stage, steps in STAGES.items():
        measures |= {f"{stage}{suffix}": share(ones, steps) for suffix, ones in halves.items()}
    for label in sorted({one.text.label for one in bad} - {"attack"}):
        measures[f"stopped_{label}"] = share([one for one in bad if one.text.label == label], STAGES["stopped"])
    measures["benign_refused"] = share(benign, SCREENS)
    measures["benign_refused_held_out"] = share([one for one in benign if one.text.held_out], SCREENS)
    waits = sorted(one.seconds for one in judged)
    measures["screen_milliseconds_p99"] = round(1e3 * waits[int(0.99 * (len(waits) - 1))], 2) if waits else None
    return Run(dataset=name, measures=measures, rows=tuple(_row(one) for one in judged))


def share(judged: Sequence[Judged], steps: frozenset[Step]) -> float | None:
    """Return the share that stopped at one of the steps."""
    return rounded(sum(one.step in steps for one in judged) / len(judged)) if judged else None


def _row(one: Judged) -> Row:
    return Row(
        id=one.text.id,
        kind=f"{one.text.label}/{one.text.source}/{one.text.kind}/{one.text.lang}",
        question=one.text.text,
        unanswerable=not one.text.is_benign,
        measures={"stopped": float(one.stopped), "seconds": one.seconds},
    )


def show(judged: Sequence[Judged], console: Console) -> None:
    """Print a table by family and language, then what came through and which honest questions were refused.

    Of the half that is held out only the counts are shown, so that it stays unread.
    """
    table = Table("label", "source", "family", "language", "texts", "stopped", "by")
    families: dict[tuple[str, str, str, str], list[Judged]] = {}
    for one in judged:
        text = one.text
        family = text.kind if not text.is_benign else ""
        families.setdefault((text.label, text.source, family, text.lang), []).append(one)
    for name, ones in sorted(families.items()):
        by = Counter(str(one.step) for one in ones if one.stopped)
        table.add_row(*name, str(len(ones)), str(by.total()), ", ".join(f"{step} {n}" for step, n in by.most_common()))
    console.print(table)
    for title, wrong in (
        ("came through", [one for one in judged if not one.text.is_benign and not one.stopped]),
        ("honest, and refused", [one for one in judged if one.text.is_benign and one.stopped]),
    ):
        console.print(f"{title}: {len(wrong)}", highlight=False)
        for one in [one for one in wrong if not one.text.held_out][:_WORST]:
            line = " ".join(one.text.text.split())[:160]
            console.print(f"  [{one.text.label}/{one.text.kind}] {one.step}: {line}", markup=False, highlight=False)


async def run_guarded(folder: Path, what: Errand, console: Console, *, limit: int | None = None) -> Run:
    """Return the run over a labelled set; `what` names the bank's documents.

    Raises:
        DatasetBroken: the set or the documents cannot be read.
    """
    judged = await guarded(what, read_labelled(folder, limit=limit), console)
    show(judged, console)
    return summarise(folder.name, judged)
