"""kill -9 of the process that serves and works, in the midst of its work: nothing accepted is lost, nothing half shown.

Where a kill lands is random, but after something was seen of the work, and within half the time that the whole work
took on this machine.
"""

import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests.ingest.bank import DOCUMENTS, WITHIN_SECONDS, Bank, served, until_served
from tests.ingest.points import Points, points_in, starts_of

# Nothing here is a promise of time: a machine that others keep busy may take minutes.
pytestmark = [pytest.mark.faults, pytest.mark.services, pytest.mark.timeout(900)]

HITS = 10
STAGES = ("receive", "parse", "embed")
"""Those that a job is surely seen at: it tells of them twice a second."""


def seen(http: httpx2.Client, document: int) -> set[int]:
    """Return the versions of a document that a customer finds, each as a whole: as many hits as there may be."""
    hits = until_served(partial(http.get, "/v1/search", params={"q": f"상품{document} 금리"})).json()["hits"]
    assert len(hits) == HITS, "half a version"
    return {hit["passage"]["version"] for hit in hits if hit["passage"]["document_id"] == f"d{document}"}


@dataclass(frozen=True, kw_only=True)
class Before:
    """A bank whose first versions answer, and what its index holds when nobody disturbs the second ones."""

    data: Path
    drafts: Path
    """The same where the second ones wait to be approved."""
    points: Points
    seconds: float
    """How long indexing the second ones took."""


@pytest.fixture(scope="module")
def before(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Before:
    folder = tmp_path_factory.mktemp("before")
    bank = Bank(folder, weights)

    def index(version: int) -> float:
        """Index these versions; return the seconds that it took."""
        with bank.client() as http:
            begun = time.monotonic()
            bank.finish(http, [bank.upload(http, document, version) for document in range(DOCUMENTS)])
            return time.monotonic() - begun

    with served(bank):
        index(1)
        bank.approve(1)
        bank.stop(signal.SIGTERM)
    shutil.copytree(bank.data, folder / "approved")
    with served(bank):
        seconds = index(2)
        bank.stop(signal.SIGTERM)
    shutil.copytree(bank.data, folder / "drafts")
    with served(bank):
        bank.approve(2)
        bank.stop(signal.SIGTERM)
    return Before(data=folder / "approved", drafts=folder / "drafts", points=points_in(bank.data), seconds=seconds)


def test_a_worker_killed_at_a_random_moment_loses_nothing_and_shows_nothing_half(
    weights: Path, tmp_path: Path, before: Before, fault_round: int
) -> None:
    chance = random.Random(fault_round)  # noqa: S311  a test's dice
    stage = chance.choice(STAGES)
    bank = Bank(tmp_path, weights)
    shutil.copytree(before.data, bank.data)
    unfinished = "SELECT stage FROM ingest_jobs WHERE state IN ('queued', 'running')"

    def is_there() -> bool:
        stages = [row[0] for row in bank.rows(unfinished)]
        return not stages or any(STAGES.index(str(at)) >= STAGES.index(stage) for at in stages if at in STAGES)

    with served(bank):
        with bank.client() as http:
            accepted = [bank.upload(http, document, 2) for document in range(DOCUMENTS)]
        bank.kill_when(is_there, chance.uniform(0, before.seconds / 2))
    with served(bank), bank.client() as http:
        is_done = False
        while not is_done:
            is_done = all(http.get(f"/v1/jobs/{job}").json()["state"] == "done" for job in accepted)
            for document in range(DOCUMENTS):
                assert seen(http, document) == {1}, "a draft is shown, or nothing"
        begins = bank.approve(2)
        while time.time() < begins + 0.2:
            for document in range(DOCUMENTS):
                assert len(seen(http, document)) == 1, "two versions at once, or none"
        assert [seen(http, document) for document in range(DOCUMENTS)] == [{2}] * DOCUMENTS
        bank.stop(signal.SIGTERM)
    assert before.points == points_in(bank.data)


def test_an_approval_killed_before_the_index_was_told_shows_a_whole_version_and_in_the_end_the_new_one(
    weights: Path, tmp_path: Path, before: Before, fault_round: int
) -> None:
    chance = random.Random(fault_round)  # noqa: S311  a test's dice
    bank = Bank(tmp_path, weights)
    shutil.copytree(before.drafts, bank.data)
    approved = "SELECT window_written FROM document_versions WHERE version = 2 AND state = 'approved'"
    with served(bank), ThreadPoolExecutor(1) as beside:
        beside.submit(bank.approve, 2)
        bank.kill_when(lambda: bool(bank.rows(approved)), chance.uniform(0, 0.003))
    decided = bank.rows(approved)
    with served(bank), bank.client() as http:
        deadline = time.monotonic() + WITHIN_SECONDS
        while (versions := seen(http, 0)) != {2}:
            assert versions == {1}, "two versions at once, or none"
            assert time.monotonic() < deadline, "it never answers"
        if len(decided) < DOCUMENTS:
            assert seen(http, 1) == {1}, "nobody has decided about it"
        bank.stop(signal.SIGTERM)
    assert bank.rows(approved) == [(1,)] * len(decided)
    assert len(starts_of(bank.data, "d0", 2)) == 1, "half a version"
