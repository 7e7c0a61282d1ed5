"""A Qdrant server as an engine, through its client's generated API (REST).

The API is documented at https://api.qdrant.tech.
"""

import asyncio
import os
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

# Everything the client raises when the server cannot be asked: its own two trees (httpx is wrapped in them), and
# ValueError for a text that cannot be encoded and a reply that is no JSON. TimeoutError is an OSError.
CLIENT_ERRORS = (ApiException, QdrantException, OSError, ValueError)

OLDEST_SERVER = (1, 19)
NEWEST_SERVER = (1, 21)
"""Client and server may be one minor version apart; the client is pinned to 1.20."""

_HEADERS = {"accept-encoding": "identity"}
"""A compressed reply is sent in chunks, the last of which waits 40 ms for an acknowledgement (Nagle's algorithm)."""
_CONNECTIONS = 100
_IDLE_SECONDS = 4.0
"""The server closes a connection that was idle for 5 s."""
_SETTLE_SECONDS = 10.0
"""The time for which nodes of a cluster may disagree about a collection that was just created."""
_SETTLE_WAIT_SECONDS = 0.2
_CONFLICTS = frozenset({404, 409, 500})
"""What a node answers to a change that it has not seen yet, or that another process has just made."""
_DISK_FULL = b"No space left on device"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_server(
    url: str, settings: ServerSettings, *, api_key: str | None, read_timeout: float, write_timeout: float
) -> AsyncGenerator["ServerEngine"]:
    """Open the client of a server, which need not answer yet; timeouts are in seconds.

    Raises:
        IndexRefused: the TLS files cannot be used.
    """
    parts = urlsplit(url)
    options: dict[str, Any] = {"headers": {**_HEADERS, **({"api-key": api_key} if api_key else {})}}
    if parts.scheme == "https":
        try:
            options["verify"] = await asyncio.to_thread(settings.context)
        except OSError as exc:  # ssl.SSLError is one
            raise IndexRefused(f"the TLS files of the Qdrant server cannot be used: {exc}") from exc
    elif api_key and parts.hostname not in _LOOPBACK:
        log.warning("qdrant_encryption_skipped", host=parts.hostname, detail="let QDRANT_URL begin with https://")
    # Half the deadline of a read, so that a node that drops packets leaves time for the repetition.
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
    """What every call of the generated API but one returns."""

    @property
    def result(self) -> T_co | None: ...


class ServerEngine:
    """Implements `Engine`; both clients wait for their sockets in this event loop.

    Each keeps its connections; a read that fails changes to the other one, whose connections may lead to another node.
    One client is not enough: its idle connections lead to the failed node too, and httpx closes them only together with
    those on which other searches wait.
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
            version = (await self._repeated(lambda apis: apis.service_api.root())).version
        except CollectionGone:
            raise IndexUnavailable(f"{self._address} is not a Qdrant server: check QDRANT_URL") from None
        major, _, rest = version.partition(".")
        minor = rest.partition(".")[0]
        is_supported = (
            major.isdigit() and minor.isdigit() and OLDEST_SERVER <= (int(major), int(minor)) <= NEWEST_SERVER
        )
        if not is_supported:
            oldest, newest = (".".join(map(str, bound)) for bound in (OLDEST_SERVER, NEWEST_SERVER))
            raise IndexRefused(f"{self._server} is of version {version}: run one of {oldest} to {newest}")

    async def collections(self) -> list[str]:
        answer = await self._read(lambda apis: apis.collections_api.get_collections())
        return [described.name for described in answer.collections]

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
                        collection, create_collection=self._described(vectors)
                    )
                )
            for field, schema in _PAYLOAD_INDEXES.items():
                index = models.CreateFieldIndex(field_name=field, field_schema=schema)
                await self._write(partial(_create_field_index, collection=collection, index=index))

        await self._settled(create)

    async def drop(self, collection: str) -> None:
        await self._write(lambda apis: apis.collections_api.delete_collection(collection))

    async def behind(self, alias: str) -> str | None:
        aliases = (await self._read(lambda apis: apis.aliases_api.get_collections_aliases())).aliases
        return next((known.collection_name for known in aliases if known.alias_name == alias), None)

    async def point_alias(self, alias: str, collection: str) -> None:
        async def point() -> None:
            former = await self.behind(alias)
            if former == collection:
                return
            operations: list[models.CreateAliasOperation | models.DeleteAliasOperation] = []
            if former is not None:
                operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
            new = models.CreateAlias(collection_name=collection, alias_name=alias)
            operations.append(models.CreateAliasOperation(create_alias=new))
            change = models.ChangeAliasesOperation(actions=operations)
            await self._write(lambda apis: apis.aliases_api.update_aliases(change_aliases_operation=change))

        await self._settled(point)

    async def search(self, collection: str, queries: Sequence[Query]) -> list[dict[str, float]]:
        batch = models.QueryRequestBatch(searches=[_query(query) for query in queries])
        answers = await self._read(
            lambda apis: apis.search_api.query_batch_points(collection, query_request_batch=batch)
        )
        return [{str(point.id): point.score for point in answer.points} for answer in answers]

    async def count(self, collection: str, only: Filter) -> int:
        wanted = models.CountRequest(filter=_filter(only), exact=True)
        return (await self._read(lambda apis: apis.points_api.count_points(collection, count_request=wanted))).count

    async def counts(self, collection: str, *, field: str, limit: int, only: Filter | None = None) -> dict[str, int]:
        passing = None if only is None else _filter(only)
        wanted = models.FacetRequest(key=field, filter=passing, limit=limit, exact=only is not None)
        # An exact count reads every point that passes, so it may take as long as a write.
        timeout = self._read_timeout if only is None else self._write_timeout
        answer = await self._read(lambda apis: apis.points_api.facet(collection, facet_request=wanted), timeout=timeout)
        return {str(hit.value): hit.count for hit in answer.hits}

    async def read(
        self, collection: str, ids: Sequence[str], *, fields: Sequence[str] | None = None, dense: bool = False
    ) -> list[StoredPoint]:
        wanted = models.PointRequest(
            ids=list(ids),
            with_payload=True if fields is None else list(fields),
            with_vector=[DENSE] if dense else False,
        )
        records = await self._read(lambda apis: apis.points_api.get_points(collection, point_request=wanted))
        return [_stored(record) for record in records]

    async def page(
        self, collection: str, only: Filter, *, limit: int, after: str | None = None
    ) -> tuple[list[StoredPoint], str | None]:
        wanted = models.ScrollRequest(filter=_filter(only), limit=limit, offset=after, with_payload=True)
        page = await self._read(lambda apis: apis.points_api.scroll_points(collection, scroll_request=wanted))
        following = page.next_page_offset
        return [_stored(record) for record in page.points], None if following is None else str(following)

    async def upsert(self, collection: str, points: Sequence[NewPoint]) -> None:
        new = models.PointsList(points=await asyncio.to_thread(_structs, points))
        await self._write(
            lambda apis: apis.points_api.upsert_points(collection, wait=True, point_insert_operations=new)
        )

    async def set_payload(self, collection: str, only: Filter, payload: Payload) -> None:
        change = models.SetPayload(payload=dict(payload), filter=_filter(only))
        await self._write(lambda apis: apis.points_api.set_payload(collection, wait=True, set_payload=change))

    async def delete(self, collection: str, only: Filter) -> None:
        wanted = models.FilterSelector(filter=_filter(only))
        await self._write(lambda apis: apis.points_api.delete_points(collection, wait=True, points_selector=wanted))

    async def _read(self, operation: Callable[[Apis], Awaitable[_Reply[T]]], *, timeout: float | None = None) -> T:
        return self._result(await self._repeated(operation, timeout=timeout))

    async def _repeated(self, operation: Callable[[Apis], Awaitable[T]], *, timeout: float | None = None) -> T:
        """Run a read within its deadline; it is repeated once where the connection or the server failed."""
        async with self._translated(timeout or self._read_timeout):
            apis = self._apis
            try:
                return await operation(apis)
            except (ResponseHandlingException, UnexpectedResponse) as exc:
                if not _may_pass(exc):
                    raise
            if self._apis is apis:
                self._apis, self._spare = self._spare, apis
            return await operation(self._apis)

    async def _write(self, operation: Callable[[Apis], Awaitable[_Reply[T]]]) -> T:
        async with self._translated(self._write_timeout):
            reply = await operation(self._apis)
        return self._result(reply)

    async def _settled(self, change: Callable[[], Awaitable[None]]) -> None:
        """Make a change that another process may be making; retry conflicts for 10 s."""
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
    async def _translated(self, seconds: float) -> AsyncGenerator[None]:
        """Bound the block in time; what the client raises becomes IndexUnavailable, with its reason."""
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

    def _described(self, vectors: Vectors) -> models.CreateCollection:
        settings = self._settings
        return models.CreateCollection(
            vectors={DENSE: models.VectorParams(size=vectors.dimensions or 0, distance=models.Distance.COSINE)},
            sparse_vectors={TERMS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            shard_number=settings.shards,
            replication_factor=settings.replicas,
            write_consistency_factor=max(1, settings.replicas - 1),  # so that a node may be down
            on_disk_payload=True,
            metadata={"embedder": vectors.embedder},
        )


def _query(query: Query) -> models.QueryRequest:
    wanted = _filter(query.filter)
    if isinstance(query.vector, SparseTerms):
        corpus = None if query.corpus is None else models.IdfCorpusParams(corpus=_filter(query.corpus))
        params = None if corpus is None else models.SearchParams(idf=corpus)
        return models.QueryRequest(
            query=_sparse(query.vector), using=TERMS, filter=wanted, limit=query.limit, params=params
        )
    params = models.SearchParams(hnsw_ef=HNSW_EF)
    return models.QueryRequest(query=list(query.vector), using=DENSE, filter=wanted, limit=query.limit, params=params)


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


def _may_pass(exc: ResponseHandlingException | UnexpectedResponse) -> bool:
    """Return whether a repetition of the request may succeed: its connection failed, or the server did."""
    if isinstance(exc, UnexpectedResponse):
        return (exc.status_code or 0) >= 500
    return isinstance(exc.source, httpx.TransportError)


def _in_conflict(exc: BaseException | None) -> bool:
    return isinstance(exc, UnexpectedResponse) and exc.status_code in _CONFLICTS and _DISK_FULL not in exc.content


def _advice(exc: UnexpectedResponse) -> str:
    """Return what the answer of a server comes from; its text may hold a customer's, and is not repeated."""
    if exc.status_code == 401:
        return ": QDRANT_API_KEY is not a key of this server"
    if exc.status_code == 403:
        return ": QDRANT_API_KEY may not do this"
    return ": its disk is full" if _DISK_FULL in exc.content else ""


def _failure(exc: BaseException) -> str:
    """Return the cause of a failed call, as the end of a sentence about the server."""
    cause: BaseException | None = exc
    while cause is not None:
        match cause:
            case httpx.RemoteProtocolError():
                return "closed the connection without an answer in HTTP: if it speaks TLS, QDRANT_URL needs https://"
            case ssl.SSLError():
                return f"cannot be reached over TLS: {tls_reason(cause)}"
            case OSError(errno=int(number)):
                return f"cannot be reached: {os.strerror(number) if number > 0 else cause.strerror}"
        source = cause.source if isinstance(cause, ResponseHandlingException) else None
        grouped = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = grouped or source or cause.__cause__ or cause.__context__
    return f"cannot be asked: {type(exc).__name__}"


def _filter(only: Filter) -> models.Filter:
    should = [_condition(condition) for condition in only.should]
    return models.Filter(must=[_condition(condition) for condition in only.must], should=should or None)


def _condition(condition: Condition) -> models.Condition:
    match condition:
        case Equals(field, value):
            return models.FieldCondition(key=field, match=models.MatchValue(value=value))
        case AnyOf(field, ()):
            # A condition and its opposite: engines differ in what an empty list of alternatives means.
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


def _stored(record: models.Record) -> StoredPoint:
    vectors = record.vector if isinstance(record.vector, dict) else {}
    dense: Any = vectors.get(DENSE, ())
    return StoredPoint(id=str(record.id), payload=record.payload or {}, dense=dense)
