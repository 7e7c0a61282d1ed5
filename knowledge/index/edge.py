"""Qdrant Edge as an engine: Qdrant's search engine in this process, over a folder that only this process may open.

    lock                 a lock file of the process that has the folder open
    aliases.json         alias → collection, replaced atomically
    kb-1/collection.json the embedder and its dimensions
    kb-1/shard/          the engine's own files

A write is in the engine's write-ahead log when it returns, so it survives the end of the process. One thread writes and
several read; the engine releases the GIL.
"""

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec
import qdrant_edge as edge
import structlog

from knowledge.index.engine import (
    DENSE,
    FLOAT_FIELDS,
    INTEGER_FIELDS,
    KEYWORD_FIELDS,
    TENANT_FIELD,
    TERMS,
    CollectionGone,
    IndexInUse,
    IndexUnavailable,
    NewPoint,
    Payload,
    Query,
    StoredPoint,
    Vectors,
)
from knowledge.index.filters import Above, AnyOf, AtMost, Condition, Equals, Filter, Missing
from knowledge.terms import SparseTerms

T = TypeVar("T")

_READ_THREADS = 4
_FLUSH_SECONDS = 5.0
"""The time between two flushes while there are writes; a start replays the write-ahead log since the last flush."""
_FREE_BYTES = 128 * 1024 * 1024
"""The free space that a write needs: the engine's files are memory-mapped, and a full disk would end the process."""
_PARTIAL = ".partial"
"""The suffix of a collection's folder while it is created or removed."""

log = structlog.get_logger(__name__)


class _Description(msgspec.Struct):
    """The content of collection.json."""

    embedder: str | None
    dimensions: int


@dataclass(frozen=True, slots=True)
class _Collection:
    """An open collection; the engine closes a shard when its last reader ends."""

    shard: edge.EdgeShard
    description: _Description


@asynccontextmanager
async def open_edge(folder: Path, *, read_timeout: float, write_timeout: float) -> AsyncGenerator["EdgeEngine"]:
    """Open the folder while the block runs; timeouts are in seconds.

    Raises:
        IndexInUse: another process has the folder open.
        IndexUnavailable: the folder is damaged.
    """
    engine = EdgeEngine(folder, read_timeout=read_timeout, write_timeout=write_timeout)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.aclose()


class EdgeEngine:
    """Implements `Engine`."""

    def __init__(self, folder: Path, *, read_timeout: float, write_timeout: float) -> None:
        self._folder = folder
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout
        self._readers = ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="index-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="index-write")
        self._collections: dict[str, _Collection] = {}
        self._aliases: dict[str, str] = {}
        self._unflushed_since: dict[str, float] = {}
        """By collection: the time of its first write since the last flush."""
        self._lock: int | None = None
        self._closed = False

    async def open(self) -> None:
        """Lock the folder and load its collections."""
        try:
            await self._in_thread(self._writer, self._load)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Cancel waiting calls, await the running ones, flush the writes and release the folder."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._close)

    async def check(self) -> None:
        """Do nothing, because `open` has checked the folder."""

    async def collections(self) -> list[str]:
        return await self._read(lambda: sorted(self._collections))

    async def vectors_of(self, collection: str) -> Vectors:
        description = await self._read(lambda: self._collection(collection).description)
        return Vectors(description.embedder, description.dimensions)

    async def create(self, collection: str, vectors: Vectors) -> None:
        await self._write(lambda: self._create(collection, vectors))

    async def drop(self, collection: str) -> None:
        await self._write(lambda: self._drop(collection), needed_bytes=0)

    async def alias_target(self, alias: str) -> str | None:
        return await self._read(lambda: self._aliases.get(alias))

    async def point_alias(self, alias: str, collection: str) -> None:
        def point() -> None:
            aliases = self._aliases | {alias: collection}
            _replace(self._folder / "aliases.json", msgspec.json.encode(aliases))
            self._aliases = aliases

        await self._write(point)

    async def search(self, collection: str, queries: Sequence[Query]) -> list[dict[str, float]]:
        def search() -> list[dict[str, float]]:
            batch = edge.QueryBatchRequest([_query(query) for query in queries])
            results = self._shard(collection).query_batch(batch)
            return [{str(point.id): point.score for point in points} for points in results]

        return await self._read(search)

    async def count(self, collection: str, only: Filter) -> int:
        return await self._read(
            lambda: self._shard(collection).count(edge.CountRequest(filter=_filter(only), exact=True))
        )

    async def counts(self, collection: str, *, field: str, limit: int, only: Filter | None = None) -> dict[str, int]:
        def counts() -> dict[str, int]:
            condition = None if only is None else _filter(only)
            request = edge.FacetRequest(field, limit=limit, exact=only is not None, filter=condition)
            return {str(hit.value): hit.count for hit in self._shard(collection).facet(request).hits}

        # An exact count reads every point that passes, so it may take as long as a write.
        return await self._read(counts, timeout=self._read_timeout if only is None else self._write_timeout)

    async def read(
        self, collection: str, ids: Sequence[str], *, fields: Sequence[str] | None = None, dense: bool = False
    ) -> list[StoredPoint]:
        payload = True if fields is None else list(fields)
        vectors = [DENSE] if dense else False
        return await self._read(
            lambda: [_stored_point(record) for record in self._shard(collection).retrieve(list(ids), payload, vectors)]
        )

    async def page(
        self, collection: str, only: Filter, *, limit: int, after: str | None = None
    ) -> tuple[list[StoredPoint], str | None]:
        def page() -> tuple[list[StoredPoint], str | None]:
            request = edge.ScrollRequest(offset=after, limit=limit, filter=_filter(only), with_payload=True)
            records, following = self._shard(collection).scroll(request)
            return [_stored_point(record) for record in records], None if following is None else str(following)

        return await self._read(page)

    async def upsert(self, collection: str, points: Sequence[NewPoint]) -> None:
        await self._update(collection, lambda: edge.UpdateOperation.upsert_points([_point(point) for point in points]))

    async def set_payload(self, collection: str, only: Filter, payload: Payload) -> None:
        await self._update(collection, lambda: edge.UpdateOperation.set_payload_by_filter(_filter(only), dict(payload)))

    async def delete(self, collection: str, only: Filter) -> None:
        await self._update(collection, lambda: edge.UpdateOperation.delete_points_by_filter(_filter(only)))

    async def _update(self, collection: str, operation: Callable[[], edge.UpdateOperation]) -> None:
        """Run a write on a collection; flush the collection if it has had unflushed writes for too long."""

        def update() -> None:
            shard = self._shard(collection)
            shard.update(operation())
            now = time.monotonic()
            unflushed_since = self._unflushed_since.setdefault(collection, now)
            if now - unflushed_since > _FLUSH_SECONDS:
                shard.flush()
                del self._unflushed_since[collection]

        await self._write(update)

    async def _read(self, call: Callable[[], T], *, timeout: float | None = None) -> T:
        async with _deadline(timeout or self._read_timeout):
            return await self._in_thread(self._readers, lambda: self._call_checked(call))

    async def _write(self, call: Callable[[], T], *, needed_bytes: int = _FREE_BYTES) -> T:
        def write() -> T:
            if shutil.disk_usage(self._folder).free < needed_bytes:
                raise IndexUnavailable(f"{self._folder}: less than {needed_bytes >> 20} MiB are free: free some space")
            return call()

        async with _deadline(self._write_timeout):
            return await self._in_thread(self._writer, lambda: self._call_checked(write))

    async def _in_thread(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        """Run the call in one of the threads; raise IndexUnavailable if `aclose` cancels it."""
        if self._closed:
            raise IndexUnavailable("the index is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, lambda: _translate_errors(call))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            is_task_cancelled = task is None or task.cancelling() > 0
            if self._closed and not is_task_cancelled:  # `_close` has cancelled the call
                raise IndexUnavailable("the index is closed") from None
            raise

    def _call_checked(self, call: Callable[[], T]) -> T:
        # Fail if the folder is lost; the engine would continue with its memory-mapped files.
        (self._folder / "lock").stat()
        return call()

    def _shard(self, collection: str) -> edge.EdgeShard:
        return self._collection(collection).shard

    def _collection(self, name: str) -> _Collection:
        try:
            return self._collections[name]
        except KeyError:
            raise CollectionGone(f"there is no collection {name}") from None

    def _load(self) -> None:
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True)
        self._acquire_lock()
        for partial in folder.glob(f"*{_PARTIAL}"):
            shutil.rmtree(partial)
        try:
            _translate_errors(self._load_collections)
        except IndexUnavailable as exc:
            raise IndexUnavailable(f"{exc}; if {folder} is damaged, remove it and run `ingest rebuild`") from exc

    def _load_collections(self) -> None:
        folder = self._folder
        # A folder with only one of the two parts is a damaged collection.
        for subfolder in sorted({path.parent for path in (*folder.glob("*/shard"), *folder.glob("*/collection.json"))}):
            for path in (subfolder / "shard", subfolder / "collection.json"):
                if not path.exists():
                    raise IndexUnavailable(f"{path} is missing")
            description = msgspec.json.decode((subfolder / "collection.json").read_bytes(), type=_Description)
            self._collections[subfolder.name] = _Collection(edge.EdgeShard.load(str(subfolder / "shard")), description)
        aliases = folder / "aliases.json"
        if aliases.exists():
            self._aliases = msgspec.json.decode(aliases.read_bytes(), type=dict[str, str])
        for alias, name in self._aliases.items():
            if name not in self._collections:
                raise IndexUnavailable(f"{folder} lacks the collection {name} of {alias}")

    def _acquire_lock(self) -> None:
        """Lock the folder's lock file until `_close`."""
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IndexInUse(f"{self._folder} is open in another process: stop it, or work through its API") from None

    def _create(self, collection: str, vectors: Vectors) -> None:
        if collection in self._collections:
            return
        description = _Description(vectors.embedder, vectors.dimensions or 0)
        partial = self._folder / f"{collection}{_PARTIAL}"
        shutil.rmtree(partial, ignore_errors=True)  # left by a failed attempt
        partial.mkdir()
        config = edge.EdgeConfig(
            vectors={DENSE: edge.EdgeVectorParams(size=description.dimensions, distance=edge.Distance.Cosine)},
            sparse_vectors={TERMS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        )
        shard = edge.EdgeShard.create(str(partial / "shard"), config)
        for field, schema in _PAYLOAD_INDEXES.items():
            shard.update(edge.UpdateOperation.create_field_index(field, schema))
        shard.flush()
        shard.close()
        _replace(partial / "collection.json", msgspec.json.encode(description))
        partial.rename(self._folder / collection)
        loaded = edge.EdgeShard.load(str(self._folder / collection / "shard"))
        self._collections[collection] = _Collection(loaded, description)

    def _drop(self, collection: str) -> None:
        if collection not in self._collections:
            return
        partial = self._folder / f"{collection}{_PARTIAL}"
        shutil.rmtree(partial, ignore_errors=True)
        (self._folder / collection).rename(partial)
        self._unflushed_since.pop(collection, None)
        del self._collections[collection]
        shutil.rmtree(partial)

    def _close(self) -> None:
        for threads in (self._readers, self._writer):
            threads.shutdown(cancel_futures=True)
        try:
            for name, collection in self._collections.items():
                try:
                    _translate_errors(collection.shard.flush)
                    _translate_errors(collection.shard.close)
                except IndexUnavailable as exc:
                    # The write-ahead log has every acknowledged write.
                    log.warning("index_flush_failed", collection=name, error=str(exc))
            self._collections.clear()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None


_PAYLOAD_INDEXES: dict[str, Any] = {
    TENANT_FIELD: edge.KeywordIndexParams(is_tenant=True),
    **dict.fromkeys(KEYWORD_FIELDS, edge.PayloadSchemaType.Keyword),
    **dict.fromkeys(INTEGER_FIELDS, edge.PayloadSchemaType.Integer),
    **dict.fromkeys(FLOAT_FIELDS, edge.PayloadSchemaType.Float),
}


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as exc:
        raise IndexUnavailable("the index did not answer in time") from exc


def _translate_errors(call: Callable[[], T]) -> T:
    """Call the engine, and translate its exceptions to IndexUnavailable."""
    try:
        return call()
    except (OSError, OverflowError, TypeError, ValueError, msgspec.MsgspecError) as exc:
        raise IndexUnavailable(f"the index failed: {exc}") from exc
    except BaseException as exc:
        # The engine raises plain Exception, or Rust's PanicException, which cannot be imported.
        is_from_engine = type(exc) is Exception or type(exc).__name__ == "PanicException"
        if not is_from_engine:
            raise
        raise IndexUnavailable(f"the index failed: {exc}") from exc


def _replace(path: Path, content: bytes) -> None:
    """Replace a file atomically: even after a crash it has the former or the new content."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _query(query: Query) -> edge.QueryRequest:
    if isinstance(query.vector, SparseTerms):
        nearest = edge.Query.Nearest(_sparse(query.vector), using=TERMS)
        corpus = None if query.corpus is None else _filter(query.corpus)
        params = edge.SearchParams(idf=edge.IdfParams(corpus))
    else:
        nearest = edge.Query.Nearest(list(query.vector), using=DENSE)
        params = None  # every search is exact, because only a server builds graphs
    return edge.QueryRequest(query.limit, query=nearest, filter=_filter(query.filter), params=params)


def _filter(only: Filter) -> edge.Filter:
    should = [_condition(condition) for condition in only.should]
    return edge.Filter(must=[_condition(condition) for condition in only.must], should=should or None)


def _condition(condition: Condition) -> Any:
    match condition:
        case Equals(field, value):
            return edge.FieldCondition(field, match=edge.MatchValue(value))
        case AnyOf(field, ()):
            # Match nothing, by a condition and its negation: engines treat an empty list of values differently.
            empty = edge.IsEmptyCondition(field)
            return edge.Filter(must=[empty], must_not=[empty])
        case AnyOf(field, values):
            return edge.FieldCondition(field, match=edge.MatchAny(list(values)))
        case AtMost(field, bound):
            return edge.FieldCondition(field, range=edge.RangeFloat(lte=bound))
        case Above(field, bound):
            return edge.FieldCondition(field, range=edge.RangeFloat(gt=bound))
        case Missing(field):
            return edge.IsEmptyCondition(field)


def _sparse(terms: SparseTerms) -> edge.SparseVector:
    return edge.SparseVector(list(terms.indices), list(terms.values))


def _point(point: NewPoint) -> edge.Point:
    vectors: dict[str, Any] = {DENSE: list(point.dense), TERMS: _sparse(point.terms)}
    return edge.Point(point.id, vectors, dict(point.payload))


def _stored_point(record: edge.Record) -> StoredPoint:
    vectors = record.vector  # each access copies it
    dense: Any = vectors.get(DENSE, ()) if isinstance(vectors, dict) else ()
    return StoredPoint(id=str(record.id), payload=record.payload or {}, dense=dense)
