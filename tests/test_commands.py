"""The installed console scripts; other tests fork programs that are imported already."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["chatbot", "ingest", "llm-server", "evals"])
def test_a_command_is_installed_and_explains_itself(name: str) -> None:
    command = [str(Path(sys.executable).parent / name), "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own
    assert ended.returncode == 0, ended.stderr
    assert f"Usage: {name}" in ended.stdout
