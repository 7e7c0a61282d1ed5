"""`ingest status`: versions and jobs by state, decisions that the index lacks, originals without a version."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.catalogue import ApprovalDecision
from ingest.services import Services
from tests.clock import Clock
from tests.ingest.documents import REQUEST, original_in, printed_status, publish, receive, stream

pytestmark = pytest.mark.anyio


async def test_the_status_shows_originals_that_no_version_names(services: Services, tmp_path: Path) -> None:
    received = await receive(services)
    orphan, _being_received = [await services.blobs.write(stream(text)) for text in (b"# orphan", b"# young")]
    for digest in (received.version.sha256, orphan.sha256):
        os.utime(original_in(tmp_path, digest), (0, 0))
    assert "1 of 2 originals belong to no version" in await printed_status(services, now=time.time())


async def test_the_status_counts_versions_and_shows_how_far_work_is_behind(services: Services, clock: Clock) -> None:
    active = await publish(services, b"# one\n\ntext", document_id="one")
    ended = await publish(services, b"# two\n\ntext", document_id="two")
    clock.now += 60
    await services.approvals.expire(ended.key, ApprovalDecision(by="lee", at=clock.now))  # the index is not told
    await receive(services, b"# three\n\ntext", replace(REQUEST, document_id="three"))
    printed = await printed_status(services, now=clock.now + 3600)
    assert ["active", "1", str(active.passages)] in [line.replace("│", " ").split() for line in printed.splitlines()]
    assert "jobs: 1 queued, 2 done; the oldest that waits is 3600 s old" in printed
    assert "1 decisions have not reached the index yet" in printed
