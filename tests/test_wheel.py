"""The wheel, installed into an empty folder: it holds what the code opens, and the commands and pages work from it."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from evals.sample_bank import SAMPLE_BANK

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES = [name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
COMMANDS = list(PROJECT["project"]["scripts"])
CHECKOUT_ONLY = ("evals/datasets/", "evals/tasks/", "evals/safety/schemathesis.toml")
"""What evaluations read where the repository is checked out."""
# One process runs the installed scripts and serves both applications, so that the imports are paid once.
PROGRAM = """
import runpy, sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from starlette.testclient import TestClient

installed, commands, packages = Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split()
bank_file = Path(sys.argv[4])
for command in commands:
    sys.argv = [command, "--help"]
    with suppress(SystemExit):
        runpy.run_path(str(installed / "bin" / command), run_name="__main__")

from chatbot.api import create_app as create_chat_app
from ingest.app import create_app as create_staff_app
from knowledge.bank import read_banks
banks = read_banks(bank_file)
class Services:
    banks = banks
    blobs = SimpleNamespace(most_bytes=1)
    def __getattr__(self, name):
        return None
for app in (create_chat_app(Services()), create_staff_app(Services(), banks)):
    for path in ("/", "/web/app.js", "/web/sse.js", "/openapi.json"):
        print(path, TestClient(app).get(path).status_code)
ours = [module for name, module in sys.modules.items() if name.split(".")[0] in packages]
print("elsewhere", [module.__file__ for module in ours if not Path(module.__file__).is_relative_to(installed)])
"""


def run(command: list[str | Path], folder: Path, environment: dict[str, str] | None = None) -> str:
    """Run a command outside of the checkout and return what it printed."""
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  ours
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that no earlier build is in it, and install it alone; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "installed"
    for name in (*PACKAGES, "requirements"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    pip: list[str | Path] = [sys.executable, "-m", "pip"]
    offline = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    run([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder, source], folder)
    run([*pip, "install", *offline, "--no-compile", "--target", target, *folder.glob("*.whl")], folder)
    return target


def test_the_wheel_holds_every_file_of_our_packages(installed: Path) -> None:
    ours = [file for name in PACKAGES for file in (ROOT / name).rglob("*") if file.is_file()]
    names = {file.relative_to(ROOT).as_posix() for file in ours if "__pycache__" not in file.parts}
    opened = {name for name in names if not name.startswith(CHECKOUT_ONLY)}
    assert {".py", ".lua", ".md", ".yaml", ".js", ".css", ".html", ".svg"} <= {Path(name).suffix for name in opened}
    assert sorted(name for name in opened if not (installed / name).is_file()) == []


def test_the_commands_and_both_applications_work_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    environment = dict(os.environ) | {"PYTHONPATH": str(installed)}  # noqa: TID251  a child inherits it
    arguments: list[str | Path] = [installed, " ".join(COMMANDS), " ".join(PACKAGES), SAMPLE_BANK]
    printed = run([sys.executable, "-c", PROGRAM, *arguments], tmp_path, environment)
    assert [name for name in COMMANDS if f"Usage: {name}" not in printed] == []
    for path in ("/", "/web/app.js", "/web/sse.js", "/openapi.json"):
        assert printed.count(f"{path} 200\n") == 2
    assert printed.endswith("elsewhere []\n")
