"""Changes one place of the code at random, again and again, and tells which changes no test notices (`make mutants`).

The code is changed in a copy. A mutant is killed where its room's tests fail or never end; the diff of each survivor is
printed, and the status is 1 where fewer than 90 % are killed. The same seed makes the same mutants.
"""

import argparse
import ast
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
TIMEOUT_SECONDS = 600
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
    text: str


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
            yield Mutant(path, node.lineno, text.decode())


def declarations_of(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what declares rather than does: decorators, and the keywords of classes (`frozen=True`)."""
    if isinstance(node, ast.ClassDef):
        for part in (*node.decorator_list, *node.keywords):
            yield from ast.walk(part)


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


def is_killed(mutant: Mutant, tests: list[str], copy: Path) -> bool:
    """Return whether a test fails, or never ends, on the mutant."""
    mutated = copy / mutant.path.relative_to(ROOT)
    mutated.write_text(mutant.text, "utf-8")
    try:
        return fails(tests, copy)
    finally:
        shutil.copy(mutant.path, mutated)


def fails(tests: list[str], copy: Path) -> bool:
    """Return whether a test fails in the copy, or the tests never end."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--faults", "1", *tests]
    environment = os.environ | {"PYTHONPATH": str(copy)}  # noqa: TID251  children inherit it
    try:
        run = subprocess.run(  # noqa: S603  our own arguments
            command, cwd=copy, env=environment, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    return run.returncode != 0


def diff_of(mutant: Mutant) -> str:
    name = str(mutant.path.relative_to(ROOT))
    before, after = mutant.path.read_text("utf-8").splitlines(), mutant.text.splitlines()
    return "\n".join(difflib.unified_diff(before, after, name, name, n=2, lineterm=""))


def main() -> int:
    """Run so many mutants, and return the exit status."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("number", type=int, help="how many mutants")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--rooms", nargs="*", default=list(ROOMS), choices=list(ROOMS))
    options = asked.parse_args()
    dice = random.Random(options.seed)  # noqa: S311  the same seed makes the same mutants
    known = [(mutant, ROOMS[room]) for room in options.rooms for file in files_of(room) for mutant in mutants_of(file)]
    chosen = dice.sample(known, min(options.number, len(known)))
    survivors: list[Mutant] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", ".data", ".*_cache"), symlinks=True)
        for room in options.rooms:
            if fails(ROOMS[room], copy):
                sys.stdout.write(f"the tests of {room} fail without any change: every mutant would count as killed\n")
                return 2
        for n, (mutant, tests) in enumerate(chosen, 1):
            killed = is_killed(mutant, tests, copy)
            place = f"{mutant.path.relative_to(ROOT)}:{mutant.line}"
            sys.stdout.write(f"{n}/{len(chosen)} {'killed' if killed else 'SURVIVED'} {place}\n")
            sys.stdout.flush()
            if not killed:
                survivors.append(mutant)
                sys.stdout.write(diff_of(mutant) + "\n")
    share = 1 - len(survivors) / len(chosen)
    sys.stdout.write(f"seed {options.seed}: {len(chosen)} of {len(known)} mutants, {share:.1%} killed\n")
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
