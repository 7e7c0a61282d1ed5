"""The `ingest` command as a program of its own."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.forked import Forked

WAIT_SECONDS = 60.0


def command(
    weights: Path, data: Path, log: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> Forked:
    """Start a command with environment variables; its output goes into `log`."""
    own = {
        "PATH": "/usr/bin:/bin",
        "WEIGHTS_DIR": str(weights),
        "DATA_DIR": str(data),
        "COLUMNS": "200",
        "TENANT": "hanbit",
    }
    return Forked("ingest.__main__", arguments, own | dict(variables or {}), log)


def run(
    weights: Path,
    data: Path,
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    within_seconds: float = WAIT_SECONDS,
) -> tuple[int, str]:
    """Run a command to its end; return its exit status and its output."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        status = command(weights, data, log, *arguments, variables=variables).wait(within_seconds)
        return status, log.read_text("utf-8")
