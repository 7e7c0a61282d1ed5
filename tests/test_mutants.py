"""What `make mutants` counts: a mutant that was loaded, and a test that fails on it twice or never ends."""

import json
import subprocess
import sys
from pathlib import Path

from scripts.changes import Mutant

ROOT = Path(__file__).parents[1]
CODE = """
def is_old(age: int) -> bool:
    return age > 64


def is_new(age: int) -> bool:
    return age < 1


def leave(left: set[str]) -> None:
    left.clear()


def countdown(left: int) -> None:
    while left:
        left -= 1
"""
TESTS = """
from pathlib import Path

import conftest
import toy


def test_the_old():
    assert toy.is_old(65)
    assert not toy.is_old(64)


def test_that_fails_now_and_then():
    seen = Path(toy.__file__).with_name("seen")
    seen.write_text(seen.read_text() + "." if seen.exists() else ".")
    assert toy.is_new(0) or seen.read_text() != ".."


def test_that_sees_nothing():
    conftest.LEFT.add("a")
    toy.leave(conftest.LEFT)


def test_it_ends():
    toy.countdown(3)
"""
CONFTEST = """
LEFT = set()


def pytest_unconfigure():
    assert not LEFT
"""
CHANGES = {
    "what is seen when all tests are over": ("left.clear()", "pass"),
    "no end": ("left -= 1", "left -= 0"),
    "a failure that does not come again": ("< 1", "< 0"),
    "of one size and second, noticed": ("> 64", "> 65"),
    "of one size and second, unnoticed": ("< 1", "< 2"),
    "a line that cannot be imported": ("def is_old(", "def is_old(("),
}
# A process of its own: the trials fork it, and workers of pytest have threads.
PROGRAM = """
import json, sys
from pathlib import Path
from scripts import trials
from scripts.changes import Mutant

copy, code, changes = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
trials.SECONDS_MORE = 0.2
room = trials.measured(["test_toy.py"], [Path("toy.py")], copy)
found = {}
for name, (before, after) in changes.items():
    line = code[: code.index(before)].count("\\n") + 1
    found[name] = trials.killer(Mutant(Path("toy.py"), line, line, code.replace(before, after)), room, copy)
sys.path.insert(0, str(copy))
import toy
try:
    found["of what was imported before"] = trials.killer(Mutant(Path("toy.py"), 3, 3, code), room, copy)
except trials.Unfit as exc:
    found["of what was imported before"] = str(exc)
print(json.dumps(found))
"""


def test_a_mutant_is_killed_by_a_test_that_fails_on_it_twice_or_never_ends(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "pytest.ini").write_text("[pytest]\n", "utf-8")
    (copy / "conftest.py").write_text(CONFTEST, "utf-8")
    (copy / "toy.py").write_text(CODE, "utf-8")
    (copy / "test_toy.py").write_text(TESTS, "utf-8")
    command = [sys.executable, "-c", PROGRAM, str(copy), json.dumps(CODE), json.dumps(CHANGES)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)  # noqa: S603  ours
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {
        "what is seen when all tests are over": "(the end of the tests)",
        "no end": "test_toy.py::test_it_ends (never ends)",
        "a failure that does not come again": None,
        "of one size and second, noticed": "test_toy.py::test_the_old",
        "of one size and second, unnoticed": None,
        "a line that cannot be imported": "test_toy.py",
        "of what was imported before": "toy.py:3 "
        + Mutant(Path("toy.py"), 3, 3, CODE).name.split()[1]
        + ": other of it was imported by test_toy.py::test_the_old",
    }
    assert (copy / "toy.py").read_text("utf-8") == CODE
