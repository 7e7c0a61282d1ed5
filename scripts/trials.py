"""Runs chosen tests in a copy of the code, in a fork that has imported what others wrote and nothing of ours.

So a trial begins in half a second instead of in five. The fork tells by a pipe which test runs; one that takes
much longer than without any change is ended from outside, with all the processes that it has started.
"""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import cache_from_source
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Literal

import pytest
from coverage import CoverageData

from scripts.changes import Mutant

SLOWER, SECONDS_MORE = 3, 10
"""A test may take so many times as long as without any change, and so many seconds; then it never ends."""
MOST_BYTES = 8 << 30
"""A mutant that fills a list without end meets a MemoryError before the machine does."""
SECONDS_BETWEEN = 60
"""What comes before, between and behind the tests may take so long."""


class Unfit(Exception):
    """A trial says nothing: the tests fail without any change, or what they have run is not the mutant."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a room's tests did without any change."""

    seconds: Mapping[str, float]
    """How long each of them took."""
    by_line: Mapping[str, Mapping[str, list[str]]]
    """Which of them run a line of a file."""
    modules: list[str]
    """The modules of others that they imported."""

    def running(self, mutant: Mutant) -> list[str]:
        """Return the tests that run the mutant's lines; all of them for what runs when the module is imported.

        Those of the module itself come first, since most mutants are killed there, and of these the quickest.
        """
        lines = self.by_line.get(str(mutant.path), {})
        found = {test for line in range(mutant.line, mutant.last_line + 1) for test in lines.get(str(line), [])}
        return sorted(found or self.seconds, key=lambda test: (not _is_of(test, mutant), self.seconds[test]))


def _is_of(test: str, mutant: Mutant) -> bool:
    return f"/test_{mutant.path.stem}.py::" in test


@dataclass(slots=True)
class Outcome:
    """What a run of tests came to."""

    failed: str | None = None
    """The test, or the file, that failed first or never ended."""
    never_ended: bool = False
    loaded: Literal["mutant", "other", "nothing"] = "nothing"
    """Which code of the mutant's module the tests have imported."""
    seconds: dict[str, float] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)


def measured(tests: Sequence[str], files: Sequence[Path], copy: Path, *options: str) -> Measured:
    """Run tests of a copy without any change, and count which of them run which line of these files.

    Raises:
        Unfit: one of them fails.
    """
    data = copy / ".coverage"
    folders = sorted({str(file.parent) for file in files})
    counted = [*(f"--cov={folder}" for folder in folders), "--cov-context=test", "--cov-report="]
    outcome = run(tests, copy, *options, *counted)
    if outcome.failed or not outcome.seconds:
        raise Unfit(f"{outcome.failed or tests} fails without any change: each mutant would count as killed")
    known = CoverageData(str(data))
    known.read()
    by_line = {
        str(file): {
            str(line): sorted({context.rpartition("|")[0] for context in contexts if context})
            for line, contexts in known.contexts_by_lineno(str((copy / file).resolve())).items()
        }
        for file in files
    }
    data.unlink()
    return Measured(outcome.seconds, by_line, outcome.modules)


def killer(mutant: Mutant, room: Measured, copy: Path, *options: str) -> str | None:
    """Return the test that fails, or never ends, on the mutant twice, and which of both; None where it survives.

    Raises:
        Unfit: the tests have not imported the mutant, so they say nothing about it.
    """
    import_all(room.modules)
    with _changed(mutant, copy):
        for _, group in groupby(room.running(mutant), lambda test: _is_of(test, mutant)):
            tests = list(group)
            while tests:
                found = _run_on(mutant, tests, room, copy, *options).failed
                if found is None:
                    break
                again = [test for test in tests if test == found or test.startswith(f"{found}::")] or tests
                confirmed = _run_on(mutant, again, room, copy, *options)
                if confirmed.failed:
                    return f"{found} (never ends)" if confirmed.never_ended else found
                tests = tests[tests.index(again[-1]) + 1 :]
    return None


def _run_on(mutant: Mutant, tests: list[str], room: Measured, copy: Path, *options: str) -> Outcome:
    outcome = run(tests, copy, *options, seconds=room.seconds, mutant=mutant)
    if outcome.loaded == "other" or (outcome.loaded == "nothing" and outcome.failed is None):
        raise Unfit(f"{mutant.name}: {outcome.loaded} of it was imported by {', '.join(tests)}")
    return outcome


@contextlib.contextmanager
def _changed(mutant: Mutant, copy: Path) -> Iterator[None]:
    """Have the mutant in the copy while the block runs, and no bytecode of the same second and size beside it."""
    file = copy / mutant.path
    bytecode, before = Path(cache_from_source(str(file))), file.read_bytes()
    try:
        file.write_text(mutant.text, "utf-8")
        bytecode.unlink(missing_ok=True)
        yield
    finally:
        file.write_bytes(before)
        bytecode.unlink(missing_ok=True)


def import_all(modules: list[str]) -> None:
    """Import what forks are to have: what cannot be imported in this order is left to them."""
    for name in modules:
        if name not in sys.modules:
            with contextlib.suppress(ImportError):
                import_module(name)


def run(
    tests: Sequence[str],
    copy: Path,
    *options: str,
    seconds: Mapping[str, float] | None = None,
    mutant: Mutant | None = None,
) -> Outcome:
    """Run tests in a fork, in this order, up to the first that fails or takes much longer than `seconds` says."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run_here(tests, copy, options, mutant, writing)
    os.close(writing)
    try:
        return _heard(reading, seconds)
    finally:
        os.close(reading)
        _end(child)


def _heard(reading: int, seconds: Mapping[str, float] | None) -> Outcome:
    """Return what a fork tells until it has told all or a test never ends."""
    outcome, running, rest = Outcome(failed="(before the tests)"), "(before the tests)", b""
    while True:
        limit = None if seconds is None else SLOWER * seconds.get(running, SECONDS_BETWEEN) + SECONDS_MORE
        if not select.select([reading], [], [], limit)[0]:
            outcome.failed, outcome.never_ended = running, True
            return outcome
        got = os.read(reading, 1 << 16)
        if not got:
            return outcome
        *lines, rest = (rest + got).split(b"\n")
        for line in lines:
            told: dict[str, Any] = json.loads(line)
            running = told.pop("running", running)
            outcome.seconds.update(told.pop("took", {}))
            for name, value in told.items():
                setattr(outcome, name, value)


def _end(child: int) -> None:
    """Wait for a fork that has told all; kill it and all that it has started where it does not end."""
    deadline = time.monotonic() + SECONDS_MORE
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            for process in [*_descendants(child), child]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            os.waitpid(child, 0)
            return
        time.sleep(0.01)


def _descendants(process: int) -> list[int]:
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{process}/task/{process}/children").read_text("ascii").split()
        return [found for child in map(int, children) for found in (*_descendants(child), child)]
    return []


class Chosen:
    """Runs the chosen tests alone, in their order, and reports what happens."""

    def __init__(self, tests: Sequence[str], told: IO[str]) -> None:
        self._tests = {test: place for place, test in enumerate(tests)}
        self._told = told
        self._began = 0.0
        self.has_failed = False

    def tell(self, **what: object) -> None:
        self.has_failed = self.has_failed or bool(what.get("failed"))
        print(json.dumps(what), file=self._told, flush=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        self.tell(failed=None)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the chosen tests; where files and folders are chosen, all of them."""
        if any("::" in test for test in self._tests):
            items[:] = sorted(
                (item for item in items if item.nodeid in self._tests), key=lambda item: self._tests[item.nodeid]
            )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.tell(failed=report.nodeid)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._began = time.monotonic()
        self.tell(running=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tell(failed=report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.tell(took={nodeid: time.monotonic() - self._began}, running="(between the tests)")


def _run_here(tests: Sequence[str], copy: Path, options: tuple[str, ...], mutant: Mutant | None, told: int) -> None:
    """Run tests as the whole rest of this process."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
        chosen = Chosen(tests, os.fdopen(told, "w"))
        _run_and_tell(chosen, tests, copy, options, mutant)
    finally:
        os._exit(0)  # whatever comes: who forked this goes on alone


def _run_and_tell(
    chosen: Chosen, tests: Sequence[str], copy: Path, options: tuple[str, ...], mutant: Mutant | None
) -> None:
    _move_to(copy)
    files = dict.fromkeys(test.partition("::")[0] for test in tests)
    imported_before = set(sys.modules)
    always = ["-q", "-x", "--assert=plain", f"--basetemp={temporary_of(copy) / 'trial'}"]
    code: int = pytest.ExitCode.INTERNAL_ERROR
    try:
        code = pytest.main([*always, *options, *files], plugins=[chosen])
    finally:
        if code == pytest.ExitCode.NO_TESTS_COLLECTED or (mutant and mutant.module in imported_before):
            chosen.tell(loaded="other")
        elif mutant and mutant.module in sys.modules:
            chosen.tell(loaded="mutant" if _is_loaded(mutant, copy) else "other")
        if code and not chosen.has_failed:
            chosen.tell(failed="(the end of the tests)")
        chosen.tell(modules=[name for name in sys.modules if not _is_below(copy, name)])


def _move_to(copy: Path) -> None:
    """Have this process, and those that it starts, import from the copy, and keep their files and prints there."""
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    temporary = temporary_of(copy)
    temporary.mkdir(mode=0o755, exist_ok=True)
    # A worker of xdist: what all workers share is made once for all trials (`made_once` in tests/conftest.py).
    os.environ |= {"PYTHONPATH": str(copy), "TMPDIR": str(temporary), "PYTEST_XDIST_WORKER": "trial"}  # noqa: TID251
    tempfile.tempdir = None
    with (copy.parent / f"{copy.name}.log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def temporary_of(copy: Path) -> Path:
    return copy.parent / f"{copy.name}-tmp"


def _is_loaded(mutant: Mutant, copy: Path) -> bool:
    """Return whether what an import of the mutant's module yields is the mutant."""
    spec = sys.modules[mutant.module].__spec__
    code = compile(mutant.text, str(copy / mutant.path), "exec", dont_inherit=True)
    return spec is not None and spec.origin == str(copy / mutant.path) and spec.loader.get_code(mutant.module) == code  # type: ignore[union-attr]


def _is_below(folder: Path, module: str) -> bool:
    file = getattr(sys.modules[module], "__file__", None)
    return file is None or file.startswith(str(folder))
