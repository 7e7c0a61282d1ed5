"""The `evals` command: score retrieval and answers on a data set, compare two runs, report against gates."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from chatbot.api import LocalSigner, key_pair
from chatbot.errors import StoreUnavailable
from evals.product import ProductNotStarted, ProductSpec, interrupt_on_sigterm
from evals.quality import (
    DAY,
    NotAdopted,
    NotComparable,
    Run,
    RunBroken,
    RunningChatbot,
    RunSpec,
    TriageBroken,
    TriageSettings,
    adopt,
    compare,
    drift,
    evaluate,
    fit_report,
    gate_run,
    merge_decisions,
    page,
    probe_answerability,
    read_cases,
    read_feedback,
    read_probes,
    read_run,
    record,
    verdict,
    write_cases,
    write_probes,
    write_run,
)
from evals.quality import report as reports
from evals.questions import HANBIT, CorpusNotLoaded, DatasetBroken, RecordingBroken, read_dataset, write_recording
from evals.safety import is_labelled, run_screening
from ingest.errors import IngestError
from ingest.parsing import WeightsMissing
from ingest.settings import Settings
from telemetry.groups import leaves
from telemetry.logs import configure_logs

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
TASKS = Path(__file__).parent / "tasks"
TASK = TASKS / "hanbit.yaml"
GATES = [TASKS / "recorded.yaml", TASKS / "retrieval.yaml"]
GOLDEN = Path("evals/datasets/hanbit")
EXPECTED_ERRORS = (
    DatasetBroken,
    CorpusNotLoaded,
    ProductNotStarted,
    RunBroken,
    NotComparable,
    WeightsMissing,
    IngestError,
    reports.TaskBroken,
    RecordingBroken,
    TriageBroken,
    drift.DriftBroken,
    NotAdopted,
    StoreUnavailable,
    SQLAlchemyError,
    RedisError,
)

DatasetOption = Annotated[Path, typer.Option("--dataset", help="A folder with queries.jsonl, qrels.tsv and a corpus.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")]
SplitOption = Annotated[str | None, typer.Option(help="Only the questions of one split: dev or test.")]
ProfileOption = Annotated[str, typer.Option(help="The llm-server profile that answers.")]


@contextmanager
def one_sentence() -> Iterator[None]:
    """Print an expected error as one line and exit with code 2."""
    try:
        yield
    except* EXPECTED_ERRORS as failed:
        for exc in leaves(failed):
            typer.echo(f"evals: {exc}", err=True)
        raise typer.Exit(2) from failed


def run_spec(
    dataset: Path, *, limit: int | None, answers: bool, profile: str, data: Path, split: str | None = None
) -> RunSpec:
    """Return the run's specification with the environment's settings; from now on SIGTERM interrupts like Ctrl-C."""
    interrupt_on_sigterm()
    configure_logs(level="WARNING", log_format="console")
    settings = Settings()
    product = ProductSpec(
        profile=profile, data=data, weights=settings.weights_dir.expanduser().resolve(), environment=dict(os.environ)
    )
    questions = read_dataset(dataset, limit=limit, split=split)
    return RunSpec(dataset=questions, settings=settings, product=product, answers=answers)


def timed_run(spec: RunSpec, chatbot: RunningChatbot | None = None) -> Run:
    """Run with a progress bar on stderr, and measure the seconds that it takes."""
    began = time.monotonic()
    run = anyio.run(evaluate, spec, chatbot, Console(stderr=True))
    run.measures["seconds"] = round(time.monotonic() - began, 1)
    return run


@app.command()
def run(  # noqa: PLR0917  a command takes its options
    dataset: DatasetOption,
    against: Annotated[str | None, typer.Option(help="With --answers: URL of a running chatbot to ask.")] = None,
    answers: Annotated[bool, typer.Option("--answers", help="Ask the product, not its retrieval alone.")] = False,
    halves: Annotated[
        bool, typer.Option("--halves", help="Search with each half of retrieval alone too, and compare.")
    ] = False,
    limit: LimitOption = None,
    split: SplitOption = None,
    output: Annotated[Path | None, typer.Option(help="Where to write every question's result as JSON.")] = None,
    profile: ProfileOption = "cpu",
    contact: Annotated[str, typer.Option(help="The bank's telephone number, which needs no citation.")] = "1599-0000",
    data_dir: Annotated[Path, typer.Option(help="With --against: whose demo key signs our tokens.")] = Path(".data"),
) -> None:
    """Score a data set and print one JSON line; of a labelled set, what is stopped before any model is asked."""
    with one_sentence(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
        chatbot = None
        if against is not None:
            chatbot = RunningChatbot(url=against, signer=LocalSigner(key_pair(data_dir)[0].read_text("ascii")))
        if is_labelled(dataset):
            bank = run_spec(HANBIT, limit=None, answers=False, profile=profile, data=Path(folder))
            finished = anyio.run(partial(run_screening, dataset, bank, Console(stderr=True), limit=limit))
        else:
            spec = run_spec(dataset, limit=limit, answers=answers, profile=profile, data=Path(folder), split=split)
            finished = timed_run(replace(spec, contact=contact, halves=halves), chatbot)
    if output is not None:
        write_run(finished, output)
    intervals = {name: [interval.low, interval.high] for name, interval in finished.intervals.items()}
    typer.echo(json.dumps({**finished.measures, "intervals_95": intervals}, ensure_ascii=False))


@app.command("compare")
def compare_runs(
    a: Annotated[Path, typer.Argument(help="A run written by `evals run --output`.")],
    b: Annotated[Path, typer.Argument(help="Another run over the same questions.")],
    fail_if_worse: Annotated[bool, typer.Option("--fail-if-worse", help="Exit 1 where B is worse.")] = False,
) -> None:
    """Say for each measure whether run B differs from run A, by paired bootstrap over the questions."""
    with one_sentence():
        differences = compare(read_run(a), read_run(b))
    table = Table("measure", "A", "B", "finding")
    for difference in differences:
        table.add_row(difference.measure, f"{difference.a:.4f}", f"{difference.b:.4f}", difference.sentence)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    typer.echo(verdict(differences))
    if fail_if_worse and any(difference.is_worse for difference in differences):
        raise typer.Exit(1)


@app.command()
def report(
    dataset: Annotated[Path | None, typer.Option(help="Another folder than the task's.")] = None,
    profile: Annotated[str | None, typer.Option(help="Another profile than the task's.")] = None,
    task: Annotated[Path, typer.Option(help="Data set, profile and gates.")] = TASK,
    limit: LimitOption = None,
    split: SplitOption = None,
    output: Annotated[Path, typer.Option(help="Where the run and the page go.")] = Path(".data/evals"),
) -> None:
    """Run a task with answers, print its table, write a page of the worst cases; exit 1 below a gate."""
    with one_sentence(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
        described = reports.read_task(task)
        spec = run_spec(
            dataset or described.dataset,
            limit=limit,
            answers=True,
            profile=profile or described.profile,
            data=Path(folder),
            split=split,
        )
        finished = timed_run(replace(spec, contact=described.contact))
    written = write_report(finished, described.gates, output / f"{finished.dataset}-{spec.product.profile}")
    if not print_gates(finished, described.gates):
        raise typer.Exit(1)
    typer.echo(f"the worst cases to read: {written}")


def write_report(run: Run, gates: tuple[reports.Gate, ...], stem: Path) -> Path:
    """Write a run and its page beside each other; return the path of the page."""
    write_run(run, stem.with_suffix(".json"))
    stem.with_suffix(".html").write_text(page(run, gates), "utf-8")
    return stem.with_suffix(".html")


def print_gates(run: Run, gates: tuple[reports.Gate, ...]) -> bool:
    """Print the measures with their gates; return whether every gate holds."""
    table = Table("measure", "value", "95 % interval", "gate", "")
    lines = reports.lines(run, gates)
    for line in lines:
        interval = run.intervals.get(line.measure)
        between = f"{interval.low:.3f} to {interval.high:.3f}" if interval else ""
        holds = {None: "", True: "holds", False: "MISSED"}[line.holds]
        table.add_row(line.measure, line.value, between, line.bound, holds)
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    return all(line.holds is not False for line in lines)


@app.command("record")
def record_answers(
    dataset: DatasetOption = GOLDEN,
    profile: ProfileOption = "cpu",
    split: SplitOption = None,
    limit: LimitOption = None,
    at_once: Annotated[int, typer.Option(min=1, help="So many questions side by side.")] = 4,
    output: Annotated[Path, typer.Option(help="Where the recording goes.")] = GOLDEN / "recorded.jsonl",
) -> None:
    """Ask a model every question as a turn does, and record its answers for `evals gate`.

    A run that was stopped continues where it ended: an incomplete recording is in OUTPUT.part.
    """
    part = output.with_name(f"{output.name}.part")
    with one_sentence(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
        spec = run_spec(dataset, limit=limit, answers=False, profile=profile, data=Path(folder), split=split)
        write_recording(anyio.run(partial(record, part=part, at_once=at_once), spec, Console(stderr=True)), output)
    part.unlink()


@app.command()
def gate(
    task: Annotated[list[Path], typer.Option(help="Data set, gates, and perhaps a recording.")] = GATES,
    output: Annotated[Path, typer.Option(help="Where runs and pages go.")] = Path(".data/evals"),
) -> None:
    """Hold retrieval and recorded answers against their gates; exit 1 below one. No model server is needed."""
    all_hold = True
    for path in task:
        with one_sentence(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
            described = reports.read_task(path)
            spec = run_spec(described.dataset, limit=None, answers=False, profile="", data=Path(folder))
            finished = anyio.run(gate_run, described, spec, Console(stderr=True))
        write_report(finished, described.gates, output / f"gate-{path.stem}")
        all_hold = print_gates(finished, described.gates) and all_hold
    if not all_hold:
        raise typer.Exit(1)


@app.command("triage")
def list_feedback(
    output: Annotated[Path, typer.Argument(help="The list; one that is there keeps its decisions.")],
    tenant: Annotated[str, typer.Option(help="Whose customers.")] = "hanbit",
    days: Annotated[float, typer.Option(min=0, help="Ratings of so many days.")] = 30,
    rating: Annotated[str, typer.Option(help="down or up.")] = "down",
) -> None:
    """Write the answers that customers rated, without the customers' identity, as a list for staff to decide on."""
    with one_sentence():
        since = time.time() - days * DAY
        cases = anyio.run(partial(read_feedback, TriageSettings(), tenant=tenant, since=since, rating=rating))
        listed = merge_decisions(cases, read_cases(output))
        write_cases(listed, output)
    typer.echo(f"{len(listed)} questions in {output}, {sum(not case.decision for case in listed)} to decide on")


@app.command("adopt")
def adopt_cases(
    cases: Annotated[Path, typer.Argument(help="A list of `evals triage`, with decisions.")],
    dataset: DatasetOption = GOLDEN,
) -> None:
    """Append the adopted cases of a list to the golden questions, where the documents prove their answers."""
    with one_sentence():
        adopted = adopt(read_cases(cases), dataset)
    typer.echo(f"{len(adopted.queries)} questions adopted into {dataset}")


@app.command()
def calibrate(
    dataset: DatasetOption = GOLDEN,
    probes: Annotated[Path | None, typer.Option(help="Fit these probes again instead of asking the model.")] = None,
    output: Annotated[Path, typer.Option(help="Where the probes go.")] = Path(".data/evals/probes.json"),
    limit: LimitOption = None,
    profile: ProfileOption = "cpu",
) -> None:
    """Ask the probe of chatbot/answerability.py for every question, fit its weights on one half, check the other."""
    with one_sentence(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
        if probes is None:
            spec = run_spec(dataset, limit=limit, answers=False, profile=profile, data=Path(folder), split="dev")
            probes = output
            write_probes(anyio.run(probe_answerability, spec, Console(stderr=True)), probes)
        typer.echo(fit_report(read_probes(probes)))


@app.command("drift")
def report_drift(
    reference: Annotated[Path, typer.Option(help="The file that the chatbots have as DRIFT__REFERENCE.")],
    against: Annotated[str, typer.Option(help="URL of Prometheus, or of one chatbot's /metrics.")],
    namespace: Annotated[str | None, typer.Option(help="Only the chatbots of this namespace.")] = None,
    days: Annotated[float, typer.Option(min=0.01, help="How far back, where Prometheus is asked.")] = 7,
    output: Annotated[Path | None, typer.Option(help="Where it goes: .html for a page, else Markdown.")] = None,
) -> None:
    """Report how far questions and answers have moved from a reference window (docs/runbooks/drift.md)."""
    with one_sentence():
        window = drift.read_reference(reference)
        counts = anyio.run(partial(drift.fetch_counts, against, window, namespace=namespace, days=days))
        lines = drift.drift_lines(window, counts)
    render = drift.page if output is not None and output.suffix == ".html" else drift.markdown
    text = render(window, lines, days=days)
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text, "utf-8")


if __name__ == "__main__":
    app()
