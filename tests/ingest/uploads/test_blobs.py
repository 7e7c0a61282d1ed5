"""One contract for originals, kept by both stores: a folder, and an S3-compatible server on loopback (moto)."""

import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from s3fs import S3FileSystem

from ingest.errors import OriginalChanged, StorageUnavailable, TooLarge
from ingest.uploads.blobs import Blobs, BlobSettings, open_blobs
from tests.ingest.documents import stream
from tests.s3 import s3_in_the_environment

pytestmark = [pytest.mark.anyio, pytest.mark.services]

MIB = 1024 * 1024


@dataclass(frozen=True)
class Store:
    """A store of at most 7 MiB, and functions that list its names, write beside its originals and overwrite them."""

    blobs: Blobs
    names: Callable[[], list[str]]
    lay: Callable[[str], object]
    overwrite: Callable[[str, bytes], object]
    changed: list[str]
    """The digests that were reported as changed."""


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    with s3_in_the_environment():
        yield


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    changed: list[str] = []
    if request.param == "folder":
        folder = tmp_path / "blobs"

        def lay(name: str) -> None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"x")

        blobs = open_blobs(BlobSettings(folder=folder, most_bytes=7 * MIB), on_changed=changed.append)
        return Store(
            blobs,
            lambda: [path.name for path in folder.rglob("*") if path.is_file()],
            lay,
            lambda digest, data: (folder / digest[:2] / digest).write_bytes(data),
            changed,
        )
    request.getfixturevalue("s3")
    bucket = f"bank-{uuid4().hex}"
    files = S3FileSystem(skip_instance_cache=True)
    files.mkdir(bucket)
    return Store(
        open_blobs(BlobSettings(s3_url=f"s3://{bucket}/originals", most_bytes=7 * MIB), on_changed=changed.append),
        lambda: [name.rpartition("/")[2] for name in files.find(bucket, refresh=True)],
        lambda name: files.pipe(f"{bucket}/originals/{name}", b"x"),
        lambda digest, data: files.pipe(f"{bucket}/originals/{digest[:2]}/{digest}", data),
        changed,
    )


async def test_an_original_is_read_back_by_its_digest_and_stored_once(
    store: Store,
) -> None:
    blobs, names = store.blobs, store.names
    data = [os.urandom(MIB) for _ in range(6)]
    written = [await blobs.write(stream(*data)) for _ in range(2)]
    digest = hashlib.sha256(b"".join(data)).hexdigest()
    assert [(blob.sha256, blob.size) for blob in written] == [(digest, 6 * MIB)] * 2
    async with blobs.on_disk(digest) as path:
        assert await anyio.Path(path).read_bytes() == b"".join(data)
    assert names() == [digest]


async def test_an_original_that_is_too_large_or_breaks_off_leaves_nothing(store: Store) -> None:
    blobs, names = store.blobs, store.names

    async def breaks_off() -> AsyncIterator[bytes]:
        yield b"x" * 6 * MIB
        raise RuntimeError

    with pytest.raises(TooLarge):
        await blobs.write(stream(*[b"x" * MIB] * 8))
    with pytest.raises(RuntimeError):
        await blobs.write(breaks_off())
    assert names() == []


async def test_a_missing_original_is_unavailable(store: Store) -> None:
    with pytest.raises(StorageUnavailable):
        async with store.blobs.on_disk("0" * 64):
            pass


async def test_originals_are_listed_by_age(store: Store) -> None:
    store.lay("ab/notes")
    store.lay("incoming/left")
    blob = await store.blobs.write(stream(b"x"))
    now = time.time()
    assert await store.blobs.stored_before(now - 60) == []
    assert await store.blobs.stored_before(now + 60) == [blob.sha256]


async def test_a_server_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_ACCESS_KEY_ID", "test")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    blobs = open_blobs(BlobSettings(s3_url="s3://bank", deadline=1.0))
    with pytest.raises(StorageUnavailable):
        await blobs.write(stream(b"x"))


async def test_an_overwritten_original_is_not_read(store: Store) -> None:
    blob = await store.blobs.write(stream(b"approved"))
    async with store.blobs.on_disk(blob.sha256) as path:
        assert path.read_bytes() == b"approved"
    assert store.changed == []
    store.overwrite(blob.sha256, b"replaced")
    with pytest.raises(OriginalChanged):
        async with store.blobs.on_disk(blob.sha256):
            pytest.fail("bytes that nobody approved were given to a reader")
    assert store.changed == [blob.sha256]
