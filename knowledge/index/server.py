"""A Qdrant server as an engine, through its asynchronous client (REST).

The API is documented at https://api.qdrant.tech; `scripts/qdrant_requests` holds every request that this file sends
against the server's published OpenAPI description.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import structlog
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from knowledge.index.engine import (
    DENSE,
    FLOAT_FIELDS,
    HNSW_EF,
    INTEGER_FIELDS,
    KEYWORD_FIELDS,
    TENANT_FIELD,
    TERMS,
    CollectionGone,
    IndexFormatUnknown,
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

T = TypeVar("T")

log = structlog.get_logger(__name__)

# Everything the client raises when the server cannot be asked: its own two trees (httpx is wrapped in them), and
# ValueError for a text that cannot be encoded and a reply that is no JSON. TimeoutError is an OSError.
CLIENT_ERRORS = (ApiException, QdrantException, OSError, ValueError)

OLDEST_SERVER = (1, 19)
NEWEST_SERVER = (1, 21)
"""Client and server may be one minor version apart; the client is pinned to 1.20."""


@asynccontextmanager
async def open_server(
    url: str, settings: ServerSettings, *, api_key: str | None, read_timeout: float, write_timeout: float
) -> AsyncGenerator["ServerEngine"]:
    """Open the client of a server of a version that it speaks to; timeouts are in seconds.

    Raises:
        IndexUnavailable: it does not answer.
        IndexFormatUnknown: its version is too old, or too new.
        IndexRefused: the TLS files cannot be used.
    """
    options: dict[str, Any] = {}
    if url.startswith("https:"):
        try:
            options["verify"] = await asyncio.to_thread(settings.context)
        except OSError as exc:  # ssl.SSLError is one
            raise IndexRefused(f"the TLS files of the Qdrant server cannot be used: {exc}") from exc
    # The client's own check of versions is a blocking request in its constructor.
    client = AsyncQdrantClient(
        url=url.rstrip("/"), api_key=api_key, timeout=math.ceil(write_timeout), check_compatibility=False, **options
    )
    engine = ServerEngine(client, settings, read_timeout=read_timeout, write_timeout=write_timeout)
    try:
        await engine.check_version()
        yield engine
    finally:
        await client.close()


class ServerEngine:
    """Implements `Engine`; the client waits for its sockets in this event loop."""

    def __init__(
        self, client: AsyncQdrantClient, settings: ServerSettings, *, read_timeout: float, write_timeout: float
    ) -> None:
        self._client = client
        self._settings = settings
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout
        quantized = models.QuantizationSearchParams(rescore=True, oversampling=settings.oversampling)
        self._dense_params = models.SearchParams(
            hnsw_ef=HNSW_EF, quantization=None if settings.quantize == "off" else quantized
        )

    async def check_version(self) -> None:
        """Raise IndexFormatUnknown unless the server is of a version that the client speaks to."""
        version = (await self._ask(self._client.info, self._read_timeout)).version
        major, _, rest = version.partition(".")
        minor = rest.partition(".")[0]
        known = major.isdigit() and minor.isdigit() and OLDEST_SERVER <= (int(major), int(minor)) <= NEWEST_SERVER
        if not known:
            oldest, newest = (".".join(map(str, bound)) for bound in (OLDEST_SERVER, NEWEST_SERVER))
            raise IndexFormatUnknown(f"the Qdrant server is of version {version}: run one of {oldest} to {newest}")

    async def collections(self) -> list[str]:
        answer = await self._ask(self._client.get_collections, self._read_timeout)
        return [described.name for described in answer.collections]

    async def vectors_of(self, collection: str) -> Vectors:
        config = (await self._ask(lambda: self._client.get_collection(collection), self._read_timeout)).config
        metadata = config.metadata or {}
        embedder, terms = metadata.get("embedder"), metadata.get("terms", 1)
        dense = config.params.vectors.get(DENSE) if isinstance(config.params.vectors, dict) else None
        return Vectors(None if embedder is None else str(embedder), None if dense is None else dense.size, int(terms))

    async def create(self, collection: str, vectors: Vectors) -> None:
        if not await self._exists(collection):
            try:
                await self._ask(lambda: self._create(collection, vectors), self._write_timeout)
            except IndexUnavailable as exc:
                # Another replica that boots at the same moment may have been first.
                if not isinstance(exc.__cause__, UnexpectedResponse) or not await self._exists(collection):
                    raise
        # With a graph a tenant no other field gets graphs of its own.
        graph = False if self._settings.graph_by_tenant else None
        keyword, integer, number = (
            models.KeywordIndexType.KEYWORD,
            models.IntegerIndexType.INTEGER,
            models.FloatIndexType.FLOAT,
        )
        schemas: dict[str, models.PayloadSchemaParams] = {
            TENANT_FIELD: models.KeywordIndexParams(type=keyword, is_tenant=True),
            **dict.fromkeys(KEYWORD_FIELDS, models.KeywordIndexParams(type=keyword, enable_hnsw=graph)),
            **dict.fromkeys(
                INTEGER_FIELDS, models.IntegerIndexParams(type=integer, lookup=True, range=True, enable_hnsw=graph)
            ),
            **dict.fromkeys(FLOAT_FIELDS, models.FloatIndexParams(type=number, enable_hnsw=graph)),
        }
        for field, schema in schemas.items():
            index = partial(self._client.create_payload_index, collection, field, schema, wait=True)
            await self._ask(index, self._write_timeout)
        await self._check_copies(collection)

    async def drop(self, collection: str) -> None:
        await self._ask(lambda: self._client.delete_collection(collection), self._write_timeout)

    async def behind(self, alias: str) -> str | None:
        aliases = (await self._ask(self._client.get_aliases, self._read_timeout)).aliases
        return next((known.collection_name for known in aliases if known.alias_name == alias), None)

    async def point_alias(self, alias: str, collection: str) -> None:
        operations: list[models.CreateAliasOperation | models.DeleteAliasOperation] = []
        if await self.behind(alias) is not None:
            operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        new = models.CreateAlias(collection_name=collection, alias_name=alias)
        operations.append(models.CreateAliasOperation(create_alias=new))
        await self._ask(lambda: self._client.update_collection_aliases(operations), self._write_timeout)

    async def search(self, collection: str, queries: Sequence[Query]) -> list[dict[str, float]]:
        requests = [self._query(query) for query in queries]
        answers = await self._ask(lambda: self._client.query_batch_points(collection, requests), self._read_timeout)
        return [{str(point.id): point.score for point in answer.points} for answer in answers]

    async def size(self, collection: str) -> int:
        return (await self._ask(lambda: self._client.count(collection, exact=False), self._read_timeout)).count

    async def count(self, collection: str, only: Filter) -> int:
        wanted = _filter(only)
        return (await self._ask(lambda: self._client.count(collection, wanted, exact=True), self._read_timeout)).count

    async def counts(self, collection: str, only: Filter, *, field: str, limit: int) -> dict[str, int]:
        wanted = _filter(only)
        facet = partial(self._client.facet, collection, field, facet_filter=wanted, limit=limit, exact=True)
        answer = await self._ask(facet, self._read_timeout)
        return {str(hit.value): hit.count for hit in answer.hits}

    async def read(
        self, collection: str, ids: Sequence[str], *, fields: Sequence[str] | None = None, dense: bool = False
    ) -> list[StoredPoint]:
        payload = True if fields is None else list(fields)
        vectors = [DENSE] if dense else False
        records = await self._ask(
            lambda: self._client.retrieve(collection, ids, with_payload=payload, with_vectors=vectors),
            self._read_timeout,
        )
        return [_stored(record) for record in records]

    async def page(
        self, collection: str, only: Filter, *, limit: int, after: str | None = None
    ) -> tuple[list[StoredPoint], str | None]:
        wanted = _filter(only)
        records, following = await self._ask(
            lambda: self._client.scroll(collection, scroll_filter=wanted, limit=limit, offset=after),
            self._read_timeout,
        )
        return [_stored(record) for record in records], None if following is None else str(following)

    async def upsert(self, collection: str, points: Sequence[NewPoint]) -> None:
        structs = await asyncio.to_thread(_structs, points)
        await self._ask(lambda: self._client.upsert(collection, structs, wait=True), self._write_timeout)

    async def set_payload(self, collection: str, only: Filter, payload: Payload) -> None:
        wanted = _filter(only)
        await self._ask(
            lambda: self._client.set_payload(collection, dict(payload), points=wanted, wait=True), self._write_timeout
        )

    async def delete(self, collection: str, only: Filter) -> None:
        wanted = models.FilterSelector(filter=_filter(only))
        await self._ask(lambda: self._client.delete(collection, wanted, wait=True), self._write_timeout)

    async def _ask(self, operation: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
        """Run one operation of the client within `timeout` seconds; translate whatever it raises."""
        try:
            async with asyncio.timeout(timeout):
                return await operation()
        except UnexpectedResponse as exc:
            if exc.status_code == 404:
                raise CollectionGone("the Qdrant server has no such collection") from exc
            advice = ": QDRANT_API_KEY may not do this" if exc.status_code in (401, 403) else ""
            raise IndexUnavailable(f"the Qdrant server answered {exc.status_code} {exc.reason_phrase}{advice}") from exc
        except CLIENT_ERRORS as exc:
            raise IndexUnavailable(f"the index failed: {type(exc).__name__}") from exc

    async def _exists(self, collection: str) -> bool:
        return await self._ask(lambda: self._client.collection_exists(collection), self._read_timeout)

    async def _check_copies(self, collection: str) -> None:
        """Log where a shard has fewer copies than are configured: a server with too few nodes keeps fewer, silently."""
        replicas = self._settings.replicas
        if replicas == 1:
            return
        cluster = await self._ask(lambda: self._client.collection_cluster_info(collection), self._read_timeout)
        held = [shard.shard_id for shard in cluster.local_shards] + [shard.shard_id for shard in cluster.remote_shards]
        copies = Counter(held)
        fewest = min(copies.values(), default=0)
        if fewest < replicas:
            advice = "give the server as many nodes, then run `ingest reindex`, or set QDRANT__REPLICAS to the copies"
            log.warning("copies_missing", collection=collection, copies=fewest, configured=replicas, advice=advice)

    async def _create(self, collection: str, vectors: Vectors) -> bool:
        settings = self._settings
        size = vectors.dimensions or 0
        quantized = settings.quantize == "int8"
        int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        return await self._client.create_collection(
            collection,
            vectors_config={DENSE: models.VectorParams(size=size, distance=models.Distance.COSINE, on_disk=quantized)},
            sparse_vectors_config={TERMS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            shard_number=settings.shards,
            replication_factor=settings.replicas,
            write_consistency_factor=settings.write_consistency,
            on_disk_payload=settings.payload_on_disk,
            # m=0: no graph over all points; payload_m: one a tenant (qdrant.tech, "Multitenancy").
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16) if settings.graph_by_tenant else None,
            quantization_config=models.ScalarQuantization(scalar=int8) if quantized else None,
            metadata={"embedder": vectors.embedder, "terms": vectors.terms},
        )

    def _query(self, query: Query) -> models.QueryRequest:
        wanted = _filter(query.filter)
        if isinstance(query.vector, SparseTerms):
            return models.QueryRequest(query=_sparse(query.vector), using=TERMS, filter=wanted, limit=query.limit)
        return models.QueryRequest(
            query=list(query.vector), using=DENSE, filter=wanted, limit=query.limit, params=self._dense_params
        )


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
