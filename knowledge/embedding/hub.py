"""Downloads a model's folder: from a hub at a pinned commit, or a copy of such a folder from a bucket.

A hub identifies files by digests: weights by SHA-256 (Git LFS), small files by Git's SHA-1 of the blob. A bucket is any
HTTPS address with a copy of a downloaded folder, whose list of files (`fetched.json`) is pinned by its SHA-256. Only
safetensors are loaded, because other weight formats can run code. A folder with the list is complete and not fetched
again; without it, complete files are kept. The proxy is configured by the environment.
"""

import hashlib
import os
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath

import aiohttp
import anyio
import msgspec
from yarl import URL

from knowledge.embedding.errors import EmbedderMissing
from knowledge.embedding.settings import EmbedderSettings, hub_folder

STAMP = "fetched.json"
WANTED = (".json", ".safetensors", ".txt", ".model")
NOT_WANTED = frozenset({"onnx", "openvino"})
"""Folders that contain the model in other formats."""
MOST_FILES = 200
MOST_BYTES = 40 * 2**30
MOST_LIST_BYTES = 2**20
LIST_SECONDS = 30.0
STALLED_SECONDS = 60.0
"""A download fails after this long without a byte."""


class _Lfs(msgspec.Struct):
    oid: str


class _Entry(msgspec.Struct):
    type: str
    path: str
    size: int = 0
    oid: str = ""
    lfs: _Lfs | None = None

    @property
    def digest(self) -> str:
        """The file's SHA-256, or Git's SHA-1 of the blob."""
        return self.oid if self.lfs is None else self.lfs.oid


class _Fetched(msgspec.Struct):
    """The list of a complete folder: digests and sizes (bytes) of its files."""

    model: str
    revision: str
    files: dict[str, str]
    sizes: dict[str, int] = {}


async def fetch_model(settings: EmbedderSettings) -> None:
    """Download the configured hub model into its folder, unless it is already there or none is configured.

    Raises:
        EmbedderMissing: the download fails, or a file does not match its digest.
    """
    folder = settings.folder
    if settings.revision is None or settings.model is None or folder is None or (folder / STAMP).is_file():
        return
    hub = URL(str(settings.hub))
    async with _translated(f"{settings.model} cannot be fetched from {hub.host} at {settings.revision}"):
        key = await anyio.to_thread.run_sync(settings.key)
        async with _session(await anyio.to_thread.run_sync(settings.context), key) as http:
            files = await _listed(http, hub / "api/models" / settings.model / "tree" / settings.revision)
            await _fetch_all(http, hub / settings.model / "resolve" / settings.revision, files, folder)
    fetched = _Fetched(
        settings.model, settings.revision, {e.path: e.digest for e in files}, {e.path: e.size for e in files}
    )
    (folder / STAMP).write_bytes(msgspec.json.encode(fetched))


async def fetch_copy(url: URL, sha256: str, weights: Path) -> Path:
    """Download a copy of a hub's model from a bucket; return its folder below `weights`, the same as for the hub.

    Raises:
        EmbedderMissing: the download fails, or a file does not match its digest.
    """
    async with (
        _translated(f"{url} cannot be fetched"),
        _session(await anyio.to_thread.run_sync(ssl.create_default_context)) as http,
    ):
        listed = await _small(http, url / STAMP)
        if hashlib.sha256(listed).hexdigest() != sha256:
            raise EmbedderMissing(f"the SHA-256 of {url / STAMP} is not {sha256}")
        fetched = msgspec.json.decode(listed, type=_Fetched)
        files = [
            _Entry("file", path, fetched.sizes[path], digest, _Lfs(digest) if len(digest) == 64 else None)
            for path, digest in fetched.files.items()
        ]
        folder = weights / hub_folder(fetched.model, fetched.revision)
        if not (folder / STAMP).is_file():
            await _fetch_all(http, url, _checked(files, url), folder)
            (folder / STAMP).write_bytes(listed)
    return folder


@asynccontextmanager
async def _translated(failure: str) -> AsyncGenerator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError, msgspec.MsgspecError, KeyError) as exc:
        raise EmbedderMissing(f"{failure}: {type(exc).__name__} {exc}") from exc


@asynccontextmanager
async def _session(tls: ssl.SSLContext, key: str | None = None) -> AsyncGenerator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=STALLED_SECONDS)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connector = aiohttp.TCPConnector(ssl=tls, limit=4)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector, trust_env=True) as http:
        yield http


async def _small(http: aiohttp.ClientSession, address: URL) -> bytes:
    """Return a list of files."""
    async with http.get(address, timeout=aiohttp.ClientTimeout(total=LIST_SECONDS)) as response:
        response.raise_for_status()
        data = await response.content.read(MOST_LIST_BYTES + 1)
        while len(data) <= MOST_LIST_BYTES and (more := await response.content.read(MOST_LIST_BYTES)):
            data += more
        return data


async def _listed(http: aiohttp.ClientSession, tree: URL) -> list[_Entry]:
    """Return a commit's files that the model needs."""
    entries = msgspec.json.decode(await _small(http, tree.with_query(recursive="true")), type=list[_Entry])
    return _checked([entry for entry in entries if entry.type == "file"], tree)


def _checked(entries: Sequence[_Entry], source: URL) -> list[_Entry]:
    """Return the files that the model needs.

    Raises:
        EmbedderMissing: there are no safetensors among them, or they are too many or too large.
    """
    wanted = [entry for entry in entries if _is_wanted(PurePosixPath(entry.path))]
    if not any(entry.path.endswith(".safetensors") for entry in wanted):
        raise EmbedderMissing(f"{source} has no safetensors file; other weights are not supported")
    if len(wanted) > MOST_FILES or sum(entry.size for entry in wanted) > MOST_BYTES:
        raise EmbedderMissing(f"{source} is too large for a model of retrieval")
    return wanted


def _is_wanted(path: PurePosixPath) -> bool:
    outside = path.is_absolute() or ".." in path.parts
    return path.suffix in WANTED and not outside and not NOT_WANTED.intersection(path.parts)


async def _fetch_all(http: aiohttp.ClientSession, source: URL, files: Sequence[_Entry], folder: Path) -> None:
    for entry in files:
        await _fetch(http, source / entry.path, entry, folder / entry.path)


async def _fetch(http: aiohttp.ClientSession, address: URL, entry: _Entry, path: Path) -> None:
    """Download one file, unless it already exists with the right digest."""
    if await anyio.to_thread.run_sync(_is_whole, path, entry):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    async with http.get(address) as response:
        response.raise_for_status()
        async with await anyio.open_file(part, "wb") as file:
            async for data in response.content.iter_chunked(2**20):
                await file.write(data)
                if await file.tell() > entry.size:
                    break
    if not await anyio.to_thread.run_sync(_is_whole, part, entry):
        part.unlink()
        raise EmbedderMissing(f"{address} sent bytes that do not match the digest of the hub")
    part.rename(path)


def _is_whole(path: Path, entry: _Entry) -> bool:
    if not path.is_file() or path.stat().st_size != entry.size:
        return False
    with path.open("rb") as file:
        if entry.lfs is not None:
            return hashlib.file_digest(file, "sha256").hexdigest() == entry.lfs.oid
        blob = hashlib.sha1(f"blob {entry.size}\0".encode() + file.read(), usedforsecurity=False)
    return blob.hexdigest() == entry.oid
