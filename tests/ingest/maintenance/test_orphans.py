"""Originals that no version names go after a while; no upload that is on its way loses its own."""

import os
import time
from hashlib import sha256
from pathlib import Path

import anyio
import pytest

from ingest.errors import StorageUnavailable
from ingest.maintenance.status import orphans_line, read_status
from ingest.services import Services
from ingest.uploads import Blob
from ingest.worker import ORPHANS_BELIEVED, Orphans, discard_orphans
from tests.clock import Clock
from tests.ingest.documents import receive, stream

pytestmark = pytest.mark.anyio

TEXT = b"# nobody knows me"
DIGEST = sha256(TEXT).hexdigest()


async def orphans(services: Services, *texts: bytes) -> list[Blob]:
    return [await services.blobs.write(stream(text)) for text in texts]


def make_old(folder: Path, *digests: str) -> None:
    for digest in digests:
        [original] = folder.rglob(digest)
        os.utime(original, (0, 0))


async def test_an_original_whose_row_was_never_written_is_removed_and_no_other(
    services: Services, clock: Clock, tmp_path: Path
) -> None:
    received = await receive(services)
    (orphan,) = await orphans(services, TEXT)
    clock.now = time.time()
    assert await discard_orphans(services.blobs, services.catalogue, now=clock.now) == 0, (
        "it may be about to be written"
    )
    # A database of last month was restored: it does not know what was uploaded since.
    assert await discard_orphans(services.blobs, services.catalogue, now=clock.now + 30 * 86400) == 0
    make_old(tmp_path, received.version.sha256, orphan.sha256)
    assert await discard_orphans(services.blobs, services.catalogue, now=clock.now) == 1
    assert [await services.blobs.has(digest) for digest in (received.version.sha256, orphan.sha256)] == [True, False]


async def test_where_most_originals_are_nobodys_the_database_is_doubted_and_none_is_removed(
    services: Services, clock: Clock, tmp_path: Path
) -> None:
    texts = [str(n).encode() for n in range(ORPHANS_BELIEVED + 1)]
    left = [blob.sha256 for blob in await orphans(services, *texts)]
    make_old(tmp_path, *left)
    clock.now = time.time()
    assert await discard_orphans(services.blobs, services.catalogue, now=clock.now) == 0
    assert all([await services.blobs.has(digest) for digest in left])
    await services.blobs.discard(left.pop(), older_than=0)
    assert await discard_orphans(services.blobs, services.catalogue, now=clock.now) == len(left)


@pytest.mark.both_databases
async def test_an_upload_of_what_is_being_removed_waits_and_is_not_said_to_be_accepted(services: Services) -> None:
    refused = anyio.Event()

    async def upload() -> None:
        with pytest.raises(StorageUnavailable):
            await receive(services, TEXT)
        refused.set()

    async with anyio.create_task_group() as uploads, services.catalogue.hold_digest(DIGEST) as is_orphan:
        assert is_orphan
        uploads.start_soon(upload)
        with anyio.fail_after(20):
            while not await services.blobs.has(DIGEST):
                await anyio.sleep(0.01)
        assert await services.blobs.discard(DIGEST, older_than=-1)
        assert not refused.is_set()
    again = await receive(services, TEXT)
    assert (again.version.sha256, again.version.key.version) == (DIGEST, 1), "registered, though it was refused"
    async with services.catalogue.hold_digest(DIGEST) as is_orphan:
        assert not is_orphan


async def test_the_status_shows_originals_of_no_version_long_before_they_go(
    services: Services, clock: Clock, tmp_path: Path
) -> None:
    await receive(services)
    young, old = await orphans(services, b"# young", TEXT)
    make_old(tmp_path, old.sha256)
    clock.now = time.time() + 2 * 3600  # an upload that is on its way is none
    status = await read_status(services.catalogue, services.job_claims, services.blobs, "hanbit", now=clock.now)
    assert status.orphans.digests == {young.sha256, old.sha256}
    assert status.due_orphans.digests == {old.sha256}
    said = orphans_line(status.orphans, status.due_orphans)
    assert (
        said
        == "2 of 3 originals belong to no version; 1 of them are older than 35 days and are removed by a running worker"
    )
    assert await services.blobs.has(old.sha256), "looking removes nothing"


def test_the_status_doubts_the_database_where_most_originals_are_nobodys() -> None:
    many = Orphans(digests=frozenset(map(str, range(ORPHANS_BELIEVED + 1))), originals=ORPHANS_BELIEVED + 1)
    assert "is this the database of this store?" in orphans_line(many, many)
