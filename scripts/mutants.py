"""Change one place of the code at random, again and again, and name the changes that no test notices (`make mutants`).

The code is changed in copies. The tests of a room run once without any change, and record the lines that each of them
runs; a mutant is killed where one of those that run its lines fails or never ends, twice. The diff of each survivor is
printed, and the status is 1 where fewer than 90 % are killed. The same seed makes the same mutants. A run that is
broken off continues where it was, as long as no tracked file has changed.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.changes import Mutant, mutants_of
from scripts.faults import tracked_state
from scripts.trials import Measured, Unfit, killer, measured

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Room:
    """Files and folders that are mutated, and the tests that have to notice."""

    places: Sequence[str]
    tests: Sequence[str]

    @property
    def files(self) -> list[Path]:
        found = [
            [place] if place.is_file() else sorted(place.glob("*.py")) for place in map(ROOT.joinpath, self.places)
        ]
        return [file.relative_to(ROOT) for files in found for file in files]


ROOMS = {
    "streams": Room(["chatbot/streams"], ["tests/chatbot/streams"]),
    "limits": Room(["chatbot/limits"], ["tests/chatbot/limits"]),
    "audit": Room(
        ["chatbot/audit"], ["tests/chatbot/audit", "tests/chatbot/streams/test_abandoned.py", "tests/test_schema.py"]
    ),
    "reads": Room(["chatbot/reads.py"], ["tests/chatbot/test_reads.py", "tests/chatbot/conversations"]),
    "abandoned": Room(["chatbot/turns/abandoned.py"], ["tests/chatbot/streams/test_abandoned.py"]),
    "approvals": Room(
        ["ingest/catalogue/approvals.py", "ingest/catalogue/validity.py"],
        ["tests/ingest/catalogue", "tests/ingest/test_pipeline.py"],
    ),
    "access": Room(["knowledge/access.py"], ["tests/knowledge/test_access.py", "tests/knowledge/index/test_edge.py"]),
}
WANTED = 0.9
AT_ONCE = 3
"""Most tests wait most of the time: three at once keep two cores busy."""
OPTIONS = ("--faults", "1", "--patience", "4")
"""Tests are patient, since others run beside them."""


class Trials:
    """Tries mutants, several at once, each once; what came of it is kept in a folder until a tracked file changes."""

    def __init__(self, kept: Path) -> None:
        state = tracked_state()
        for former in kept.glob("*"):
            if former.name != state:
                shutil.rmtree(former)
        self._folder = kept / state
        self._folder.mkdir(parents=True, exist_ok=True)
        self._killers: dict[str, str | None] = self._kept("killers") or {}

    def killers_of(self, chosen: list[tuple[Mutant, str]]) -> Iterator[tuple[Mutant, str | None]]:
        """Yield each mutant with the test that kills it, or None, as they come.

        Raises:
            Unfit: the tests of a room fail without any change, or do not import what is changed.
        """
        yield from [(mutant, self._killers[mutant.name]) for mutant, _ in chosen if mutant.name in self._killers]
        left = [(mutant, room) for mutant, room in chosen if mutant.name not in self._killers]
        with in_processes() as (processes, folder):
            rooms = [room for room in ROOMS if any(room == its_room for _, its_room in left)]
            measuring = {self._measured(processes, folder, room): room for room in rooms}
            trying: dict[Future[str | None], Mutant] = {}
            waited: set[Future[Any]] = set(measuring)
            while waited:
                done, waited = wait(waited, return_when=FIRST_COMPLETED)
                for future in done:
                    if future in measuring:
                        room, found = measuring[future], future.result()
                        self._keep(room, asdict(found))
                        of_room = [mutant for mutant, its_room in left if its_room == room]
                        begun = {processes.submit(killer_in, folder, mutant, found): mutant for mutant in of_room}
                        trying |= begun
                        waited |= begun.keys()
                    else:
                        self._killers[trying[future].name] = future.result()
                        self._keep("killers", self._killers)
                        yield trying[future], future.result()

    def _measured(self, processes: ProcessPoolExecutor, folder: Path, room: str) -> "Future[Measured]":
        kept = self._kept(room)
        if kept is None:
            return processes.submit(measured_in, folder, room)
        known: Future[Measured] = Future()
        known.set_result(Measured(**kept))
        return known

    def _kept(self, name: str) -> Any:
        file = self._folder / f"{name}.json"
        return json.loads(file.read_text("utf-8")) if file.exists() else None

    def _keep(self, name: str, value: object) -> None:
        (self._folder / f"{name}.json").write_text(json.dumps(value, indent=1), "utf-8")


@contextmanager
def in_processes() -> Iterator[tuple[ProcessPoolExecutor, Path]]:
    """Yield processes for trials, and a folder for their copies."""
    # Ctrl-C ends the processes at once, and pytest in their forks as ever.
    forked = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(AT_ONCE, forked, signal.signal, (signal.SIGINT, signal.SIG_DFL))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, pool as processes:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL is another user
        try:
            yield processes, folder
        finally:
            processes.shutdown(cancel_futures=True)


def measured_in(folder: Path, room: str) -> Measured:
    return measured(ROOMS[room].tests, ROOMS[room].files, copy_of_this_process(folder), *OPTIONS)


def killer_in(folder: Path, mutant: Mutant, room: Measured) -> str | None:
    return killer(mutant, room, copy_of_this_process(folder), *OPTIONS)


def copy_of_this_process(folder: Path) -> Path:
    copy = folder / str(os.getpid())
    if not copy.exists():
        unneeded = shutil.ignore_patterns(".git", ".venv*", ".data", ".*_cache")
        shutil.copytree(ROOT, copy, ignore=unneeded, symlinks=True)
    return copy


def main() -> int:
    """Run so many mutants, and return the exit status."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("number", type=int, help="how many mutants")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--rooms", nargs="*", default=list(ROOMS), choices=list(ROOMS))
    options = asked.parse_args()
    dice = random.Random(options.seed)  # noqa: S311  the same seed makes the same mutants
    known = [
        (mutant, room) for room in options.rooms for file in ROOMS[room].files for mutant in mutants_of(ROOT, file)
    ]
    chosen = dice.sample(known, min(options.number, len(known)))
    print(f"seed {options.seed}: {len(chosen)} of {len(known)} mutants", flush=True)
    survivors = 0
    try:
        for n, (mutant, test) in enumerate(Trials(ROOT / ".data" / "mutants").killers_of(chosen), 1):
            print(f"{n}/{len(chosen)} {mutant.name} {f'killed by {test}' if test else 'SURVIVED'}", flush=True)
            if test is None:
                survivors += 1
                print(mutant.diff(ROOT), flush=True)
    except Unfit as exc:
        print(exc)
        return 2
    share = 1 - survivors / len(chosen) if chosen else 1.0
    print(f"seed {options.seed}: {len(chosen)} of {len(known)} mutants, {share:.1%} killed")
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
