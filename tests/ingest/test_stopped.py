"""SIGTERM of the process that serves and works, beside the worst uploads: it ends, and the next one does their jobs."""

import signal
import time
from pathlib import Path

import pytest

from tests.ingest.bank import WITHIN_SECONDS, Bank, served
from tests.shapes import SHAPES

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

SHAPE, BYTES = "paragraphs.txt", 600_000
"""A text that takes long to embed."""


def wait_for_stage(bank: Bank, stage: str) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while ("running", stage) not in bank.rows("SELECT state, stage FROM ingest_jobs"):
        assert bank.rows("SELECT 1 FROM ingest_jobs WHERE state IN ('queued', 'running')"), (
            "it ended before it was seen"
        )
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.01)


def ended(bank: Bank) -> tuple[object, ...]:
    """Return the state and the reason of the one version, when its job has ended."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while bank.rows("SELECT 1 FROM ingest_jobs WHERE state IN ('queued', 'running')"):
        assert time.monotonic() < deadline, "its job never ended"
        time.sleep(0.05)
    (version,) = bank.rows("SELECT state, reason FROM document_versions")
    return version


def test_a_service_ends_at_once_beside_a_long_job_and_the_next_one_does_it(weights: Path, tmp_path: Path) -> None:
    bank = Bank(tmp_path, weights)
    with served(bank):
        with bank.client() as http:
            reply = http.post("/v1/documents", files={"file": (SHAPE, SHAPES[SHAPE](BYTES))})
            assert reply.status_code == 202, reply.text
        wait_for_stage(bank, "embed")
        bank.stop(signal.SIGTERM)  # fails unless it ends within 30 of the 60 seconds that it has
        assert bank.rows("SELECT state, attempts, claimed_by FROM ingest_jobs") == [("queued", 0, None)]
    with served(bank):
        assert ended(bank) == ("indexed", None)
        bank.stop(signal.SIGTERM)
