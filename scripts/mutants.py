"""Changes one place of the code at random, again and again, and tells which changes no test notices (`make mutants`).

The code is changed in a copy. The tests of a room run once without any change, and tell which of them run which line;
a mutant is killed where one of those that run its lines fails or never ends. The diff of each survivor is printed, and
the status is 1 where fewer than 90 % are killed. The same seed makes the same mutants. A run that is broken off goes on
where it was, as long as no tracked file has changed.
"""

import argparse
import ast
import difflib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from coverage import CoverageData

from scripts.faults import tracked_state

ROOT = Path(__file__).parents[1]
ROOMS = {
    "chatbot/streams": ["tests/chatbot/streams"],
    "chatbot/limits": ["tests/chatbot/limits"],
    "chatbot/audit": ["tests/chatbot/audit", "tests/chatbot/streams/test_abandoned.py"],
    "chatbot/reads.py": ["tests/chatbot/test_reads.py", "tests/chatbot/conversations"],
    "chatbot/abandoned.py": ["tests/chatbot/streams/test_abandoned.py"],
    "ingest/catalogue/approvals.py": ["tests/ingest/catalogue", "tests/ingest/test_pipeline.py"],
    "ingest/catalogue/validity.py": ["tests/ingest/catalogue", "tests/ingest/test_pipeline.py"],
    "knowledge/access.py": ["tests/knowledge/test_access.py", "tests/knowledge/index/test_edge.py"],
}
"""Files and folders that are mutated, and the tests that have to notice."""
WANTED = 0.9
SLOWER = 3
"""A mutant's tests may take so many times as long as without the change, and a minute; then they never end."""
OPPOSITES: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
TOLD_ONLY = {"log", "span", "tracer"}
"""What only tells: no test has to notice that it is gone."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file, as the whole new text."""

    path: Path
    line: int
    last_line: int
    text: str

    @property
    def name(self) -> str:
        """Its place, and what tells it from others there."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:8]
        return f"{self.path.relative_to(ROOT)}:{self.line} {digest}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a room's tests did without any change: which of them run a line of a file, and how long all of them took."""

    tests: list[str]
    by_line: Mapping[str, Mapping[int, list[str]]]
    seconds: float

    def running(self, mutant: Mutant) -> list[str]:
        """Return the tests that run the mutant's lines; all of them for what runs when the module is imported.

        Those of the module itself come first: they are quick, and most mutants are killed there.
        """
        lines = self.by_line.get(str(mutant.path.relative_to(ROOT)), {})
        found = {test for line in range(mutant.line, mutant.last_line + 1) for test in lines.get(line, [])}
        return sorted(found, key=lambda test: (f"test_{mutant.path.stem}.py" not in test, test)) or self.tests


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Yield every change of a file that this knows to make."""
    source = path.read_text("utf-8")
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]
    tree = ast.parse(source)
    declared = {id(part) for node in ast.walk(tree) for part in declarations_of(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr | ast.stmt) or id(node) in declared:
            continue
        for changed in changes_of(node):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
            text = source.encode()[:begin] + changed.encode() + source.encode()[end:]
            yield Mutant(path, node.lineno, node.end_lineno or node.lineno, text.decode())


def declarations_of(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what declares rather than does: decorators, the keywords of classes (`frozen=True`), zip's `strict`."""
    match node:
        case ast.ClassDef(decorator_list=parts, keywords=keywords):
            for part in (*parts, *keywords):
                yield from ast.walk(part)
        case ast.Call(func=ast.Name(id="zip"), keywords=keywords):
            for keyword in keywords:
                yield from ast.walk(keyword)


def changes_of(node: ast.AST) -> Iterator[str]:
    """Yield what may stand in a node's place."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in OPPOSITES:
            yield f"({ast.unparse(left)} {OPPOSITES[type(op)]} {ast.unparse(right)})"
        case ast.BoolOp(op=op, values=values):
            word = " or " if isinstance(op, ast.And) else " and "
            yield "(" + word.join(f"({ast.unparse(value)})" for value in values) + ")"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"({ast.unparse(operand)})"
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            yield f"({ast.unparse(left)} {'-' if isinstance(op, ast.Add) else '+'} {ast.unparse(right)})"
        case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())) if not only_tells(node):
            yield "pass"
        case ast.AugAssign():
            yield "pass"


def only_tells(statement: ast.Expr) -> bool:
    call = statement.value.value if isinstance(statement.value, ast.Await) else statement.value
    return isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[0] in TOLD_ONLY


def files_of(room: str) -> list[Path]:
    place = ROOT / room
    return [place] if place.is_file() else sorted(place.glob("*.py"))


def is_killed(mutant: Mutant, room: Measured, copy: Path) -> bool:
    """Return whether a test fails, or never ends, on the mutant."""
    mutated = copy / mutant.path.relative_to(ROOT)
    mutated.write_text(mutant.text, "utf-8")
    try:
        return fails(room.running(mutant), copy, within=SLOWER * room.seconds + 60)
    finally:
        shutil.copy(mutant.path, mutated)


def fails(tests: list[str], copy: Path, *options: str, within: float | None = None) -> bool:
    """Return whether a test fails in the copy, or the tests take longer than so many seconds."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--faults", "1", *options, *tests]
    environment = os.environ | {"PYTHONPATH": str(copy)}  # noqa: TID251  children inherit it
    try:
        run = subprocess.run(  # noqa: S603  our own arguments
            command, cwd=copy, env=environment, capture_output=True, timeout=within, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    return run.returncode != 0


def measured(room: str, copy: Path) -> Measured:
    """Run a room's tests without any change.

    Raises:
        RoomFails: one of them fails.
    """
    began = time.monotonic()
    data = copy / ".coverage"
    places = sorted({str(file.parent.relative_to(ROOT)) for file in files_of(room)})
    counted = [f"--cov={place}" for place in places]
    if fails(ROOMS[room], copy, *counted, "--cov-context=test", "--cov-report="):
        raise RoomFails(f"the tests of {room} fail without any change: each mutant would count as killed")
    known = CoverageData(str(data))
    known.read()
    by_line = {
        str(Path(file).resolve().relative_to(copy.resolve())): {
            line: sorted({context.partition("|")[0] for context in contexts if context})
            for line, contexts in known.contexts_by_lineno(file).items()
        }
        for file in known.measured_files()
    }
    data.unlink()
    return Measured(ROOMS[room], by_line, time.monotonic() - began)


def diff_of(mutant: Mutant) -> str:
    name = str(mutant.path.relative_to(ROOT))
    before, after = mutant.path.read_text("utf-8").splitlines(), mutant.text.splitlines()
    return "\n".join(difflib.unified_diff(before, after, name, name, n=2, lineterm=""))


class RoomFails(Exception):
    """The tests of a room fail without any change: each of its mutants would count as killed."""


class Trials:
    """Tries mutants in a copy, each once; which were killed is kept in a file until a tracked file changes."""

    def __init__(self, copy: Path, kept: Path) -> None:
        self._copy = copy
        self._kept = kept
        self._state = tracked_state()
        self._rooms: dict[str, Measured] = {}
        read = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
        self._killed: dict[str, bool] = read["killed"] if read.get("state") == self._state else {}

    def kills(self, mutant: Mutant, room: str) -> bool:
        """Return whether a test of the room kills the mutant.

        Raises:
            RoomFails: the room's tests fail without any change.
        """
        if mutant.name not in self._killed:
            if room not in self._rooms:
                self._rooms[room] = measured(room, self._copy)
            self._killed[mutant.name] = is_killed(mutant, self._rooms[room], self._copy)
            self._kept.parent.mkdir(exist_ok=True)
            self._kept.write_text(json.dumps({"state": self._state, "killed": self._killed}, indent=1), "utf-8")
        return self._killed[mutant.name]


def main() -> int:
    """Run so many mutants, and return the exit status."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("number", type=int, help="how many mutants")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--rooms", nargs="*", default=list(ROOMS), choices=list(ROOMS))
    options = asked.parse_args()
    dice = random.Random(options.seed)  # noqa: S311  the same seed makes the same mutants
    known = [(mutant, room) for room in options.rooms for file in files_of(room) for mutant in mutants_of(file)]
    chosen = dice.sample(known, min(options.number, len(known)))
    print(f"seed {options.seed}: {len(chosen)} of {len(known)} mutants", flush=True)
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", ".data", ".*_cache"), symlinks=True)
        trials = Trials(copy, ROOT / ".data" / "mutants.json")
        for n, (mutant, room) in enumerate(chosen, 1):
            try:
                killed = trials.kills(mutant, room)
            except RoomFails as exc:
                print(exc)
                return 2
            print(f"{n}/{len(chosen)} {'killed' if killed else 'SURVIVED'} {mutant.name}", flush=True)
            if not killed:
                survivors += 1
                print(diff_of(mutant), flush=True)
    share = 1 - survivors / len(chosen) if chosen else 1.0
    print(f"seed {options.seed}: {len(chosen)} of {len(known)} mutants, {share:.1%} killed")
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
