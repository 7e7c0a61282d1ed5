"""One contract for originals, kept by both stores: a folder, and an S3-compatible server on loopback (moto)."""

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from ingest.blobs import Blobs, BlobSettings, open_blobs
from ingest.errors import StorageUnavailable, TooLarge

pytestmark = [pytest.mark.anyio, pytest.mark.services]

Names = Callable[[], list[str]]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server; its address and keys are in the environment, where AWS's libraries look."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", url), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):  # fmt: skip
            patch.setenv(name, value)
        yield url
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Blobs, Names]:
    """A store that takes 7 MiB, and what lists the names in it."""
    if request.param == "folder":
        folder = tmp_path / "blobs"
        settings = BlobSettings(folder=folder, most_bytes=7 * 1024 * 1024)
        return open_blobs(settings), lambda: [path.name for path in folder.rglob("*") if path.is_file()]
    request.getfixturevalue("s3")
    bucket = f"bank-{uuid4().hex}"
    files = S3FileSystem(skip_instance_cache=True)
    files.mkdir(bucket)
    settings = BlobSettings(s3_url=f"s3://{bucket}/originals", most_bytes=7 * 1024 * 1024)
    return open_blobs(settings), lambda: [name.rpartition("/")[2] for name in files.find(bucket, refresh=True)]


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_what_is_written_is_read_back_under_its_digest_and_twice_takes_one_place(
    store: tuple[Blobs, Names],
) -> None:
    blobs, names = store
    data = [os.urandom(1024 * 1024) for _ in range(6)]
    written = [await blobs.write(pieces(*data)) for _ in range(2)]
    digest = hashlib.sha256(b"".join(data)).hexdigest()
    assert [(blob.sha256, blob.size) for blob in written] == [(digest, 6 * 1024 * 1024)] * 2
    async with blobs.on_disk(digest) as path:
        assert await anyio.Path(path).read_bytes() == b"".join(data)
    assert names() == [digest]


async def test_what_is_too_large_or_breaks_off_leaves_nothing(store: tuple[Blobs, Names]) -> None:
    blobs, names = store

    async def breaks_off() -> AsyncIterator[bytes]:
        yield b"x" * 6 * 1024 * 1024
        raise RuntimeError

    with pytest.raises(TooLarge):
        await blobs.write(pieces(*[b"x" * 1024 * 1024] * 8))
    with pytest.raises(RuntimeError):
        await blobs.write(breaks_off())
    assert names() == []


async def test_what_is_not_there_cannot_be_read(store: tuple[Blobs, Names]) -> None:
    with pytest.raises(StorageUnavailable):
        async with store[0].on_disk("0" * 64):
            pass


async def test_a_server_that_is_away_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_ACCESS_KEY_ID", "test")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    blobs = open_blobs(BlobSettings(s3_url="s3://bank", deadline=1.0))
    with pytest.raises(StorageUnavailable):
        await blobs.write(pieces(b"x"))
