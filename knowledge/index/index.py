"""The index: passages in Qdrant, on a server or embedded in this process, found by meaning and by terms at once.

IndexUnavailable    (knowledge.index.engine) the index, or the embedder it needs, cannot be asked now
IndexRefused        (knowledge.index.engine) stops the boot; EmbedderMismatch is one
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np
import structlog

from knowledge.access import Access
from knowledge.embedding import Embedder, EmbeddingUnavailable
from knowledge.index.collection import check_behind, collections_of, ensure_collection, followed, next_collection
from knowledge.index.edge import open_edge
from knowledge.index.engine import (
    TENANT_FIELD,
    CollectionGone,
    Engine,
    IndexRefused,
    IndexUnavailable,
    NewPoint,
    Payload,
    Query,
    Vectors,
)
from knowledge.index.filters import Above, AnyOf, AtMost, Equals, Filter, Missing
from knowledge.index.fusion import Fused, balanced, fuse
from knowledge.index.settings import IndexSettings
from knowledge.passage import LANGUAGES, Hit, Passage, instant, language_of
from knowledge.terms import SparseTerms, Terms

_T = TypeVar("_T")
_BEFORE = 0.5
_PAGE = 256
_COUNT_EVERY = 5.0
"""Seconds."""
_TENANTS = 1000
"""The largest tenants of a collection, which are counted; a smaller one is taken to have as many points as the last."""
_LOOK_EVERY = 1.0
"""Seconds after which a reader looks again at what the alias stands for."""

log = structlog.get_logger(__name__)


def visible_filter(access: Access) -> Filter:
    """Return the one filter of the tree: what `access` may read at its instant, and nothing else.

    A draft has no `visible_from` and matches no range; without groups nothing matches.
    """
    as_of = instant(access.as_of)
    return Filter(
        must=(
            Equals("tenant", access.tenant),
            AnyOf("readers", tuple(sorted(access.groups))),
            AtMost("visible_from", as_of),
        ),
        should=(Missing("visible_until"), Above("visible_until", as_of)),
    )


def indexed_text(passage: Passage) -> str:
    """Return what is embedded and what terms are read from: title and section name what the text is about."""
    return "\n".join(part for part in (passage.title, passage.section, passage.text) if part)


class Index:
    """Reads and writes passages; every search is seen through an `Access`."""

    def __init__(
        self,
        engine: Engine,
        embedder: Embedder,
        terms: Terms,
        settings: IndexSettings,
        *,
        collection: str | None,
        pinned: bool = False,
    ) -> None:
        self._collection = collection
        self._failed_start: Callable[[], Awaitable[None]] | None = None
        self._pinned = pinned
        self._looked_at = -math.inf
        self._engine = engine
        self._embedder = embedder
        self.terms = terms
        self._settings = settings
        self._tenants: tuple[str, float, Mapping[str, int]] = ("", -math.inf, {})

    @property
    def collection(self) -> str:
        """The collection that is read; empty while there is none."""
        return self._collection or ""

    @property
    def embedder(self) -> str:
        """The name of the embedding model."""
        return self._embedder.name

    async def search(
        self, question: str, *, access: Access, limit: int, before: str = "", others: str = ""
    ) -> list[Hit]:
        """Return at most `limit` passages that `access` may read, best first; of a document those of one version.

        While a version replaces another both may be open for a moment: the newer is read.
        `before` is the question that this one follows, and counts less; `others` are synonyms of its words.
        A hit's `dense` is the cosine, its `terms` the term score in rarest terms, 0 if it is not a candidate there.

        Raises:
            IndexUnavailable: the index or the embedder cannot be asked.
        """
        weight = self._settings.fusion.dense_weight(language_of(question))
        vector = await self._embed_question(question, before)
        sparse = await asyncio.to_thread(self.terms.query, question, before=before, others=others)
        find = partial(self._found, vector=vector, terms=sparse, access=access, weight=weight, limit=limit)
        return await self._ask(find)

    async def _found(
        self, collection: str, *, vector: Sequence[float], terms: SparseTerms, access: Access, weight: float, limit: int
    ) -> list[Hit]:
        visible = visible_filter(access)
        tenants = await self._points_by_tenant(collection, access.tenant)
        candidates = max(limit, self._settings.fusion.candidates)
        queries = [
            Query(vector=vector, filter=visible.narrowed(Equals("language", language)), limit=candidates)
            for language in LANGUAGES
        ]
        if weight < 1 and terms.indices:
            # Alone in its collection a tenant needs no corpus, which may cost a server half of a search's time.
            corpus = _of_tenant(access.tenant) if tenants.keys() - {access.tenant} else None
            queries.append(Query(vector=terms, filter=visible, limit=candidates, corpus=corpus))
        scores = await self._engine.search(collection, queries)
        by_meaning = balanced(
            scores[: len(LANGUAGES)], share=self._settings.fusion.language_balance, candidates=candidates
        )
        by_terms = scores[-1] if len(scores) > len(LANGUAGES) else {}
        best = fuse(by_meaning, by_terms, weight=weight, candidates=candidates)[:limit]
        cosines = {point: cosine for named in scores[: len(LANGUAGES)] for point, cosine in named.items()}
        own = tenants.get(access.tenant, min(tenants.values(), default=0))
        return await self._hits(best, vector, cosines, collection, own)

    async def passage(self, *, document_id: str, version: int, n: int, access: Access) -> Passage | None:
        """Return one passage if `access` may read it."""
        wanted = visible_filter(access).narrowed(*_of_version(access.tenant, document_id, version).must, Equals("n", n))
        points, _ = await self._ask(partial(self._engine.page, only=wanted, limit=1))
        return _passage(points[0].payload) if points else None

    async def passages(
        self, *, tenant: str, document_id: str, version: int, after: int = 0, most: int | None = None
    ) -> list[Passage]:
        """Return the passages of a version in order, drafts too: the view of the bank's staff, never a customer's.

        With `most` only those of that many numbers above `after`.
        """
        wanted = _of_version(tenant, document_id, version)
        if most is not None:
            wanted = wanted.narrowed(Above("n", after), AtMost("n", after + most))

        async def read(collection: str) -> list[Passage]:
            passages: list[Passage] = []
            after: str | None = None
            while True:
                points, after = await self._engine.page(collection, wanted, limit=_PAGE, after=after)
                passages.extend(_passage(point.payload) for point in points)
                if after is None:
                    return sorted(passages, key=lambda passage: passage.n)

        return await self._ask(read)

    async def count(self, *, tenant: str, document_id: str, version: int) -> int:
        """Return how many points a version has."""
        return await self._ask(partial(self._engine.count, only=_of_version(tenant, document_id, version)))

    async def counts(self, tenant: str, *, limit: int) -> dict[str, int]:
        """Return how many points each of a tenant's documents has, of at most `limit` documents."""
        of_tenant = Filter(must=(Equals("tenant", tenant),))
        return await self._ask(partial(self._engine.counts, only=of_tenant, field="document_id", limit=limit))

    async def holds_visible_passages(self, now: float) -> bool:
        """Return whether there is a passage, of any tenant, that may be read at `now` or could be read before."""
        shown = Filter(must=(AtMost("visible_from", instant(now)),))
        points, _ = await self._ask(partial(self._engine.page, only=shown, limit=1))
        return bool(points)

    async def unlike(self, passages: Sequence[Passage]) -> int:
        """Return how many of these passages are missing from the index or have another text there."""

        async def read(collection: str) -> int:
            texts = {passage.point_id: passage.text for passage in passages}
            ids = list(texts)
            for start in range(0, len(ids), _PAGE):
                for point in await self._engine.read(collection, ids[start : start + _PAGE], fields=["text"]):
                    if point.payload.get("text") == texts[point.id]:
                        del texts[point.id]
            return len(texts)

        return await self._ask(read)

    async def embed(self, passages: Sequence[Passage]) -> list[list[float]]:
        """Return the dense vectors that `upsert` takes: the slow step, for a pipeline that times it by itself."""
        try:
            return await self._embedder.embed_passages([indexed_text(passage) for passage in passages])
        except EmbeddingUnavailable as exc:
            raise IndexUnavailable(f"passages cannot be embedded: {exc}") from exc

    async def upsert(self, passages: Sequence[Passage], vectors: Sequence[Sequence[float]] | None = None) -> None:
        """Write passages, durable on return; written twice they change nothing. Without `vectors` it embeds them."""
        if vectors is not None and len(vectors) != len(passages):
            raise ValueError(f"{len(passages)} passages came with {len(vectors)} vectors")
        step = self._settings.write_batch
        for start in range(0, len(passages), step):
            batch = passages[start : start + step]
            ready = await self.embed(batch) if vectors is None else vectors[start : start + step]
            points = await asyncio.to_thread(self._points, batch, ready)
            for collection in await self._collections(own_vectors=True):
                await self._engine.upsert(collection, points)

    async def set_visibility(
        self, *, tenant: str, document_id: str, version: int, visible_from: float | None, visible_until: float | None
    ) -> None:
        """Set the interval in which all points of a version are seen; it holds for every search after the return."""
        interval = {
            "visible_from": None if visible_from is None else instant(visible_from),
            "visible_until": None if visible_until is None else instant(visible_until),
        }
        await self._set(interval, _of_version(tenant, document_id, version))

    async def set_first_day(self, *, tenant: str, document_id: str, version: int, effective_from: date | None) -> None:
        """Set the day that citations of a version name; it says nothing about who may read it."""
        day = None if effective_from is None else effective_from.isoformat()
        await self._set({"effective_from": day}, _of_version(tenant, document_id, version))

    async def _set(self, payload: Payload, wanted: Filter) -> None:
        for collection in await self._collections(own_vectors=False):
            await self._engine.set_payload(collection, wanted, payload)

    async def delete(self, *, tenant: str, document_id: str, version: int) -> None:
        """Remove all points of a version."""
        for collection in await self._collections(own_vectors=False):
            await self._engine.delete(collection, _of_version(tenant, document_id, version))

    async def beside(self) -> "Index":
        """Return the index that a re-index fills: the next collection, made when there is none, and nothing else.

        Raises:
            EmbedderMismatch: another embedder has begun to fill it.
        """
        name = await next_collection(self._engine, alias=self._settings.alias, vectors=_vectors_of(self._embedder))
        return Index(self._engine, self._embedder, self.terms, self._settings, collection=name, pinned=True)

    async def switch_to(self, filled: "Index") -> None:
        """Let the alias stand for a collection that was filled beside; the one before is kept, older ones go."""
        alias = self._settings.alias
        former = await self._engine.behind(alias)
        await self._engine.point_alias(alias, filled.collection)
        self._collection = filled.collection
        for name in await collections_of(self._engine, alias):
            if name not in (former, filled.collection):
                await self._engine.drop(name)

    async def ping(self) -> None:
        """Raise IndexUnavailable unless the collection can be read."""
        await self._ask(self._engine.vectors_of)

    async def ping_embedder(self) -> None:
        """Raise IndexUnavailable unless the embedder embeds a word."""
        await self._embed_question("ping")

    async def require_current(self) -> None:
        """Raise EmbedderMismatch where another embedder filled what answers: nobody reads what is written here."""
        await self._started()
        await check_behind(self._engine, alias=self._settings.alias, vectors=_vectors_of(self._embedder))

    async def start(self, *, check: bool, read_only: bool) -> None:
        """Check the engine and find its collection, made unless `read_only`; a failed start is repeated at each use.

        Raises:
            EmbedderMismatch: with `check`, another embedder filled the collection.
            IndexRefused: the engine is of a release that this one cannot read.
            IndexUnavailable: the engine does not answer.
        """
        self._failed_start = partial(self.start, check=check, read_only=read_only)
        alias, vectors = self._settings.alias, _vectors_of(self._embedder)
        await self._engine.check()
        if read_only:
            if check:
                await check_behind(self._engine, alias=alias, vectors=vectors)
            self._collection = await self._engine.behind(alias)
        else:
            self._collection = await ensure_collection(self._engine, alias=alias, vectors=vectors, check=check)
        self._failed_start = None

    async def _started(self) -> None:
        if self._failed_start is None:
            return
        try:
            await self._failed_start()
        except IndexRefused as exc:
            raise IndexUnavailable(str(exc)) from exc

    async def _present(self) -> str:
        """Return the collection to read."""
        await self._started()
        if not self._pinned and time.monotonic() - self._looked_at > _LOOK_EVERY:
            self._collection = await followed(
                self._engine, alias=self._settings.alias, present=self._collection, embedder=self._embedder.name
            )
            self._looked_at = time.monotonic()
        if self._collection is None:
            behind = await self._engine.behind(self._settings.alias)
            raise IndexUnavailable(
                f"{self._settings.alias} has no collection yet: `ingest` makes it at its start"
                if behind is None
                else f"{behind} was filled by another embedder than {self._embedder.name}"
            )
        return self._collection

    async def _ask(self, ask: Callable[[str], Awaitable[_T]]) -> _T:
        """Ask the collection to read, or the one there is now where a second re-index since the last look took it."""
        collection = await self._present()
        try:
            return await ask(collection)
        except CollectionGone:
            self._looked_at = -math.inf
            renewed = await self._present()
            if renewed == collection:
                raise
            return await ask(renewed)

    async def _collections(self, *, own_vectors: bool) -> list[str]:
        """Return the collections to write: all there are, or those that this embedder fills."""
        if self._pinned:
            return [self.collection]
        await self._started()
        known = await collections_of(self._engine, self._settings.alias)
        if not known:
            raise IndexUnavailable(f"{self._settings.alias} has no collection to write to")
        return [name for name, filled_by in known.items() if not own_vectors or filled_by == self._embedder.name]

    async def _embed_question(self, question: str, before: str = "") -> list[float]:
        """Return a question's vector; the question before it counts half."""
        try:
            vectors = await self._embedder.embed_queries([question, *([before] if before else [])])
        except EmbeddingUnavailable as exc:
            raise IndexUnavailable(f"the question cannot be embedded: {exc}") from exc
        return _direction(*vectors)

    async def _points_by_tenant(self, collection: str, tenant: str) -> Mapping[str, int]:
        """Return how many points each tenant has, `tenant` included; cached for _COUNT_EVERY seconds.

        While one search asks, the others continue with the last reply.
        """
        counted_collection, counted_at, tenants = self._tenants
        if counted_collection == collection and tenant in tenants:
            if time.monotonic() - counted_at <= _COUNT_EVERY:
                return tenants
            self._tenants = collection, time.monotonic(), tenants  # for the searches during this count
        tenants = await self._engine.counts(collection, field=TENANT_FIELD, limit=_TENANTS)
        self._tenants = collection, time.monotonic(), tenants
        return tenants

    async def _hits(
        self, best: Sequence[Fused], vector: Sequence[float], cosines: dict[str, float], collection: str, own: int
    ) -> list[Hit]:
        """Fetch the shown points; one deleted since the search is left out. `cosines` are those of the search.

        Of `own` points of the tenant a term has the weight 1 that only one of them has (the IDF of BM25).
        """
        if not best:
            return []
        unit = math.log1p(max(own - 0.5, 0.5) / 1.5)
        # Of hits that only the terms have named, the vectors are needed.
        without = [candidate.point_id for candidate in best if candidate.point_id not in cosines]
        ids = [candidate.point_id for candidate in best]
        points = {point.id: point for point in await self._engine.read(collection, ids, dense=bool(without))}
        without = [point_id for point_id in without if point_id in points]
        cosines |= zip(without, _cosines(vector, [points[point_id].dense for point_id in without]), strict=True)
        hits = [
            Hit(
                passage=_passage(points[candidate.point_id].payload),
                score=candidate.score,
                dense=cosines[candidate.point_id],
                terms=(candidate.terms or 0.0) / unit,
                collection=collection,
            )
            for candidate in best
            if candidate.point_id in points
        ]
        return _of_newest_versions(hits)

    def _points(self, passages: Sequence[Passage], vectors: Sequence[Sequence[float]]) -> list[NewPoint]:
        return [
            NewPoint(
                id=passage.point_id,
                dense=vector,
                terms=self.terms.passage(indexed_text(passage)),
                payload=_payload(passage),
            )
            for passage, vector in zip(passages, vectors, strict=True)
        ]


@asynccontextmanager
async def open_index(
    settings: IndexSettings,
    embedder: Embedder,
    terms: Terms,
    *,
    check: bool = True,
    read_only: bool = False,
    retry_start: bool = False,
) -> AsyncGenerator[Index]:
    """Open the index and make sure that its collection is there and was filled by this embedder (`check`).

    With `read_only` nothing is made, and until another process has made the collection every search is unavailable.
    With `retry_start` a server that is away is opened all the same: everything is unavailable until it answers.

    Raises:
        EmbedderMismatch: it was filled by another embedder.
        IndexRefused: the server is of a release that this one cannot read.
        IndexUnavailable: the server does not answer, or the folder cannot be opened.
    """
    async with _open_engine(settings) as engine:
        index = Index(engine, embedder, terms, settings, collection=None)
        try:
            await index.start(check=check, read_only=read_only)
        except IndexUnavailable as exc:
            if not retry_start:
                raise
            log.warning("index_start_failed", error=str(exc), retries="at each use")
        yield index


@asynccontextmanager
async def _open_engine(settings: IndexSettings) -> AsyncGenerator[Engine]:
    timeouts = {"read_timeout": settings.read_timeout, "write_timeout": settings.write_timeout}
    if settings.path is not None:
        async with open_edge(settings.path, **timeouts) as folder:
            yield folder
        return
    # Imported here: the client takes half a second, a quarter of a start, which no embedded index needs.
    from knowledge.index.server import open_server  # noqa: PLC0415

    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    async with open_server(str(settings.url), settings.server, api_key=key, **timeouts) as server:
        yield server


def _vectors_of(embedder: Embedder) -> Vectors:
    return Vectors(embedder.name, embedder.dimensions)


def _of_newest_versions(hits: Sequence[Hit]) -> list[Hit]:
    """Return the hits without those in a version of which a newer one is among them."""
    newest: dict[str, int] = {}
    for hit in hits:
        passage = hit.passage
        newest[passage.document_id] = max(passage.version, newest.get(passage.document_id, 0))
    return [hit for hit in hits if hit.passage.version == newest[hit.passage.document_id]]


def _of_tenant(tenant: str) -> Filter:
    return Filter(must=(Equals(TENANT_FIELD, tenant),))


def _of_version(tenant: str, document_id: str, version: int) -> Filter:
    return Filter(must=(Equals("document_id", document_id), Equals("tenant", tenant), Equals("version", version)))


def _direction(question: Sequence[float], before: Sequence[float] | None = None) -> list[float]:
    """Return the direction of a question that follows another one: the other counts half."""
    if before is None:
        return list(question)
    both = [own + _BEFORE * other for own, other in zip(question, before, strict=True)]
    length = math.hypot(*both)
    return [value / length for value in both] if length else list(question)


def _cosines(vector: Sequence[float], stored: Sequence[Sequence[float]]) -> list[float]:
    """Return the cosine of one vector with each of the others."""
    if not stored:
        return []
    own, others = np.asarray(vector), np.asarray(stored)
    cosines: list[float] = (others @ own / (np.linalg.norm(others, axis=1) * np.linalg.norm(own))).tolist()
    return cosines


def _payload(passage: Passage) -> dict[str, Any]:
    payload: dict[str, Any] = msgspec.to_builtins(passage)
    for field in ("visible_from", "visible_until"):
        if payload[field] is not None:
            payload[field] = instant(payload[field])
    return payload


def _passage(payload: Payload) -> Passage:
    try:
        return msgspec.convert(payload, Passage)
    except msgspec.ValidationError as exc:
        raise IndexUnavailable("a point of the collection holds no passage") from exc
