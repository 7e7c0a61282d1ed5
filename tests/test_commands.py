"""The installed console scripts; other tests fork programs that are imported already."""

import subprocess
import sys
from pathlib import Path

COMMANDS = ("chatbot", "ingest", "llm-server", "evals")
# One process runs the scripts as they are installed, so that the imports are paid once.
PROGRAM = """
import runpy, sys
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
"""


def test_the_commands_are_installed_and_explain_themselves() -> None:
    scripts = [str(Path(sys.executable).parent / name) for name in COMMANDS]
    ended = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-c", PROGRAM, *scripts], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert [name for name in COMMANDS if f"Usage: {name}" not in ended.stdout] == []
