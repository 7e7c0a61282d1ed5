"""The original bytes, stored under their own SHA-256: the same file twice takes the room of one."""

import errno
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import anyio
from pydantic import BaseModel, PositiveInt

from ingest.errors import StorageFull, StorageUnavailable, TooLarge


class BlobSettings(BaseModel, frozen=True):
    """Where originals lie (a folder) and how large one may be."""

    folder: Path
    most_bytes: PositiveInt = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A stored original."""

    sha256: str
    size: int


class Blobs:
    """A folder of originals; a name appears in it only when all its bytes are on the disk."""

    def __init__(self, settings: BlobSettings) -> None:
        self._folder = settings.folder
        self.most_bytes = settings.most_bytes

    def path(self, digest: str) -> Path:
        """Return where the bytes with this digest lie."""
        return self._folder / digest[:2] / digest

    async def write(self, chunks: AsyncIterator[bytes]) -> Blob:
        """Store a stream of bytes.

        Raises:
            TooLarge: longer than the limit; nothing is kept.
            StorageFull, StorageUnavailable: the disk refuses.
        """
        draft = self._folder / "incoming" / uuid4().hex
        try:
            return await self._write(chunks, draft)
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StorageFull from exc
            raise StorageUnavailable from exc
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_remove, draft)

    async def _write(self, chunks: AsyncIterator[bytes], draft: Path) -> Blob:
        digest = sha256()
        size = 0
        await anyio.Path(draft.parent).mkdir(parents=True, exist_ok=True)
        async with await anyio.open_file(draft, "xb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > self.most_bytes:
                    raise TooLarge(f"a document may have {self.most_bytes // (1024 * 1024)} MiB")
                digest.update(chunk)
                await file.write(chunk)
            await file.flush()
            await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())
        kept = self.path(digest.hexdigest())
        await anyio.Path(kept.parent).mkdir(parents=True, exist_ok=True)
        await anyio.Path(draft).replace(kept)
        return Blob(sha256=digest.hexdigest(), size=size)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a folder that has gone read-only: what is left there has no name that anybody reads
        return
