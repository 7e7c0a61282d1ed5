"""The sources of a load: local files and folders, or a prefix of an S3 bucket.

A bucket's files are fetched one at a time and deleted afterwards; its address and keys come from the AWS variables, as
for originals (`ingest.uploads.blobs`).
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Protocol

import anyio

from ingest.bulk.manifest import MANIFEST, SourceFile, find_files, in_load_order, manifest_files
from ingest.uploads import storage_errors
from knowledge.storage import open_s3
from knowledge.tls import TlsSettings

DEADLINE_SECONDS = 60.0


class Source(Protocol):
    """A place with documents to load."""

    async def files(self) -> Sequence[SourceFile]:
        """Return the files to load."""
        ...

    def on_disk(self, file: SourceFile) -> AbstractAsyncContextManager[None]:
        """Keep a file at its path on the local disk while the block runs."""
        ...


class LocalFiles:
    """Local files."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self._files = files

    async def files(self) -> Sequence[SourceFile]:
        return self._files

    @asynccontextmanager
    async def on_disk(self, _file: SourceFile) -> AsyncGenerator[None]:
        yield


class Bucket:
    """The objects below `s3://bucket/prefix`; each is fetched into `folder` while it is received."""

    def __init__(self, url: str, folder: Path, tls: TlsSettings) -> None:
        self._root = url.removeprefix("s3://").rstrip("/")
        self._folder = folder
        self._s3 = open_s3(DEADLINE_SECONDS, tls)

    async def files(self) -> list[SourceFile]:
        """Return the files listed in the bucket's manifest, or else all files except hidden ones.

        Raises:
            ManifestError: the manifest is invalid.
            StorageUnavailable: the bucket cannot be listed, or does not exist.
        """
        with storage_errors("the bucket cannot be read"):
            keys = await anyio.to_thread.run_sync(self._s3.find, self._root)
        relative_names = (str(key).removeprefix(self._root).lstrip("/") for key in keys)
        names = sorted(name for name in relative_names if name)
        if MANIFEST in names:
            await self._fetch(MANIFEST)
            return await anyio.to_thread.run_sync(lambda: in_load_order(manifest_files(self._folder)))
        visible_names = [name for name in names if not any(part.startswith(".") for part in PurePosixPath(name).parts)]
        return in_load_order(SourceFile(path=self._folder / name, name=name) for name in visible_names)

    @asynccontextmanager
    async def on_disk(self, file: SourceFile) -> AsyncGenerator[None]:
        """Keep a file at its path on the local disk while the block runs; raise StorageUnavailable if unreadable."""
        await self._fetch(file.name)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.Path(file.path).unlink(missing_ok=True)

    async def _fetch(self, name: str) -> None:
        path = self._folder / name
        await anyio.Path(path.parent).mkdir(parents=True, exist_ok=True)
        with storage_errors("the bucket cannot be read"):
            await anyio.to_thread.run_sync(self._s3.get_file, f"{self._root}/{name}", str(path))


@contextmanager
def open_source(places: Sequence[str], tls: TlsSettings) -> Iterator[Source]:
    """Open local files and folders, or one `s3://bucket/prefix`; raise ManifestError as `find_files` does."""
    if len(places) != 1 or not places[0].startswith("s3://"):
        yield LocalFiles(find_files([Path(place) for place in places]))
        return
    with TemporaryDirectory(prefix="ingest-load-") as folder:
        yield Bucket(places[0], Path(folder).resolve(), tls)
