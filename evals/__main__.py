"""Score retrieval and answers, compare runs, check gates, and calibrate."""

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
from rich.console import Console
from rich.table import Table

from chatbot.api import LocalSigner, key_pair
from chatbot.calibration import Calibration
from chatbot.models import ModelsMisconfigured
from evals.product import ProductNotStarted, ProductSpec, interrupt_on_sigterm
from evals.quality import calibrate, compare, dialogues, gate, golive, record, report, run, summary
from evals.questions import (
    CorpusNotLoaded,
    DatasetBroken,
    RecordingBroken,
    read_dataset,
    read_dialogues,
    read_recording,
    write_recording,
)
from evals.sample_bank import SAMPLE_BANK
from ingest.errors import IngestError
from ingest.parsing import WeightsMissing
from ingest.settings import Settings
from knowledge.bank import BankRefused, read_banks
from knowledge.command_line import add_common_help
from telemetry.groups import leaves
from telemetry.logs import configure_logs

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False, add_completion=False)
TASKS = Path(__file__).parent / "tasks"
GATES = [TASKS / f"{name}.yaml" for name in ("recorded", "recorded-written", "retrieval", "spoken")]
GOLDEN = Path("evals/datasets/hanbit")
OUTPUT = Path(".data/evals")
EXPECTED_ERRORS = (
    BankRefused, CorpusNotLoaded, DatasetBroken, IngestError, ModelsMisconfigured, ProductNotStarted, RecordingBroken,
    WeightsMissing, calibrate.NotCalibrated, compare.NotComparable, report.TaskBroken, summary.RunBroken,
)  # fmt: skip

CALIBRATE_HELP = "\n\n".join(  # one line per paragraph; the terminal wraps it
    (
        "Fit answerability to a bank's documents and questions.",
        "1. Make a folder: documents/ as `ingest load` takes it (or corpus.jsonl with id, title, text); queries.jsonl, "
        'one question a line, {"id": "q1", "text": "…", "answers": ["…"]} or '
        '{"id": "q2", "text": "…", "unanswerable": true}; '
        "qrels.tsv, the documents that answer each question (query-id, corpus-id, 1; its header alone is enough). Take "
        "about 100 questions as customers ask them, a third of which the documents do not answer.",
        "2. Run this with the chatbot's own environment (LLM_URLS or MODELS_FILE, EMBEDDER__…, "
        "BANK_FILE). Without an endpoint the model of --profile is started. It loads the documents, "
        "asks every question, and records the answers. After an interruption, the same command continues.",
        "3. Read OUTPUT/go-live.md, and set CALIBRATION_FILE to OUTPUT/calibration.yaml. For other bars, judge "
        "the recording again: --recording OUTPUT/recorded.jsonl --most-wrong 0.05.",
        "Exits with 1 if a bar is missed, with 2 if a file is not valid.",
    )
)
DatasetOption = Annotated[Path, typer.Option("--dataset", help="A folder with queries.jsonl, qrels.tsv and a corpus.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only this many first questions.")]
SplitOption = Annotated[str | None, typer.Option(help="Only the questions of one split: dev or test.")]
ProfileOption = Annotated[str, typer.Option(help="The llm-server profile that answers.")]
AgainstOption = Annotated[str | None, typer.Option(help="URL of a running chatbot to ask.")]
DataDirOption = Annotated[Path, typer.Option(help="With --against: the folder of the demo key that signs tokens.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print an expected error as one line and exit with code 2."""
    try:
        yield
    except* EXPECTED_ERRORS as group:
        for error in leaves(group):
            typer.echo(f"evals: {error}", err=True)
        raise typer.Exit(2) from group


def run_spec(
    dataset: Path, *, limit: int | None, answers: bool, profile: str, data: Path, split: str | None = None
) -> run.RunSpec:
    """Return the run's specification with settings from the environment; make SIGTERM interrupt like Ctrl-C."""
    interrupt_on_sigterm()
    configure_logs(level="WARNING", log_format="console")
    settings = Settings()
    weights = settings.weights_dir.expanduser().resolve()
    product = ProductSpec(profile=profile, data=data, weights=weights, environment=dict(os.environ))
    questions = read_dataset(dataset, limit=limit, split=split)
    return run.RunSpec(dataset=questions, settings=settings, product=product, answers=answers)


def running_chatbot(url: str | None, data_dir: Path) -> run.RunningChatbot | None:
    """Return a running chatbot with the demo key in `data_dir`; None without a URL."""
    if url is None:
        return None
    return run.RunningChatbot(url=url, signer=LocalSigner(key_pair(data_dir)[0].read_text("ascii")))


@app.command("run")
def score(  # noqa: PLR0917  a command takes its options
    dataset: DatasetOption,
    against: AgainstOption = None,
    answers: Annotated[bool, typer.Option("--answers", help="Also ask the product, not only its retrieval.")] = False,
    limit: LimitOption = None,
    split: SplitOption = None,
    output: Annotated[Path | None, typer.Option(help="Where to write every question's result as JSON.")] = None,
    profile: ProfileOption = "cpu",
    bank: Annotated[Path, typer.Option(help="The bank's file: its telephone number needs no citation.")] = SAMPLE_BANK,
    data_dir: DataDirOption = Path(".data"),
) -> None:
    """Score a data set and print one JSON line."""
    with one_line_errors(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
        spec = run_spec(dataset, limit=limit, answers=answers, profile=profile, data=Path(folder), split=split)
        finished = timed_run(replace(spec, contact=contact_of(bank)), running_chatbot(against, data_dir))
    if output is not None:
        summary.write_run(finished, output)
    intervals = {name: [interval.low, interval.high] for name, interval in finished.intervals.items()}
    typer.echo(json.dumps({**finished.measures, "intervals_95": intervals}, ensure_ascii=False))


def timed_run(spec: run.RunSpec, chatbot: run.RunningChatbot | None = None) -> summary.Run:
    """Run with a progress bar on stderr, and record the duration in seconds."""
    began = time.monotonic()
    finished = anyio.run(run.evaluate, spec, chatbot, Console(stderr=True))
    finished.measures["seconds"] = round(time.monotonic() - began, 1)
    return finished


def contact_of(bank: Path) -> str:
    """Return the telephone number in a bank file."""
    return read_banks(bank).first.telephone


@app.command("compare")
def compare_runs(
    a: Annotated[Path, typer.Argument(help="A run written by `evals run --output`.")],
    b: Annotated[Path, typer.Argument(help="Another run over the same questions.")],
    fail_if_worse: Annotated[bool, typer.Option("--fail-if-worse", help="Exit 1 where B is worse.")] = False,
) -> None:
    """Compare two runs by paired bootstrap over the questions."""
    with one_line_errors():
        differences = compare.compare(summary.read_run(a), summary.read_run(b))
    table = Table("measure", "A", "B", "finding")
    for difference in differences:
        table.add_row(difference.measure, f"{difference.a:.4f}", f"{difference.b:.4f}", difference.sentence)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    typer.echo(compare.verdict(differences))
    if fail_if_worse and any(difference.is_worse for difference in differences):
        raise typer.Exit(1)


@app.command("report")
def run_task(
    dataset: Annotated[Path | None, typer.Option(help="Another folder than the task's.")] = None,
    profile: Annotated[str | None, typer.Option(help="Another profile than the task's.")] = None,
    task: Annotated[Path, typer.Option(help="Data set, profile and gates.")] = TASKS / "hanbit.yaml",
    limit: LimitOption = None,
    split: SplitOption = None,
    output: Annotated[Path, typer.Option(help="Where the run and its report go.")] = OUTPUT,
) -> None:
    """Run a task with answers; exit with code 1 if a gate is missed."""
    with one_line_errors(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
        parsed_task = report.read_task(task)
        model = profile or parsed_task.profile
        spec = run_spec(
            dataset or parsed_task.dataset, limit=limit, answers=True, profile=model, data=Path(folder), split=split
        )
        finished = timed_run(replace(spec, contact=contact_of(parsed_task.bank)))
    write_and_check(finished, parsed_task.gates, output / f"{finished.dataset}-{model}")


def write_and_check(finished: summary.Run, gates: tuple[report.Gate, ...], stem: Path) -> None:
    """Write a run and its report side by side and print the measures; exit with code 1 if a gate is missed."""
    holds = write_report(finished, gates, stem)
    typer.echo(f"the worst cases to read: {stem.with_suffix('.md')}")
    if not holds:
        raise typer.Exit(1)


def write_report(finished: summary.Run, gates: tuple[report.Gate, ...], stem: Path) -> bool:
    """Write a run and its report, print the measures with their gates, and return whether all gates hold."""
    summary.write_run(finished, stem.with_suffix(".json"))
    stem.with_suffix(".md").write_text(report.report(finished, gates), "utf-8")
    lines = report.gate_lines(finished, gates)
    table = Table("measure", "value", "95 % interval", "gate", "")
    for line in lines:
        verdict = {None: "", True: "holds", False: "MISSED"}[line.holds]
        table.add_row(line.measure, line.value, report.interval_text(line, finished), line.bound, verdict)
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    return all(line.holds is not False for line in lines)


@app.command("dialogues")
def run_live_dialogues(  # noqa: PLR0917  a command takes its options
    against: AgainstOption = None,
    profile: Annotated[str | None, typer.Option(help="Another profile than the task's.")] = None,
    task: Annotated[Path, typer.Option(help="Data set, profile and gates.")] = TASKS / "dialogues.yaml",
    language: Annotated[str | None, typer.Option(help="Only the dialogues of one language: ko or en.")] = None,
    split: Annotated[str | None, typer.Option(help="Only the dialogues of one split: dev or test.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only this many first dialogues.")] = None,
    at_once: Annotated[int, typer.Option(min=1, help="The number of customers at once; more of them wait longer.")] = 1,
    output: Annotated[Path, typer.Option(help="Where the run and its report go.")] = OUTPUT,
    data_dir: DataDirOption = Path(".data"),
) -> None:
    """Run the data set's dialogues live; exit with code 1 if a gate is missed.

    The history consists of the product's own answers. An interrupted run continues: finished dialogues are in the
    .part file beside the run.
    """
    with one_line_errors(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
        parsed_task = report.read_task(task)
        model = profile or parsed_task.profile
        product_run = run_spec(parsed_task.dataset, limit=None, answers=True, profile=model, data=Path(folder))
        stem = output / "-".join(filter(None, (parsed_task.dataset.name, "dialogues", language, split, model)))
        spec = dialogues.DialoguesSpec(
            run=replace(product_run, contact=contact_of(parsed_task.bank)),
            dialogues=read_dialogues(parsed_task.dataset, language=language, split=split)[:limit],
            part=stem.with_suffix(".part"),
            at_once=at_once,
        )
        chatbot = running_chatbot(against, data_dir)
        finished = anyio.run(dialogues.run_dialogues, spec, chatbot, Console(stderr=True))
    spec.part.unlink(missing_ok=True)
    write_and_check(finished, parsed_task.gates, stem)


@app.command("record")
def record_answers(
    dataset: DatasetOption = GOLDEN,
    profile: ProfileOption = "cpu",
    split: SplitOption = None,
    limit: LimitOption = None,
    at_once: Annotated[int, typer.Option(min=1, help="The number of questions at once.")] = 4,
    output: Annotated[Path, typer.Option(help="Where the recording goes.")] = GOLDEN / "recorded.jsonl",
) -> None:
    """Record a model's answers to every question, for `evals gate`.

    An interrupted run continues: the incomplete recording is in OUTPUT.part.
    """
    part = output.with_name(f"{output.name}.part")
    with one_line_errors(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
        spec = run_spec(dataset, limit=limit, answers=False, profile=profile, data=Path(folder), split=split)
        ask = partial(record.record, part=part, at_once=at_once)
        write_recording(anyio.run(ask, spec, Console(stderr=True)), output)
    part.unlink()


@app.command("gate")
def check_gates(
    task: Annotated[list[Path], typer.Option(help="Data set, gates, and a recording if there is one.")] = GATES,
    output: Annotated[Path, typer.Option(help="Where runs and reports go.")] = OUTPUT,
) -> None:
    """Check retrieval and recorded answers against their gates."""
    all_hold = True
    for path in task:
        with one_line_errors(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
            parsed_task = report.read_task(path)
            spec = run_spec(parsed_task.dataset, limit=None, answers=False, profile="", data=Path(folder))
            finished = anyio.run(gate.gate_run, parsed_task, spec, Console(stderr=True))
        all_hold = write_report(finished, parsed_task.gates, output / f"gate-{path.stem}") and all_hold
    if not all_hold:
        raise typer.Exit(1)


@app.command("calibrate", help=CALIBRATE_HELP)
def fit_to_bank(  # noqa: PLR0917  a command takes its options
    dataset: DatasetOption,
    recording: Annotated[Path | None, typer.Option(help="Judge this recording instead of asking a model.")] = None,
    output: Annotated[Path, typer.Option(help="The folder of calibration.yaml, go-live.md and recorded.jsonl.")] = (
        OUTPUT / "go-live"
    ),
    most_wrong: Annotated[
        float,
        typer.Option(min=0, max=1, help="The maximum share of answerable questions whose answer is not right."),
    ] = 0.1,
    most_unanswerable: Annotated[
        float, typer.Option(min=0, max=1, help="The maximum share of unanswerable questions that get an answer.")
    ] = 0.1,
    at_once: Annotated[int, typer.Option(min=1, help="The number of questions at once.")] = 4,
    profile: ProfileOption = "cpu",
) -> None:
    """Fit answerability to a bank's documents and questions."""
    recorded = recording or output / "recorded.jsonl"
    with one_line_errors(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
        bank = record.own_bank()
        spec = run_spec(dataset, limit=None, answers=False, profile=profile, data=Path(folder))
        calibrate.require_enough(spec.dataset.samples)
        if recording is None:
            record_bank(spec, bank, recorded, at_once)
        answers = read_recording(recorded)
        calibrate.require_current(answers, spec.dataset, recorded)
        bars = calibrate.Bars(not_right=most_wrong, invented=most_unanswerable)
        result = calibrate.calibrate(calibrate.cases_of(answers, spec.dataset, bank.banks.first), bars)
        embedder = answers.header.embedder or spec.settings.embedder.name
        fitted = calibrate.calibration_of(result.weights, embedder=embedder, model=answers.header.model)
        write_go_live(result, fitted, spec, output)
    table = Table(f"at the threshold {result.chosen.threshold:.2f}", "share, 95 % interval", "bar")
    for line in golive.figure_lines(result):
        table.add_row(*line)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    typer.echo(f"threshold {result.chosen.threshold:.2f}: {result.reason}")
    typer.echo(f"read {output / 'go-live.md'}, then set CALIBRATION_FILE={output / 'calibration.yaml'}")
    if bars.excess(result.chosen):
        raise typer.Exit(1)


def record_bank(spec: run.RunSpec, bank: record.OwnBank, recorded: Path, at_once: int) -> None:
    """Ask a bank's questions; an interrupted run keeps its answers."""
    ask = partial(record.record, part=recorded, at_once=at_once, calibrated_bank=bank)
    try:
        write_recording(anyio.run(ask, spec, Console(stderr=True)), recorded)
    except KeyboardInterrupt:
        typer.echo(
            f"evals: interrupted; the answers so far are in {recorded}, and the same command continues", err=True
        )
        raise typer.Exit(130) from None


def write_go_live(result: calibrate.CalibrationResult, fitted: Calibration, spec: run.RunSpec, output: Path) -> None:
    """Write the calibration and its report side by side."""
    calibrate.write_calibration(fitted, output / "calibration.yaml")
    today = time.strftime("%Y-%m-%d")
    text = golive.go_live_report(result, fitted, dataset=spec.dataset.name, day=today)
    (output / "go-live.md").write_text(text, "utf-8")


add_common_help(app, "Exit codes: 0 done; 1 below a gate; 2 nothing measured; 130 interrupted.")

if __name__ == "__main__":
    app()
