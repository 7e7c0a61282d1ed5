import os
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ingest.maintenance import read_status, show_status
from ingest.services import Services
from tests.ingest.documents import original_in, receive, stream

pytestmark = pytest.mark.anyio


async def test_the_status_shows_originals_that_no_version_names(services: Services, tmp_path: Path) -> None:
    received = await receive(services)
    orphan, _being_received = [await services.blobs.write(stream(text)) for text in (b"# orphan", b"# young")]
    for digest in (received.version.sha256, orphan.sha256):
        os.utime(original_in(tmp_path, digest), (0, 0))
    now = time.time()
    status = await read_status(services.catalogue, services.job_claims, services.blobs, "hanbit", now=now)
    assert (status.originals, status.orphans) == (2, frozenset({orphan.sha256}))
    show_status(status, Console(file=(printed := StringIO()), width=200))
    assert "1 of 2 originals belong to no version" in printed.getvalue()
