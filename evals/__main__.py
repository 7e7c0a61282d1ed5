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
from chatbot.calibration import Calibration, CalibrationRefused, read_calibration
from chatbot.errors import StoreUnavailable
from chatbot.models import ModelsMisconfigured
from evals.product import ProductNotStarted, ProductSpec, interrupt_on_sigterm
from evals.quality import (
    DAY,
    Bars,
    CalibrationResult,
    Case,
    CheckSettings,
    DialoguesSpec,
    NotAdopted,
    NotCalibrated,
    NotComparable,
    OwnBank,
    Run,
    RunBroken,
    RunningChatbot,
    RunSpec,
    ServerNotEmpty,
    TriageBroken,
    TriageSettings,
    adopt,
    best_threshold,
    calibrated,
    calibration_of,
    cases_of,
    compare,
    drift,
    evaluate,
    figure_lines,
    gate_run,
    go_live_page,
    hold_dialogues,
    judged,
    left_out_table,
    merge_decisions,
    own_bank,
    page,
    read_cases,
    read_feedback,
    read_run,
    record,
    require_enough,
    require_fits,
    require_of_today,
    verdict,
    write_calibration,
    write_cases,
    write_run,
)
from evals.quality import report as reports
from evals.questions import (
    HANBIT,
    CorpusNotLoaded,
    DatasetBroken,
    RecordingBroken,
    read_dataset,
    read_dialogues,
    read_recording,
    write_recording,
)
from evals.safety import is_labelled, run_screening
from evals.sample_bank import SAMPLE_BANK
from ingest.errors import IngestError
from ingest.parsing import WeightsMissing
from ingest.settings import Settings
from knowledge.bank import Bank, BankRefused, read_banks
from knowledge.command_line import complete
from telemetry.groups import leaves
from telemetry.logs import configure_logs

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
TASKS = Path(__file__).parent / "tasks"
TASK = TASKS / "hanbit.yaml"
DIALOGUES = TASKS / "dialogues.yaml"
GATES = [TASKS / "recorded.yaml", TASKS / "retrieval.yaml"]
GOLDEN = Path("evals/datasets/hanbit")
EXPECTED_ERRORS = (
    BankRefused,
    DatasetBroken,
    CorpusNotLoaded,
    ProductNotStarted,
    ModelsMisconfigured,
    NotCalibrated,
    CalibrationRefused,
    RunBroken,
    ServerNotEmpty,
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

CALIBRATE_HELP = "\n\n".join(  # a paragraph is one line, which the terminal breaks
    (
        "Fit what is answered to a bank's own documents and questions, before it goes live.",
        "1. Make a folder: documents/ as `ingest load` takes it (or corpus.jsonl with id, title, text); queries.jsonl, "
        'one question a line, {"id": "q1", "text": "…", "answers": ["…"]} or '
        '{"id": "q2", "text": "…", "unanswerable": true}; '
        "qrels.tsv, which document answers which (query-id, corpus-id, 1; its header alone will do). Take about 100 "
        "questions as customers ask them, a third of them about what the documents do not hold.",
        "2. Run this with the chatbot's own environment (LLM_URLS or MODELS_FILE, EMBEDDER__…, "
        "BANK_FILE). Without an endpoint the model of --profile is started. It loads the documents, "
        "asks every question, and records: stop it when you like, the same command goes on where it ended.",
        "3. Read OUTPUT/go-live.html, and set CALIBRATION_FILE to OUTPUT/calibration.yaml. For other bars judge the "
        "recording again: --recording OUTPUT/recorded.jsonl --most-wrong 0.05. What values that were fitted to other "
        "documents are worth on these, --calibration FILE says.",
        "Exits with 1 where a bar is missed, with 2 where something is wrong with the files.",
    )
)
DatasetOption = Annotated[Path, typer.Option("--dataset", help="A folder with queries.jsonl, qrels.tsv and a corpus.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")]
SplitOption = Annotated[str | None, typer.Option(help="Only the questions of one split: dev or test.")]
BankOption = Annotated[Path, typer.Option("--bank", help="The bank's file: its telephone and names need no citation.")]
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


def running_chatbot(url: str, data_dir: Path) -> RunningChatbot:
    """Return a running chatbot whose demo key is in the folder."""
    return RunningChatbot(url=url, signer=LocalSigner(key_pair(data_dir)[0].read_text("ascii")))


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
    bank: BankOption = SAMPLE_BANK,
    data_dir: Annotated[Path, typer.Option(help="With --against: whose demo key signs our tokens.")] = Path(".data"),
) -> None:
    """Score a data set and print one JSON line; of a labelled set, what is stopped before any model is asked."""
    with one_sentence(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
        chatbot = running_chatbot(against, data_dir) if against else None
        if is_labelled(dataset):
            sample = run_spec(HANBIT, limit=None, answers=False, profile=profile, data=Path(folder))
            finished = anyio.run(partial(run_screening, dataset, sample, Console(stderr=True), limit=limit))
        else:
            spec = run_spec(dataset, limit=limit, answers=answers, profile=profile, data=Path(folder), split=split)
            finished = timed_run(replace(spec, contact=bank_of(bank).telephone, halves=halves), chatbot)
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
        finished = timed_run(replace(spec, contact=bank_of(described.bank).telephone))
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


@app.command("dialogues")
def talk(  # noqa: PLR0917  a command takes its options
    against: Annotated[str | None, typer.Option(help="URL of a running chatbot to talk to.")] = None,
    profile: Annotated[str | None, typer.Option(help="Another profile than the task's.")] = None,
    task: Annotated[Path, typer.Option(help="Data set, profile and gates.")] = DIALOGUES,
    language: Annotated[str | None, typer.Option(help="Only the dialogues of one language: ko or en.")] = None,
    split: Annotated[str | None, typer.Option(help="Only the dialogues of one split: dev or test.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many dialogues.")] = None,
    at_once: Annotated[int, typer.Option(min=1, help="So many customers side by side; waits are then theirs.")] = 1,
    output: Annotated[Path, typer.Option(help="Where the run and the page go.")] = Path(".data/evals"),
    data_dir: Annotated[Path, typer.Option(help="With --against: whose demo key signs our tokens.")] = Path(".data"),
) -> None:
    """Hold the data set's dialogues live, the product's own answers as history; exit 1 below a gate.

    A run that was stopped continues where it ended: dialogues that were held are in the .part file beside the run.
    """
    with one_sentence(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
        described = reports.read_task(task)
        dialogues = read_dialogues(described.dataset, language=language, split=split)[:limit]
        chosen = profile or described.profile
        asked = run_spec(described.dataset, limit=None, answers=True, profile=chosen, data=Path(folder))
        stem = output / "-".join(filter(None, (described.dataset.name, "dialogues", language, split, chosen)))
        spec = DialoguesSpec(
            run=replace(asked, contact=bank_of(described.bank).telephone),
            dialogues=dialogues,
            part=stem.with_suffix(".part"),
            at_once=at_once,
        )
        chatbot = running_chatbot(against, data_dir) if against else None
        finished = anyio.run(hold_dialogues, spec, chatbot, Console(stderr=True))
    written = write_report(finished, described.gates, stem)
    spec.part.unlink(missing_ok=True)
    if not print_gates(finished, described.gates):
        raise typer.Exit(1)
    typer.echo(f"the worst cases to read: {written}")


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


@app.command(help=CALIBRATE_HELP)
def calibrate(  # noqa: PLR0917  a command takes its options
    dataset: DatasetOption,
    recording: Annotated[
        Path | None, typer.Option(help="Judge this recording instead of asking a model: nothing is asked twice.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Judge these values, fitted to other documents, in place of fitting: none are written."),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="The folder of calibration.yaml, go-live.html and recorded.jsonl.")
    ] = Path(".data/evals/go-live"),
    most_wrong: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Of answerable questions, the share that may be answered otherwise than right."
        ),
    ] = 0.1,
    most_unanswerable: Annotated[
        float, typer.Option(min=0, max=1, help="Of unanswerable questions, the share that may be answered.")
    ] = 0.1,
    at_once: Annotated[int, typer.Option(min=1, help="So many questions side by side.")] = 4,
    profile: ProfileOption = "cpu",
) -> None:
    """Fit what is answered to a bank's own documents and questions, before it goes live."""
    recorded = recording or output / "recorded.jsonl"
    with one_sentence(), tempfile.TemporaryDirectory(prefix="evals-") as folder:
        bank = own_bank()
        spec = run_spec(dataset, limit=None, answers=False, profile=profile, data=Path(folder))
        require_enough(spec.dataset.samples)
        if recording is None:
            record_bank(spec, bank, recorded, at_once)
        read = read_recording(recorded)
        require_of_today(read, spec.dataset, recorded)
        bars = Bars(not_right=most_wrong, invented=most_unanswerable)
        cases = cases_of(read, spec.dataset, CheckSettings(bank=bank.banks.first))
        if calibration is None:
            result = calibrated(cases, bars)
            embedder = read.header.embedder or spec.settings.embedder.name
            write_go_live(
                result, calibration_of(result.weights, embedder=embedder, model=read.header.model), spec, output
            )
        else:
            elsewhere = read_calibration(calibration)
            require_fits(elsewhere, read, calibration)
            result = judged(cases, elsewhere, bars)
    print_shares(result)
    if calibration is None:
        typer.echo(f"read {output / 'go-live.html'}, then set CALIBRATION_FILE={output / 'calibration.yaml'}")
    if bars.excess(result.chosen):
        raise typer.Exit(1)


def record_bank(spec: RunSpec, bank: OwnBank, recorded: Path, at_once: int) -> None:
    """Ask a bank's questions; what a run that is stopped has asked stays."""
    ask = partial(record, part=recorded, at_once=at_once, calibrates=bank)
    try:
        write_recording(anyio.run(ask, spec, Console(stderr=True)), recorded)
    except KeyboardInterrupt:
        typer.echo(f"evals: stopped; what was asked is in {recorded}, and the same command goes on", err=True)
        raise typer.Exit(130) from None


def print_shares(result: CalibrationResult) -> None:
    """Print what becomes of the questions at the chosen threshold, and why it is that one."""
    table = Table(f"at the threshold {result.chosen.threshold:.2f}", "share, 95 % interval", "bar")
    for line in figure_lines(result):
        table.add_row(*line)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    typer.echo(f"threshold {result.chosen.threshold:.2f}: {result.reason}")


def write_go_live(result: CalibrationResult, fitted: Calibration, spec: RunSpec, output: Path) -> None:
    """Write the calibration and its report beside each other."""
    write_calibration(fitted, output / "calibration.yaml")
    today = time.strftime("%Y-%m-%d")
    (output / "go-live.html").write_text(go_live_page(result, fitted, dataset=spec.dataset.name, day=today), "utf-8")


@app.command("left-out")
def leave_out(
    corpus: Annotated[list[str], typer.Option(help="DATASET=RECORDING, once for each corpus; at least two.")],
    bank: BankOption = SAMPLE_BANK,
) -> None:
    """Print what a fit to the other corpora makes of each, by threshold, beside the shipped weights (Markdown).

    Recordings are those of `evals record` and `evals calibrate`; no model is asked. A data set with a bank.yaml is that
    bank's: its questions may name it.
    """
    with one_sentence():
        own = bank_of(bank)
        corpora = dict(recorded_cases(Path(folder), Path(file), own) for folder, _, file in map(_parted, corpus))
        typer.echo(left_out_table(corpora, read_calibration(None).answerability))
        typer.echo(f"best on average over corpora left out: {best_threshold(corpora):g}")


def bank_of(file: Path) -> Bank:
    """Return the bank of a file.

    Raises:
        BankRefused: it describes none.
    """
    return read_banks(file).first


def recorded_cases(folder: Path, file: Path, bank: Bank) -> tuple[str, list[Case]]:
    """Return the name of a data set and its recorded questions; its own bank.yaml counts before `bank`."""
    dataset, recording = read_dataset(folder), read_recording(file)
    if (own := folder / "bank.yaml").exists():
        bank = bank_of(own)
    return dataset.name, cases_of(recording, dataset, CheckSettings(bank=bank))


def _parted(corpus: str) -> tuple[str, str, str]:
    folder, sign, file = corpus.rpartition("=")
    if not sign:
        raise RecordingBroken(f"{corpus}: a corpus is named with its recording, as DATASET=RECORDING")
    return folder, sign, file


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


complete(app, "Exit codes: 0 done; 1 a gate failed; 2 nothing could be measured; 130 interrupted.")

if __name__ == "__main__":
    app()
