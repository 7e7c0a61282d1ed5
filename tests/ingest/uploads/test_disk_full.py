"""No room on the disk: uploads get 507 or 503, nothing is left behind, and it heals by itself.

The disk is made small by the kernel's limit on the size of files of that one process, which is set and lifted while it
runs: a write past it fails as one to a full disk does.
"""

import resource
import time

import httpx2
import pytest

from tests.ingest.bank import Bank, text

LARGE = b"# large\n\n" + b"word " * 600_000


def room(bank: Bank, size: int) -> None:
    """Let no file of the process grow past `size` bytes (-1: as it likes)."""
    _, hard = resource.prlimit(bank.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(bank.pid, resource.RLIMIT_FSIZE, (size, hard))


def originals(bank: Bank) -> set[str]:
    return {path.name for path in (bank.data / "blobs").rglob("*") if path.is_file()}


def upload(http: httpx2.Client, data: bytes) -> httpx2.Response:
    return http.post("/v1/documents", files={"file": ("a.md", data)}, data={"document_id": "large"})


@pytest.mark.faults
@pytest.mark.services
def test_uploads_without_room_are_refused_and_leave_nothing_and_go_on_when_there_is_room(bank: Bank) -> None:
    with bank.client() as http:
        bank.finish(http, [bank.upload(http, 0, 1)])
        before = originals(bank)
        for size, data in ((1024 * 1024, LARGE), (2 * 1024, LARGE), (0, text(1, 1))):
            room(bank, size)
            refused = upload(http, data)
            assert refused.status_code in {503, 507}, refused.text
            assert refused.headers["retry-after"]
            assert originals(bank) == before
        room(bank, resource.RLIM_INFINITY)
        began = time.monotonic()
        accepted = upload(http, text(1, 1))
        assert accepted.status_code == 202, accepted.text
        assert time.monotonic() - began < 10
        bank.finish(http, [accepted.json()["job_id"]])
