"""The staff API with its worker as a program of its own, over stores of its own; it can be stopped and killed."""

import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx2
import pytest

from evals.sample_bank import SAMPLE_BANK
from tests.conftest import free_port
from tests.forked import Forked
from tests.ingest.keys import ISSUER, key_and_token

DOCUMENTS = 2
SECTIONS = 24
WITHIN_SECONDS = 240.0


def text(document: int, version: int) -> bytes:
    """A document of as many passages as sections; each names its version."""
    body = "\n".join(
        f"## 제{n}조\n\n판본{version} 상품{document} 제{n}조의 금리는 연 {version}.{n:02}%입니다. " + "가나다라 " * 40
        for n in range(1, SECTIONS + 1)
    )
    return f"# 상품{document} 약관\n\n{body}\n".encode()


class Bank:
    """The staff API with its worker in one process, over stores of its own."""

    def __init__(self, folder: Path, weights: Path, **settings: str) -> None:
        self.data, self._log = folder / "data", folder / "log"
        self._port = int(settings.get("INGEST_PORT") or free_port())
        self.token, key = key_and_token(folder)
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "WEIGHTS_DIR": str(weights),
            "DATA_DIR": str(self.data),
            "INGEST_PORT": str(self._port),
            "BANK_FILE": str(SAMPLE_BANK),
            "PIPELINE__BATCH": "4",
            "CHUNKS__TOKENS": "300",
            "AUTH__ISSUER": ISSUER,
            "AUTH__PUBLIC_KEY_FILE": str(key),
            **settings,
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
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def stop(self, how: signal.Signals) -> int | None:
        """Stop the process; return its exit status, None where it does not run."""
        if self._process is None:
            return None
        with suppress(ProcessLookupError):
            self._process.send_signal(how)
        status = self._process.wait(30)
        self._process = None
        return status

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


def until_served(ask: Callable[[], httpx2.Response]) -> httpx2.Response:
    """Ask again while the index does not answer in time, as on a machine that others keep busy."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while (reply := ask()).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert reply.status_code == 200, reply.text
    return reply


@contextmanager
def served(bank: Bank) -> Iterator[Bank]:
    bank.start()
    try:
        yield bank
    finally:
        bank.stop(signal.SIGKILL)
