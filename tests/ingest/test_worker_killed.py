"""kill -9 of the process that serves and works, in the midst of its work: nothing accepted is lost, nothing half shown.

Where a kill lands is random, but after something was seen of the work, and within half the time that the whole work
took on this machine; most kills of a module's rounds have to have met work that was not finished.
"""

import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from qdrant_client import QdrantClient

from tests.conftest import free_port
from tests.forked import Forked
from tests.ingest.keys import ISSUER, key_and_token

# Nothing here is a promise of time: a machine that others keep busy may take minutes.
pytestmark = [pytest.mark.faults, pytest.mark.services, pytest.mark.timeout(900)]

DOCUMENTS = 2
SECTIONS = 24
WITHIN_SECONDS = 240.0
HITS = 10
LEAST_ROUNDS = 3
STAGES = ("receive", "parse", "embed")
"""Those that a job is surely seen at: it tells of them twice a second."""
Points = dict[str, tuple[object, ...]]


def text(document: int, version: int) -> bytes:
    """A document of as many passages as sections; each names its version."""
    body = "\n".join(
        f"## 제{n}조\n\n판본{version} 상품{document} 제{n}조의 금리는 연 {version}.{n:02}%입니다. " + "가나다라 " * 40
        for n in range(1, SECTIONS + 1)
    )
    return f"# 상품{document} 약관\n\n{body}\n".encode()


class Bank:
    """The staff API with its worker in one process, over stores of its own."""

    def __init__(self, folder: Path, weights: Path, redis_url: str) -> None:
        self.data, self._log, self._port = folder / "data", folder / "log", free_port()
        self.token, key = key_and_token(folder)
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "WEIGHTS_DIR": str(weights),
            "DATA_DIR": str(self.data),
            "REDIS_URL": redis_url,
            "DELIVERY__QUEUE": f"kill-{uuid4().hex}",
            "DELIVERY__IDLE": "2",
            "INGEST_PORT": str(self._port),
            "PIPELINE__BATCH": "4",
            "CHUNKS__TOKENS": "300",
            "AUTH__ISSUER": ISSUER,
            "AUTH__PUBLIC_KEY_FILE": str(key),
        }
        self._process: Forked | None = None

    def start(self) -> None:
        self._process = Forked("ingest.__main__", ["serve"], self._environment, self._log)
        deadline = time.monotonic() + WITHIN_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self._log.read_text("utf-8")[-3000:]
            with suppress(httpx2.TransportError), self.client() as http:
                if http.get("/readyz").status_code == 200:
                    return
            time.sleep(0.05)
        pytest.fail("never ready")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def stop(self, how: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def client(self, sub: str = "kim", role: str = "staff") -> httpx2.Client:
        headers = {"authorization": f"Bearer {self.token(sub, role)}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=WITHIN_SECONDS)

    def upload(self, http: httpx2.Client, document: int, version: int) -> str:
        files = {"file": (f"{document}.md", text(document, version))}
        reply = http.post("/v1/documents", files=files, data={"document_id": f"d{document}"})
        assert reply.status_code == 202, reply.text
        return str(reply.json()["job_id"])

    def finish(self, http: httpx2.Client, jobs: list[str]) -> None:
        deadline = time.monotonic() + WITHIN_SECONDS
        for job_id in jobs:
            while (job := http.get(f"/v1/jobs/{job_id}").json())["state"] != "done":
                assert job["state"] in {"queued", "running"}, job
                assert time.monotonic() < deadline, job
                time.sleep(0.05)

    def approve(self, version: int) -> float:
        begins = 0.0
        with self.client("lee", "approver") as http:
            for document in range(DOCUMENTS):
                reply = until_served(partial(http.post, f"/v1/documents/d{document}/versions/{version}/approve"))
                begins = max(begins, reply.json()["visible_from"])
        return begins

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        """Read the database beside the process."""
        with closing(sqlite3.connect(f"file:{self.data / 'bank.db'}?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(statement).fetchall()

    def kill_when(self, seen: Callable[[], bool], after: float) -> None:
        """Kill the process so many seconds after something was seen."""
        deadline = time.monotonic() + WITHIN_SECONDS
        while not seen():
            assert time.monotonic() < deadline, "it was never seen"
            time.sleep(0.001)
        time.sleep(after)  # the random moment itself: nothing is waited for
        self.stop(signal.SIGKILL)

    def original(self, data: bytes) -> Path:
        """Return where the store of originals keeps a file."""
        digest = sha256(data).hexdigest()
        return self.data / "blobs" / digest[:2] / digest

    def windows(self, document: int, version: int) -> set[object]:
        """From when the points of a version may be read."""
        with closing(QdrantClient(path=str(self.data / "qdrant"))) as index:
            found, _ = index.scroll("kb", limit=10_000)
        payloads = [point.payload or {} for point in found]
        return {p["visible_from"] for p in payloads if (p["document_id"], p["version"]) == (f"d{document}", version)}

    def points(self) -> Points:
        """Everything in the index, without when it may be read: that is the clock's."""
        with closing(QdrantClient(path=str(self.data / "qdrant"))) as index:
            found, _ = index.scroll("kb", limit=10_000, with_vectors=True)
        points: Points = {}
        for point in found:
            vectors = point.vector
            assert isinstance(vectors, dict)
            payload = {name: value for name, value in (point.payload or {}).items() if not name.startswith("visible_")}
            # Texts that are embedded together shape each other's last digits, and a batch is other ones after a kill.
            dense = [pytest.approx(float(str(value)), abs=5e-3) for value in vectors["dense"]]
            points[str(point.id)] = (payload, vectors["terms"], dense)
        return points


def until_served(ask: Callable[[], httpx2.Response]) -> httpx2.Response:
    """Ask again while the index does not answer in time, as on a machine that others keep busy."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while (reply := ask()).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert reply.status_code == 200, reply.text
    return reply


def seen(http: httpx2.Client, document: int) -> set[int]:
    """Return the versions of a document that a customer finds, each as a whole: as many hits as there may be."""
    hits = until_served(partial(http.get, "/v1/search", params={"q": f"상품{document} 금리"})).json()["hits"]
    assert len(hits) == HITS, "half a version"
    return {hit["passage"]["version"] for hit in hits if hit["passage"]["document_id"] == f"d{document}"}


@contextmanager
def served(bank: Bank) -> Iterator[Bank]:
    bank.start()
    try:
        yield bank
    finally:
        bank.stop(signal.SIGKILL)


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
def before(weights: Path, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Before:
    folder = tmp_path_factory.mktemp("before")
    bank = Bank(folder, weights, redis_url)
    for version in (1, 2):
        with served(bank):
            with bank.client() as http:
                begun = time.monotonic()
                bank.finish(http, [bank.upload(http, document, version) for document in range(DOCUMENTS)])
                seconds = time.monotonic() - begun
            bank.stop(signal.SIGTERM)
        shutil.copytree(bank.data, folder / f"drafts-{version}")
        with served(bank):
            bank.approve(version)
            bank.stop(signal.SIGTERM)
        shutil.copytree(bank.data, folder / f"approved-{version}")
    return Before(data=folder / "approved-1", drafts=folder / "drafts-2", points=bank.points(), seconds=seconds)


@pytest.fixture(scope="module")
def met() -> Iterator[dict[str, list[bool]]]:
    """Whether each kill met unfinished work, by test."""
    met: dict[str, list[bool]] = {"indexing": [], "approving": []}
    yield met
    for what, kills in met.items():
        if len(kills) >= LEAST_ROUNDS:
            assert sum(kills) * 2 > len(kills), f"most kills came when {what} was over: {kills}"


def test_a_worker_killed_at_a_random_moment_loses_nothing_and_shows_nothing_half(
    weights: Path, redis_url: str, tmp_path: Path, before: Before, met: dict[str, list[bool]], fault_round: int
) -> None:
    chance = random.Random(fault_round)  # noqa: S311  a test's dice
    stage = chance.choice(STAGES)
    bank = Bank(tmp_path, weights, redis_url)
    shutil.copytree(before.data, bank.data)
    unfinished = "SELECT stage FROM ingest_jobs WHERE state IN ('queued', 'running')"

    def is_there() -> bool:
        stages = [row[0] for row in bank.rows(unfinished)]
        return not stages or any(STAGES.index(str(at)) >= STAGES.index(stage) for at in stages if at in STAGES)

    with served(bank):
        with bank.client() as http:
            accepted = [bank.upload(http, document, 2) for document in range(DOCUMENTS)]
        bank.kill_when(is_there, chance.uniform(0, before.seconds / 2))
    met["indexing"].append(bool(bank.rows(unfinished)))
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
    assert before.points == bank.points()


def test_an_approval_killed_before_the_index_was_told_shows_a_whole_version_and_in_the_end_the_new_one(
    weights: Path, redis_url: str, tmp_path: Path, before: Before, met: dict[str, list[bool]], fault_round: int
) -> None:
    chance = random.Random(fault_round)  # noqa: S311  a test's dice
    bank = Bank(tmp_path, weights, redis_url)
    shutil.copytree(before.drafts, bank.data)
    approved = "SELECT window_written FROM document_versions WHERE version = 2 AND state = 'approved'"
    with served(bank), ThreadPoolExecutor(1) as beside:
        beside.submit(bank.approve, 2)
        bank.kill_when(lambda: bool(bank.rows(approved)), chance.uniform(0, 0.003))
    decided = bank.rows(approved)
    met["approving"].append((0,) in decided)
    with served(bank), bank.client() as http:
        deadline = time.monotonic() + WITHIN_SECONDS
        while (versions := seen(http, 0)) != {2}:
            assert versions == {1}, "two versions at once, or none"
            assert time.monotonic() < deadline, "it never answers"
        if len(decided) < DOCUMENTS:
            assert seen(http, 1) == {1}, "nobody has decided about it"
        bank.stop(signal.SIGTERM)
    assert bank.rows(approved) == [(1,)] * len(decided)
    assert len(bank.windows(0, 2)) == 1, "half a version"
