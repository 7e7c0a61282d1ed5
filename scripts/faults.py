"""Runs every test of a fault N times, file by file, and remembers which have passed (`make faults`).

A run that is broken off continues where it was, as long as no tracked file has changed. A shard, `2/3`, is every third
name from the second on: machines share the work, each with its own. What waits for long runs at most 5 times.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
NO_TESTS = 5  # pytest's exit status
PYTEST = [sys.executable, "-m", "pytest", "-q"]
FAULTS = "faults or long"
FRESH = f"({FAULTS}) and fresh"


def names(tests: list[str], marked: str) -> list[str]:
    """Return the tests so marked, each once, whatever its parameters; ends the process where they cannot be read."""
    listed = subprocess.run(  # noqa: S603  our own arguments
        [*PYTEST, "-m", marked, "--collect-only", *tests], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode and not (marked == FRESH and listed.returncode == NO_TESTS):
        sys.exit(f"{listed.stdout[-3000:]}\nfaults: the tests cannot be read")
    ids = [line for line in listed.stdout.splitlines() if "::" in line]
    return list(dict.fromkeys(name.partition("[")[0] for name in ids))


def tracked_state() -> str:
    """Return what names the present content of all tracked files."""
    changed = _git("stash", "create")
    return _git("rev-parse", f"{changed or 'HEAD'}^{{tree}}")


def _git(*arguments: str) -> str:
    return subprocess.run(  # noqa: S603  our own arguments
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True  # noqa: S607  the machine's git
    ).stdout.strip()  # fmt: skip


def outcomes(report: str) -> dict[str, Counter[str]]:
    """Return how often each test PASSED, FAILED or had an ERROR by pytest's report."""
    counted: dict[str, Counter[str]] = {}
    for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) (\S+?)(?:\[.*)?$", report, re.MULTILINE):
        counted.setdefault(name, Counter())[outcome] += 1
    return counted


def why_failed(report: str) -> str:
    """Return the errors and failures of pytest's report, or its end where it has none."""
    told = re.search(
        r"^=+ (?:ERRORS|FAILURES) =+$.*?(?=^=+ (?:PASSES|short test summary))", report, re.MULTILINE | re.DOTALL
    )
    return told[0][:6000] if told else report[-6000:]


def run(chosen: list[str], times: int) -> tuple[dict[str, int], list[str], str]:
    """Run tests of one file; return how often each passed, those that failed or never ended, and the report."""
    command = [*PYTEST, "-m", FAULTS, "-rA", "--faults", str(times), "--patience", "1", *chosen]
    report = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout  # noqa: S603  ours
    counted = outcomes(report)
    passed = {name: counts["PASSED"] for name, counts in counted.items() if counts.keys() == {"PASSED"}}
    return passed, [name for name in chosen if name not in passed], report


def run_afresh(chosen: list[str], times: int) -> tuple[dict[str, int], list[str], str]:
    """Run tests of one file in a process for each round; return what `run` does, and none as passed once one failed."""
    passed: Counter[str] = Counter()
    for _ in range(times):
        of_round, failed, report = run(chosen, 1)
        if failed:
            return {}, failed, report
        passed.update(of_round)
    return dict(passed), [], ""


def main() -> int:
    """Run a shard, and return the exit status."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("times", type=int, help="how often each test runs")
    asked.add_argument("--shard", default="1/1", help="which of how many: 2/3")
    asked.add_argument("tests", nargs="*", default=["tests"], help="folders and files in place of all tests")
    asked.add_argument("--done", type=Path, default=ROOT / ".data" / "faults.json", help="what has passed")
    options = asked.parse_args()
    part, parts = map(int, options.shard.split("/"))
    state = f"{tracked_state()} {options.times}"
    done: dict[str, int] = {}
    if options.done.exists():
        kept = json.loads(options.done.read_text("utf-8"))
        done = kept["passed"] if kept["state"] == state else {}
    chosen = [name for name in names(options.tests, FAULTS)[part - 1 :: parts] if name not in done]
    fresh = set(names(options.tests, FRESH))
    failed: list[str] = []
    for (file, is_fresh), group in groupby(chosen, lambda name: (name.partition("::")[0], name in fresh)):
        began = time.monotonic()
        passed, not_passed, report = (run_afresh if is_fresh else run)(list(group), options.times)
        done |= passed
        failed += not_passed
        options.done.parent.mkdir(exist_ok=True)
        options.done.write_text(json.dumps({"state": state, "passed": done}, indent=1), "utf-8")
        lines = [f"{runs:5} runs {name}" for name, runs in passed.items()]
        if not_passed:
            lines = [why_failed(report), *lines, *(f"   FAILED {name}" for name in not_passed)]
        sys.stdout.write("\n".join([*lines, f"{file}: {time.monotonic() - began:.0f} s", ""]))
        sys.stdout.flush()
    sys.stdout.write(f"{len(done)} tests passed, {sum(done.values())} runs; {len(failed)} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
