"""Change one place of the code at a time, and list the changes that no test notices (`make mutants`).

usage: scripts/mutants.py N [--seed S]      draw N changes (the same seed draws the same) and try them
       scripts/mutants.py PATCH...          try kept changes (tests/mutants)

A change is applied to a copy of the checkout, where its room's tests run. Ends with 1 below 90 % noticed.
"""

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = {
    "chatbot/grounding": ["tests/chatbot/grounding"],
    "chatbot/limits": ["tests/chatbot/limits"],
    "chatbot/streams": ["tests/chatbot/streams"],
    "chatbot/audit": ["tests/chatbot/audit", "tests/test_schema.py"],
    "knowledge/identity": ["tests/knowledge/identity"],
    "knowledge/access.py": ["tests/knowledge/test_access.py", "tests/knowledge/index/test_edge.py"],
    "ingest/catalogue": ["tests/ingest/catalogue", "tests/ingest/test_pipeline.py"],
}
"""What is changed, and the tests that have to notice."""
REQUIRED_SHARE = 0.9
OPPOSITES: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
DECLARATIONS = (b"@", b"class ")
UNTESTED = ("log.", "span.", "tracer.", "os.fsync(")  # no test can see their effect


def changes(source: str) -> Iterator[str]:
    """Yield the source with one place changed."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.expr | ast.stmt) or (replacement := change(node)) is None:
            continue
        if not lines[node.lineno - 1].strip().startswith(DECLARATIONS):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
            yield (source.encode()[:begin] + replacement.encode() + source.encode()[end:]).decode()


def change(node: ast.AST) -> str | None:
    """Return what replaces a node, if it is of a kind that is changed."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return f"({ast.unparse(left)} {OPPOSITES[type(op)]} {ast.unparse(right)})"
        case ast.BoolOp(op=op, values=values):
            word = " or " if isinstance(op, ast.And) else " and "
            return "(" + word.join(f"({ast.unparse(value)})" for value in values) + ")"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"({ast.unparse(operand)})"
        case ast.Constant(value=bool(value)):
            return str(not value)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            return f"({ast.unparse(left)} {'-' if isinstance(op, ast.Add) else '+'} {ast.unparse(right)})"
        case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())):
            return None if ast.unparse(node).removeprefix("await ").startswith(UNTESTED) else "pass"
    return None


def draw(number: int, seed: int, folder: Path) -> list[Path]:
    """Write so many changes of the rooms as patches, and return their files."""
    files = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py")) or [ROOT / room]]
    sources = {str(file.relative_to(ROOT)): file.read_text("utf-8") for file in files}
    every = [(name, changed) for name, source in sources.items() for changed in changes(source)]
    dice = random.Random(seed)  # noqa: S311  the same seed draws the same changes
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    patches = []
    for n, (name, changed) in enumerate(dice.sample(every, min(number, len(every))), 1):
        before, after = (text.splitlines(keepends=True) for text in (sources[name], changed))
        patches.append(folder / f"{n:03}-{Path(name).stem}.patch")
        patches[-1].write_text("".join(difflib.unified_diff(before, after, f"a/{name}", f"b/{name}")), "utf-8")
    return patches


def run_tests(copy: Path, room: str, stem: str, seconds: float | None) -> str:
    """Run a room's tests, those of the changed module first; return the first failure, empty where there is none."""
    tests = [str(path.relative_to(copy)) for folder in ROOMS[room] for path in copy.glob(f"{folder}/test_{stem}*.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--patience", "4", *tests, *ROOMS[room]]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}  # noqa: TID251  the tests' own
    with subprocess.Popen(  # noqa: S603  our own arguments
        command, cwd=copy, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output = process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "never ends"
    failed = [line.split(" - ")[0] for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "" if process.returncode == 0 else (failed or [output[-300:]])[0]


def outcome(patch: str, copy: Path, limits: dict[str, float]) -> str | None:
    """Return the first failure of a change's room, empty where none fails; None where the patch does not apply."""
    file = patch.split("\n", 1)[0].removeprefix("--- a/")
    room = next(room for room in ROOMS if file.startswith(room))
    if room not in limits:
        began = time.monotonic()
        if failure := run_tests(copy, room, Path(file).stem, None):
            sys.exit(f"{room}: its tests fail without any change: {failure}")
        limits[room] = 3 * (time.monotonic() - began) + 60
    before = (copy / file).read_bytes()
    if subprocess.run(["git", "apply", "-"], cwd=copy, input=patch, text=True, check=False).returncode:  # noqa: S607
        return None
    failure = run_tests(copy, room, Path(file).stem, limits[room])
    (copy / file).write_bytes(before)
    return failure


def main() -> int:
    """Try changes, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="+", help="how many, or the files of patches")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    number, kept = options.changes[0], ROOT / ".data/mutants"
    patches = draw(int(number), options.seed, kept) if number.isdigit() else [Path(name) for name in options.changes]
    noticed: dict[str, str | None] = {}
    limits: dict[str, float] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # PostgreSQL is another user
        copy = Path(name) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", ".data", ".*_cache"), symlinks=True)
        for patch in patches:
            text = patch.read_text("utf-8")
            noticed[patch.name] = failure = outcome(text, copy, limits)
            words = "does not apply" if failure is None else failure or f"NOT NOTICED\n{text}"
            print(f"{patch.name}: {words}", flush=True)
            (patch.parent / "noticed.json").write_text(json.dumps(noticed, indent=1) + "\n", "utf-8")
    tried = [failure for failure in noticed.values() if failure is not None]
    share = sum(map(bool, tried)) / max(1, len(tried))
    print(f"{share:.1%} of {len(tried)} noticed, {len(noticed) - len(tried)} do not apply")
    return 0 if share >= REQUIRED_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
