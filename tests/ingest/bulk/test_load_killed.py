"""kill -9 of `ingest load` at a random moment: nothing is shown that should not be, and the same command ends with
the points of a load that nobody disturbed.
"""

import random
import shutil
import signal
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ingest.bank import text
from tests.ingest.commands import command, run
from tests.ingest.points import Points, points_in, windows_in

# Nothing here is a promise of time: a machine that others keep busy may take minutes.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

DOCUMENTS = 12
WITHIN_SECONDS = 240.0
SETTINGS = {"CHUNKS__TOKENS": "300", "PIPELINE__BATCH": "4"}
PEOPLE = ("--uploaded-by", "kim", "--approved-by", "lee")


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A load that nobody disturbed: its folder, the points that it made, and how long it took."""

    folder: Path
    points: Points
    passages: dict[str, int]
    seconds: float


def versions(data: Path) -> dict[str, tuple[str, int]]:
    """Return the state and the number of passages of each document, as the catalogue has them; none before it is."""
    try:
        with closing(sqlite3.connect(f"file:{data / 'bank.db'}?mode=ro", uri=True, timeout=10)) as database:
            rows = database.execute("SELECT document_id, state, passages FROM document_versions").fetchall()
    except sqlite3.OperationalError:
        return {}
    assert len({document_id for document_id, *_ in rows}) == len(rows), "a file became two versions"
    return {document_id: (state, passages) for document_id, state, passages in rows}


def steps(data: Path) -> int:
    """Return how far a load is: one for each draft, two for each decision."""
    return sum({"indexed": 1, "approved": 2}.get(state, 0) for state, _ in versions(data).values())


@pytest.fixture(scope="module")
def whole(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder, data = tmp_path_factory.mktemp("documents"), tmp_path_factory.mktemp("whole")
    for n in range(DOCUMENTS):
        (folder / f"d{n}.md").write_bytes(text(n, 1))
    run(weights, data, "migrate")  # so that the load's time has no import in it, as that of those which are killed
    began = time.monotonic()
    status, output = run(weights, data, "load", str(folder), *PEOPLE, variables=SETTINGS, within_seconds=WITHIN_SECONDS)
    seconds = time.monotonic() - began
    assert status == 0, output
    passages = {document_id: count for document_id, (_, count) in versions(data).items()}
    assert len(passages) == DOCUMENTS
    return Whole(folder=folder, points=points_in(data), passages=passages, seconds=seconds)


def test_a_load_killed_at_a_random_moment_shows_nothing_undecided_and_ends_with_the_same_points(
    weights: Path, tmp_path: Path, whole: Whole, fault_round: int
) -> None:
    data, load = tmp_path / "data", ("load", str(whole.folder), *PEOPLE)
    chance = random.Random(fault_round)  # noqa: S311  a test's dice
    reached, deadline = chance.randrange(2 * DOCUMENTS), time.monotonic() + WITHIN_SECONDS
    killed = command(weights, data, tmp_path / "log", *load, variables=SETTINGS)
    while killed.poll() is None and steps(data) < reached:
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.001)
    time.sleep(chance.uniform(0, whole.seconds / DOCUMENTS))  # the random moment itself: nothing is waited for
    with suppress(ProcessLookupError):  # it was over
        killed.send_signal(signal.SIGKILL)
    killed.wait(30)

    # What a reader would find is looked up in a copy: the next start meets what the kill left.
    left = tmp_path / "left"
    shutil.copytree(data, left, dirs_exist_ok=True) if data.exists() else left.mkdir()
    decided = versions(left)
    for document_id, (shown, drafted) in windows_in(left).items():
        state, passages = decided[document_id]
        assert not shown or (state == "approved" and (shown, drafted) == (passages, 0)), (document_id, state)

    status, output = run(weights, data, *load, variables=SETTINGS, within_seconds=WITHIN_SECONDS)
    assert status == 0, output
    assert {document_id: counted for document_id, (_, counted) in versions(data).items()} == whole.passages
    assert points_in(data) == whole.points
    assert windows_in(data) == {document_id: (counted, 0) for document_id, counted in whole.passages.items()}
