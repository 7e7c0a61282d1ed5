"""A Qdrant server as an engine, through its client's generated API (REST).

The API is documented at https://api.qdrant.tech.
"""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx
import structlog
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http import AsyncApis, models
from qdrant_client.http.api_client import AsyncApiClient
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from knowledge.index.engine import (
    DENSE,
    FLOAT_FIELDS,
    HNSW_EF,
    INTEGER_FIELDS,
    KEYWORD_FIELDS,
    TENANT_FIELD,
    TERMS,
    CollectionGone,
    IndexRefused,
    IndexUnavailable,
    NewPoint,
    Payload,
    Query,
    StoredPoint,
    Vectors,
)
from knowledge.index.filters import Above, AnyOf, AtMost, Condition, Equals, Filter, Missing
from knowledge.index.settings import ServerSettings
from knowledge.terms import SparseTerms
from knowledge.tls import tls_reason

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Apis = AsyncApis[AsyncApiClient]

# The client's exceptions if a call fails: its own two trees (they wrap httpx's), and ValueError for a text that cannot
# be encoded or a reply that is not valid JSON. TimeoutError is an OSError.
CLIENT_ERRORS = (ApiException, QdrantException, OSError, ValueError)

OLDEST_SERVER = (1, 19)
NEWEST_SERVER = (1, 21)
"""Client and server may be one minor version apart; the client is pinned to 1.20."""

_HEADERS = {"accept-encoding": "identity"}
"""No compression: a compressed reply's last chunk would wait 40 ms for an acknowledgement (Nagle's algorithm)."""
_CONNECTIONS = 100
_IDLE_SECONDS = 4.0
"""Less than the 5 s after which the server closes an idle connection."""
_SETTLE_SECONDS = 10.0
"""The nodes of a cluster may disagree for this time about a new collection."""
_SETTLE_WAIT_SECONDS = 0.2
_CONFLICTS = frozenset({404, 409, 500})
"""A node's statuses if it has not seen the collection yet, or if another process has just made the same change."""
_DISK_FULL = b"No space left on device"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_server(
    url: str, settings: ServerSettings, *, api_key: str | None, read_timeout: float, write_timeout: float
) -> AsyncGenerator["ServerEngine"]:
    """Open a client without connecting to the server; timeouts are in seconds.

    Raises:
        IndexRefused: the TLS files cannot be used.
    """
    parts = urlsplit(url)
    key_header = {"api-key": api_key} if api_key else {}
    options: dict[str, Any] = {"headers": _HEADERS | key_header}
    if parts.scheme == "https":
        try:
            options["verify"] = await asyncio.to_thread(settings.context)
        except OSError as exc:  # ssl.SSLError is an OSError
            raise IndexRefused(f"the TLS files of the Qdrant server cannot be used: {exc}") from exc
    elif api_key and parts.hostname not in _LOOPBACK:
        log.warning("qdrant_encryption_skipped", host=parts.hostname, detail="let QDRANT_URL begin with https://")
    # Half the deadline of a read, so that a node that drops packets leaves time for a retry.
    options["timeout"] = httpx.Timeout(write_timeout, connect=read_timeout / 2)
    address = f"{parts.hostname}:{parts.port or _PORTS[parts.scheme]}"
    async with _client(url, **options) as apis, _client(url, **options) as spare:
        yield ServerEngine(apis, spare, settings, address, read_timeout=read_timeout, write_timeout=write_timeout)


@asynccontextmanager
async def _client(url: str, **options: Any) -> AsyncGenerator[Apis]:
    limits = httpx.Limits(
        max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS
    )
    apis: Apis = AsyncApis(url.rstrip("/"), limits=limits, **options)
    try:
        yield apis
    finally:
        await apis.aclose()


class _Reply(Protocol[T_co]):
    """The reply of every call of the generated API, except `root`."""

    @property
    def result(self) -> T_co | None: ...


class ServerEngine:
    """Implements `Engine` with two clients, each with its own connections.

    A failed read is retried with the other client, whose connections may lead to another node. A retry with the same
    client might use an idle connection to the failed node, and httpx cannot close only such connections.
    """

    def __init__(
        self,
        apis: Apis,
        spare: Apis,
        settings: ServerSettings,
        address: str,
        *,
        read_timeout: float,
        write_timeout: float,
    ) -> None:
        self._apis = apis
        self._spare = spare
        self._settings = settings
        self._address = address
        self._server = f"the Qdrant server at {address}"
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout

    async def check(self) -> None:
        try:
            version = (await self._with_retry(lambda apis: apis.service_api.root())).version
        except CollectionGone:
            raise IndexUnavailable(f"{self._address} is not a Qdrant server: check QDRANT_URL") from None
        release = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.|$)", version)  # major and minor
        if release is None or not OLDEST_SERVER <= (int(release[1]), int(release[2])) <= NEWEST_SERVER:
            oldest = ".".join(map(str, OLDEST_SERVER))
            newest = ".".join(map(str, NEWEST_SERVER))
            raise IndexRefused(f"{self._server} is of version {version}: run one of {oldest} to {newest}")

    async def collections(self) -> list[str]:
        reply = await self._read(lambda apis: apis.collections_api.get_collections())
        return [collection.name for collection in reply.collections]

    async def vectors_of(self, collection: str) -> Vectors:
        config = (await self._read(lambda apis: apis.collections_api.get_collection(collection))).config
        embedder = (config.metadata or {}).get("embedder")
        dense = config.params.vectors.get(DENSE) if isinstance(config.params.vectors, dict) else None
        return Vectors(None if embedder is None else str(embedder), None if dense is None else dense.size)

    async def create(self, collection: str, vectors: Vectors) -> None:
        async def create() -> None:
            exists = await self._read(lambda apis: apis.collections_api.collection_exists(collection))
            if not exists.exists:
                await self._write(
                    lambda apis: apis.collections_api.create_collection(
                        collection, create_collection=self._collection_config(vectors)
                    )
                )
            for field, schema in _PAYLOAD_INDEXES.items():
                index = models.CreateFieldIndex(field_name=field, field_schema=schema)
                await self._write(partial(_create_field_index, collection=collection, index=index))

        await self._retry_conflicts(create)

    async def drop(self, collection: str) -> None:
        await self._write(lambda apis: apis.collections_api.delete_collection(collection))

    async def alias_target(self, alias: str) -> str | None:
        reply = await self._read(lambda apis: apis.aliases_api.get_collections_aliases())
        targets = {described.alias_name: described.collection_name for described in reply.aliases}
        return targets.get(alias)

    async def point_alias(self, alias: str, collection: str) -> None:
        async def point() -> None:
            former = await self.alias_target(alias)
            if former == collection:
                return
            operations: list[models.CreateAliasOperation | models.DeleteAliasOperation] = []
            if former is not None:
                operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
            new = models.CreateAlias(collection_name=collection, alias_name=alias)
            operations.append(models.CreateAliasOperation(create_alias=new))
            change = models.ChangeAliasesOperation(actions=operations)
            await self._write(lambda apis: apis.aliases_api.update_aliases(change_aliases_operation=change))

        await self._retry_conflicts(point)

    async def search(self, collection: str, queries: Sequence[Query]) -> list[dict[str, float]]:
        batch = models.QueryRequestBatch(searches=[_query(query) for query in queries])
        results = await self._read(
            lambda apis: apis.search_api.query_batch_points(collection, query_request_batch=batch)
        )
        return [{str(point.id): point.score for point in result.points} for result in results]

    async def count(self, collection: str, only: Filter) -> int:
        request = models.CountRequest(filter=_filter(only), exact=True)
        return (await self._read(lambda apis: apis.points_api.count_points(collection, count_request=request))).count

    async def counts(self, collection: str, *, field: str, limit: int, only: Filter | None = None) -> dict[str, int]:
        condition = None if only is None else _filter(only)
        request = models.FacetRequest(key=field, filter=condition, limit=limit, exact=only is not None)
        # An exact count reads every point that passes, so it may take as long as a write.
        timeout = self._read_timeout if only is None else self._write_timeout
        reply = await self._read(lambda apis: apis.points_api.facet(collection, facet_request=request), timeout=timeout)
        return {str(hit.value): hit.count for hit in reply.hits}

    async def read(
        self, collection: str, ids: Sequence[str], *, fields: Sequence[str] | None = None, dense: bool = False
    ) -> list[StoredPoint]:
        request = models.PointRequest(
            ids=list(ids),
            with_payload=True if fields is None else list(fields),
            with_vector=[DENSE] if dense else False,
        )
        records = await self._read(lambda apis: apis.points_api.get_points(collection, point_request=request))
        return [_stored_point(record) for record in records]

    async def page(
        self, collection: str, only: Filter, *, limit: int, after: str | None = None
    ) -> tuple[list[StoredPoint], str | None]:
        request = models.ScrollRequest(filter=_filter(only), limit=limit, offset=after, with_payload=True)
        page = await self._read(lambda apis: apis.points_api.scroll_points(collection, scroll_request=request))
        following = page.next_page_offset
        return [_stored_point(record) for record in page.points], None if following is None else str(following)

    async def upsert(self, collection: str, points: Sequence[NewPoint]) -> None:
        operations = models.PointsList(points=await asyncio.to_thread(_structs, points))
        await self._write(
            lambda apis: apis.points_api.upsert_points(collection, wait=True, point_insert_operations=operations)
        )

    async def set_payload(self, collection: str, only: Filter, payload: Payload) -> None:
        change = models.SetPayload(payload=dict(payload), filter=_filter(only))
        await self._write(lambda apis: apis.points_api.set_payload(collection, wait=True, set_payload=change))

    async def delete(self, collection: str, only: Filter) -> None:
        selector = models.FilterSelector(filter=_filter(only))
        await self._write(lambda apis: apis.points_api.delete_points(collection, wait=True, points_selector=selector))

    async def _read(self, operation: Callable[[Apis], Awaitable[_Reply[T]]], *, timeout: float | None = None) -> T:
        return self._result(await self._with_retry(operation, timeout=timeout))

    async def _with_retry(self, operation: Callable[[Apis], Awaitable[T]], *, timeout: float | None = None) -> T:
        """Run a read within its deadline; retry it once with the other client if the connection or the server fails."""
        async with self._translate_errors(timeout or self._read_timeout):
            failed_apis = self._apis
            try:
                return await operation(failed_apis)
            except (ResponseHandlingException, UnexpectedResponse) as exc:
                if not _is_retryable(exc):
                    raise
            if self._apis is failed_apis:  # else a concurrent read has already changed the client
                self._apis = self._spare
                self._spare = failed_apis
            return await operation(self._apis)

    async def _write(self, operation: Callable[[Apis], Awaitable[_Reply[T]]]) -> T:
        async with self._translate_errors(self._write_timeout):
            reply = await operation(self._apis)
        return self._result(reply)

    async def _retry_conflicts(self, change: Callable[[], Awaitable[None]]) -> None:
        """Make a change that another process may be making too; retry conflicts for 10 s."""
        deadline = asyncio.get_running_loop().time() + _SETTLE_SECONDS
        while True:
            try:
                return await change()
            except IndexUnavailable as exc:
                if not _in_conflict(exc.__cause__) or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(_SETTLE_WAIT_SECONDS)

    def _result(self, reply: _Reply[T]) -> T:
        if reply.result is None:
            raise IndexUnavailable(f"{self._server} answered without a result")
        return reply.result

    @asynccontextmanager
    async def _translate_errors(self, seconds: float) -> AsyncGenerator[None]:
        """Give the block a deadline, and translate the client's exceptions to IndexUnavailable."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except UnexpectedResponse as exc:
            if exc.status_code == 404:
                raise CollectionGone(f"{self._server} has no such collection") from exc
            status = f"{exc.status_code} {exc.reason_phrase}"
            raise IndexUnavailable(f"{self._server} answered {status}{_advice(exc)}") from exc
        except TimeoutError as exc:
            raise IndexUnavailable(f"{self._server} did not answer within {seconds:g} s") from exc
        except CLIENT_ERRORS as exc:
            raise IndexUnavailable(f"{self._server} {_failure(exc)}") from exc

    def _collection_config(self, vectors: Vectors) -> models.CreateCollection:
        settings = self._settings
        return models.CreateCollection(
            vectors={DENSE: models.VectorParams(size=vectors.dimensions or 0, distance=models.Distance.COSINE)},
            sparse_vectors={TERMS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            shard_number=settings.shards,
            replication_factor=settings.replicas,
            write_consistency_factor=max(1, settings.replicas - 1),  # one node may be down
            on_disk_payload=True,
            metadata={"embedder": vectors.embedder},
        )


def _query(query: Query) -> models.QueryRequest:
    only = _filter(query.filter)
    if isinstance(query.vector, SparseTerms):
        params = None
        if query.corpus is not None:
            params = models.SearchParams(idf=models.IdfCorpusParams(corpus=_filter(query.corpus)))
        return models.QueryRequest(
            query=_sparse(query.vector), using=TERMS, filter=only, limit=query.limit, params=params
        )
    params = models.SearchParams(hnsw_ef=HNSW_EF)
    return models.QueryRequest(query=list(query.vector), using=DENSE, filter=only, limit=query.limit, params=params)


_KEYWORD = models.KeywordIndexType.KEYWORD
_PAYLOAD_INDEXES: dict[str, models.PayloadSchemaParams] = {
    TENANT_FIELD: models.KeywordIndexParams(type=_KEYWORD, is_tenant=True),
    **dict.fromkeys(KEYWORD_FIELDS, models.KeywordIndexParams(type=_KEYWORD)),
    **dict.fromkeys(
        INTEGER_FIELDS, models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=True)
    ),
    **dict.fromkeys(FLOAT_FIELDS, models.FloatIndexParams(type=models.FloatIndexType.FLOAT)),
}


def _create_field_index(
    apis: Apis, *, collection: str, index: models.CreateFieldIndex
) -> Awaitable[_Reply[models.UpdateResult]]:
    return apis.indexes_api.create_field_index(collection, wait=True, create_field_index=index)


def _is_retryable(exc: ResponseHandlingException | UnexpectedResponse) -> bool:
    """Return whether a retry may succeed: the connection failed, or the status is 500 or above."""
    if isinstance(exc, UnexpectedResponse):
        return (exc.status_code or 0) >= 500
    return isinstance(exc.source, httpx.TransportError)


def _in_conflict(exc: BaseException | None) -> bool:
    return isinstance(exc, UnexpectedResponse) and exc.status_code in _CONFLICTS and _DISK_FULL not in exc.content


def _advice(exc: UnexpectedResponse) -> str:
    """Return the end of an error message: the cause of the status; the reply itself may contain customers' text."""
    if exc.status_code == 401:
        return ": QDRANT_API_KEY is not a key of this server"
    if exc.status_code == 403:
        return ": QDRANT_API_KEY may not do this"
    return ": its disk is full" if _DISK_FULL in exc.content else ""


def _failure(exc: BaseException) -> str:
    """Return the first known cause in the chain of a failed call's exceptions, as the end of a sentence."""
    cause: BaseException | None = exc
    while cause is not None:
        match cause:
            case httpx.RemoteProtocolError():
                return "closed the connection without an HTTP response: if it speaks TLS, QDRANT_URL needs https://"
            case ssl.SSLError():
                return f"cannot be reached over TLS: {tls_reason(cause)}"
            case OSError(errno=int(number)):
                return f"cannot be reached: {os.strerror(number) if number > 0 else cause.strerror}"
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        elif isinstance(cause, ResponseHandlingException) and cause.source is not None:
            cause = cause.source
        else:
            cause = cause.__cause__ or cause.__context__
    return f"request failed: {type(exc).__name__}"


def _filter(only: Filter) -> models.Filter:
    should = [_condition(condition) for condition in only.should]
    return models.Filter(must=[_condition(condition) for condition in only.must], should=should or None)


def _condition(condition: Condition) -> models.Condition:
    match condition:
        case Equals(field, value):
            return models.FieldCondition(key=field, match=models.MatchValue(value=value))
        case AnyOf(field, ()):
            # Match nothing, by a condition and its negation: engines treat an empty list of values differently.
            empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=field))
            return models.Filter(must=[empty], must_not=[empty])
        case AnyOf(field, values):
            return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))
        case AtMost(field, bound):
            return models.FieldCondition(key=field, range=models.Range(lte=bound))
        case Above(field, bound):
            return models.FieldCondition(key=field, range=models.Range(gt=bound))
        case Missing(field):
            return models.IsEmptyCondition(is_empty=models.PayloadField(key=field))


def _sparse(terms: SparseTerms) -> models.SparseVector:
    return models.SparseVector(indices=list(terms.indices), values=list(terms.values))


def _structs(points: Sequence[NewPoint]) -> list[models.PointStruct]:
    return [
        models.PointStruct(
            id=point.id, vector={DENSE: list(point.dense), TERMS: _sparse(point.terms)}, payload=dict(point.payload)
        )
        for point in points
    ]


def _stored_point(record: models.Record) -> StoredPoint:
    vectors = record.vector if isinstance(record.vector, dict) else {}
    dense: Any = vectors.get(DENSE, ())
    return StoredPoint(id=str(record.id), payload=record.payload or {}, dense=dense)
