"""The page's pure parts, tested by node's own test runner; nothing is installed for it."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPTS = sorted((HERE.parents[1] / "chatbot" / "web").glob("*.js"))
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def node(*arguments: str) -> None:
    done = subprocess.run([str(NODE), *arguments], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_of_the_page_is_valid(script: Path) -> None:
    node("--check", str(script))


@pytest.mark.parametrize("tests", sorted(HERE.glob("*.test.mjs")), ids=lambda tests: tests.name)
def test_the_pure_parts_of_the_page_hold(tests: Path) -> None:
    node("--test", str(tests))


@pytest.mark.parametrize("name", ["dom.js", "sse.js", "icon.svg", "package.json"])
def test_what_both_pages_have_is_the_same(name: str) -> None:
    pages = HERE.parents[1]
    assert (pages / "ingest/web" / name).read_bytes() == (pages / "chatbot/web" / name).read_bytes()
