"""The blob store of original bytes by SHA-256, so that identical files are stored once.

The store is a folder or an S3-compatible bucket (fsspec). A blob gets its name only once all its bytes are stored.
"""

import errno
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import structlog
from botocore.exceptions import BotoCoreError, ClientError
from fsspec import AbstractFileSystem
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem
from pydantic import BaseModel, PositiveFloat, PositiveInt

from ingest.errors import OriginalChanged, StorageFull, StorageUnavailable, TooLarge
from knowledge.storage import open_s3
from knowledge.tls import TlsSettings

log = structlog.get_logger(__name__)

_PART_BYTES = 8 * 1024 * 1024  # the size of a multipart upload's part to S3; one part is held in memory
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BlobSettings(BaseModel, frozen=True):
    """The store of originals (a folder, or `s3://bucket/prefix`), an original's maximum size, and S3's deadline (s).

    S3's address and keys come from the AWS variables (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …).
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


def open_blobs(settings: BlobSettings, *, on_changed: Callable[[str], None] = lambda _digest: None) -> "Blobs":
    """Open the configured store; `on_changed` is called with the SHA-256 of an original whose bytes have changed."""
    if settings.s3_url is not None:
        files = open_s3(settings.deadline, settings.tls)
        root = settings.s3_url.removeprefix("s3://").rstrip("/")
    else:
        files = _Folder(auto_mkdir=True)
        root = str((settings.folder or Path("blobs")).absolute())
    return Blobs(files, root, most_bytes=settings.most_bytes, on_changed=on_changed)


class Blobs:
    """A store of originals of at most `most_bytes` each: a folder, a bucket or a prefix in a bucket.

    A blob is written below `incoming` and moved to its name once complete.
    """

    def __init__(
        self, files: AbstractFileSystem, root: str, *, most_bytes: int, on_changed: Callable[[str], None]
    ) -> None:
        self._files = files
        self._root = root
        self._on_changed = on_changed
        self.most_bytes = most_bytes

    async def write(self, chunks: AsyncIterator[bytes]) -> Blob:
        """Store a stream of bytes.

        Raises:
            TooLarge: the stream exceeds the limit; nothing is stored.
            StorageFull, StorageUnavailable: the store is full or unavailable.
        """
        size = 0
        digest = sha256()
        unfinished = f"{self._root}/incoming/{uuid4().hex}"
        with storage_errors():
            file = await anyio.to_thread.run_sync(self._files.open, unfinished, "wb", _PART_BYTES)
            try:
                async for chunk in chunks:
                    size += len(chunk)
                    self._check_size(size)
                    digest.update(chunk)
                    await anyio.to_thread.run_sync(file.write, chunk)
                await anyio.to_thread.run_sync(_complete, file)
                await anyio.to_thread.run_sync(self._files.mv, unfinished, self._path(digest.hexdigest()))
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(_abandon, file, self._files, unfinished)
                raise
        return Blob(sha256=digest.hexdigest(), size=size)

    @asynccontextmanager
    async def on_disk(self, digest: str) -> AsyncGenerator[Path]:
        """Yield the path of a verified copy of an original, valid inside the block.

        Raises:
            StorageUnavailable: the original cannot be read.
            OriginalChanged: the stored bytes do not match the digest.
        """
        # A copy, so that the bytes can't change between the check and the read.
        async with anyio.TemporaryDirectory() as folder:
            path = Path(folder) / digest
            with storage_errors():
                await anyio.to_thread.run_sync(self._files.get_file, self._path(digest), str(path))
            await _check(path, digest, self._on_changed)
            yield path

    async def stored_before(self, instant: float) -> list[str]:
        """Return the digests of originals last written before an instant (Unix seconds); raise StorageUnavailable."""
        with storage_errors():
            files = await anyio.to_thread.run_sync(partial(self._files.find, self._root, detail=True))
        old_files = [path.split("/")[-2:] for path, info in files.items() if _written_at(info) < instant]
        return [name for folder, name in old_files if _is_original(name, folder)]

    def _check_size(self, size: int) -> None:
        if size > self.most_bytes:
            raise TooLarge(f"a document may have {self.most_bytes // (1024 * 1024)} MiB")

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"


class _Folder(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A local folder in which a move is a rename, never a copy."""

    def mv(self, path1: str, path2: str, **_options: object) -> None:
        self.makedirs(self._parent(path2), exist_ok=True)
        os.replace(path1, path2)


def _written_at(info: Mapping[str, Any]) -> float:
    return float(info["mtime"]) if "mtime" in info else float(info["LastModified"].timestamp())


async def _check(path: Path, digest: str, on_changed: Callable[[str], None]) -> None:
    """Raise OriginalChanged unless a file's SHA-256 is `digest`; also log this and call `on_changed`."""

    def digest_of_file() -> str:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    if await anyio.to_thread.run_sync(digest_of_file) != digest:
        log.error("original_changed", sha256=digest)
        on_changed(digest)
        raise OriginalChanged("the stored file differs from the uploaded one: find out who writes to the store")


_DIGEST = re.compile("[0-9a-f]{64}")


def _is_original(name: str, prefix: str) -> bool:
    """Return whether a file's name is a digest that starts with its folder's name, `prefix`."""
    return name.startswith(prefix) and _DIGEST.fullmatch(name) is not None


@contextmanager
def storage_errors(detail: str = "") -> Iterator[None]:
    """Raise StorageFull or StorageUnavailable for errors of a disk or a bucket."""
    try:
        yield
    except OSError as exc:
        if exc.errno in FULL:
            raise StorageFull from exc
        raise StorageUnavailable(detail) from exc
    except (BotoCoreError, ClientError, FSTimeoutError) as exc:
        raise StorageUnavailable(detail) from exc


def _complete(file: Any) -> None:
    """Close a file after flushing it to disk, so that it survives a power failure."""
    if isinstance(file, LocalFileOpener):
        file.flush()
        os.fsync(file.fileno())
    file.close()


def _abandon(file: Any, files: AbstractFileSystem, path: str) -> None:
    """Remove an unfinished file; if the store is unavailable it remains, but nothing refers to its name."""
    unavailable = (OSError, BotoCoreError, ClientError, FSTimeoutError)
    if isinstance(file, LocalFileOpener):
        with suppress(OSError):  # flushing the rest fails too if the disk is full
            file.close()
    elif not file.closed:
        with suppress(*unavailable):
            file.discard()
        file.closed = True  # prevents its finalizer from storing the rest
    with suppress(*unavailable):
        files.rm_file(path)
