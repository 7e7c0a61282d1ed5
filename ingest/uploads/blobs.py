"""The blob store of original bytes, named by their SHA-256: the same file twice is stored once.

Two stores: a folder, and an S3-compatible bucket. A name appears in either only when all its bytes are there.
"""

import errno
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from shutil import copyfile
from typing import Any, Protocol
from uuid import uuid4

import anyio
import structlog
from botocore.exceptions import BotoCoreError, ClientError
from fsspec.exceptions import FSTimeoutError
from pydantic import BaseModel, PositiveFloat, PositiveInt

from ingest.errors import OriginalChanged, StorageFull, StorageUnavailable, TooLarge
from knowledge.storage import open_s3
from knowledge.tls import TlsSettings

log = structlog.get_logger(__name__)

_PART_BYTES = 8 * 1024 * 1024
"""Of a multipart upload to S3; the bytes of one part are held in memory."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BlobSettings(BaseModel, frozen=True):
    """The store of originals (a folder, or `s3://bucket/prefix`), the limit of their size, S3's deadline in seconds.

    An S3 store's address and keys come from AWS's own variables (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …).
    """

    folder: Path | None = None
    s3_url: str | None = None
    most_bytes: PositiveInt = 100 * 1024 * 1024
    deadline: PositiveFloat = 20.0
    tls: TlsSettings = TlsSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A stored original: its SHA-256 and its size in bytes."""

    sha256: str
    size: int


class Blobs(Protocol):
    """A store of originals, each of at most `most_bytes`."""

    most_bytes: int

    async def write(self, chunks: AsyncIterator[bytes]) -> Blob:
        """Store a stream of bytes.

        Raises:
            TooLarge: longer than the limit; nothing is kept.
            StorageFull, StorageUnavailable: the store refuses.
        """
        ...

    def on_disk(self, digest: str) -> AbstractAsyncContextManager[Path]:
        """Yield the path of a copy of an original, valid while the block runs; its bytes have this SHA-256.

        Raises:
            StorageUnavailable: it cannot be read.
            OriginalChanged: the store holds other bytes under this digest.
        """
        ...

    async def stored_before(self, instant: float) -> list[str]:
        """Return the digests of originals that were last written before an instant (Unix seconds).

        Raises:
            StorageUnavailable: the store cannot be asked.
        """
        ...


def open_blobs(settings: BlobSettings, *, on_changed: Callable[[str], None] = lambda _digest: None) -> Blobs:
    """Return the store that the settings name; `on_changed` is called with the SHA-256 of a changed original."""
    if settings.s3_url is not None:
        return S3Blobs(settings.s3_url, settings, on_changed=on_changed)
    return FolderBlobs(settings.folder or Path("blobs"), most_bytes=settings.most_bytes, on_changed=on_changed)


class FolderBlobs:
    """A folder of originals; a blob is written under `incoming` and moved to its name when it is complete."""

    def __init__(self, folder: Path, *, most_bytes: int, on_changed: Callable[[str], None]) -> None:
        self._folder = folder
        self._on_changed = on_changed
        self.most_bytes = most_bytes

    async def write(self, chunks: AsyncIterator[bytes]) -> Blob:
        unfinished = self._folder / "incoming" / uuid4().hex
        try:
            with _translated():
                return await self._write(chunks, unfinished)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_remove, unfinished)

    async def _write(self, chunks: AsyncIterator[bytes], unfinished: Path) -> Blob:
        measure = _Measure(self.most_bytes)
        await anyio.Path(unfinished.parent).mkdir(parents=True, exist_ok=True)
        async with await anyio.open_file(unfinished, "xb") as file:
            async for chunk in chunks:
                measure.feed(chunk)
                await file.write(chunk)
            await file.flush()
            await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())
        blob = measure.blob()
        original = self._path(blob.sha256)
        await anyio.Path(original.parent).mkdir(parents=True, exist_ok=True)
        await anyio.Path(unfinished).replace(original)
        return blob

    @asynccontextmanager
    async def on_disk(self, digest: str) -> AsyncGenerator[Path]:
        # A copy, so that nobody changes the bytes between the check and the reading.
        async with anyio.TemporaryDirectory() as folder:
            path = Path(folder) / digest
            with _translated():
                await anyio.to_thread.run_sync(copyfile, self._path(digest), path)
            await _check(path, digest, self._on_changed)
            yield path

    async def stored_before(self, instant: float) -> list[str]:
        def stored() -> list[str]:
            originals = [path for path in self._folder.glob("??/*") if _is_original(path.name, path.parent.name)]
            return [path.name for path in originals if path.stat().st_mtime < instant]

        with _translated():
            return await anyio.to_thread.run_sync(stored)

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest


class S3Blobs:
    """A bucket, or a prefix of one; a blob is written as a multipart upload and moved to its name when complete."""

    def __init__(self, url: str, settings: BlobSettings, *, on_changed: Callable[[str], None]) -> None:
        self._on_changed = on_changed
        self._root = url.removeprefix("s3://").rstrip("/")
        self.most_bytes = settings.most_bytes
        self._s3 = open_s3(settings.deadline, settings.tls)

    async def write(self, chunks: AsyncIterator[bytes]) -> Blob:
        measure, unfinished = _Measure(self.most_bytes), f"{self._root}/incoming/{uuid4().hex}"
        with _translated():
            file = await anyio.to_thread.run_sync(self._s3.open, unfinished, "wb", _PART_BYTES)
            try:
                async for chunk in chunks:
                    measure.feed(chunk)
                    await anyio.to_thread.run_sync(file.write, chunk)
                await anyio.to_thread.run_sync(file.close)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(_abandon, file)
                raise
            blob = measure.blob()
            await anyio.to_thread.run_sync(self._s3.mv, unfinished, self._path(blob.sha256))
        return blob

    @asynccontextmanager
    async def on_disk(self, digest: str) -> AsyncGenerator[Path]:
        async with anyio.TemporaryDirectory() as folder:
            path = Path(folder) / digest
            with _translated():
                await anyio.to_thread.run_sync(self._s3.get_file, self._path(digest), str(path))
            await _check(path, digest, self._on_changed)
            yield path

    async def stored_before(self, instant: float) -> list[str]:
        with _translated():
            files = await anyio.to_thread.run_sync(partial(self._s3.find, self._root, detail=True))
        old = [path.split("/")[-2:] for path, info in files.items() if info["LastModified"].timestamp() < instant]
        return [name for folder, name in old if _is_original(name, folder)]

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"


class _Measure:
    """The size and the SHA-256 of bytes that are fed to it; more than `most_bytes` raise TooLarge."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._digest = sha256()
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._most_bytes:
            raise TooLarge(f"a document may have {self._most_bytes // (1024 * 1024)} MiB")
        self._digest.update(chunk)

    def blob(self) -> Blob:
        return Blob(sha256=self._digest.hexdigest(), size=self._size)


async def _check(path: Path, digest: str, on_changed: Callable[[str], None]) -> None:
    """Compare a file's SHA-256 with the digest under which it was approved."""

    def measured() -> str:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    if await anyio.to_thread.run_sync(measured) != digest:
        log.error("original_changed", sha256=digest)
        on_changed(digest)
        raise OriginalChanged("the store holds other bytes than those that were handed in: see who writes it")


_DIGEST = re.compile("[0-9a-f]{64}")


def _is_original(name: str, prefix: str) -> bool:
    """Tell whether a name in a folder is a digest that belongs there."""
    return name.startswith(prefix) and _DIGEST.fullmatch(name) is not None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in FULL:
            raise StorageFull from exc
        raise StorageUnavailable from exc
    except (BotoCoreError, ClientError, FSTimeoutError) as exc:
        raise StorageUnavailable from exc


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a folder that has become read-only: no name leads to what is left in it
        return


def _abandon(file: Any) -> None:
    """Abort a multipart upload; a store that is away keeps its parts, which no name leads to."""
    try:
        file.discard()
    except (OSError, BotoCoreError, ClientError, FSTimeoutError):
        return
    finally:
        file.closed = True  # else its finalizer tries to store the rest
