"""The index: passages in Qdrant, on a server or embedded in this process, searched by meaning and by terms at once.

IndexUnavailable    (knowledge.index.engine) the index or its embedder does not answer now
IndexRefused        (knowledge.index.engine) prevents the start; EmbedderMismatch is a subclass
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
from knowledge.index.collection import check_alias, collections_of, ensure_collection, next_collection, target_to_read
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
_EARLIER_WEIGHT = 0.5
"""The weight of the earlier questions' vector; the question's own weighs 1."""
_PAGE = 256
_COUNT_EVERY = 5.0  # seconds between two counts of each tenant's points
_MOST_TENANTS = 1000
"""Only this many tenants' points are counted, largest first; any other is assumed to have as many as the last."""
_CHECK_EVERY = 1.0  # seconds after which a reader checks again which collection the alias points to

log = structlog.get_logger(__name__)


def visible_filter(access: Access) -> Filter:
    """Return the filter for the passages that `access` may read at its instant; every search uses it.

    A draft never matches, because it has no `visible_from`; without groups nothing matches.
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
    """Return the text to embed and to take terms from, with the title and section, which state its subject."""
    return "\n".join(part for part in (passage.title, passage.section, passage.text) if part)


class Index:
    """Reads and writes passages; every search is limited by an `Access`."""

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
        """A `pinned` index uses this collection only, and ignores the alias."""
        self._collection = collection
        self._start: Callable[[], Awaitable[None]] | None = None
        """Repeats a start that has failed; None after a successful one."""
        self._is_pinned = pinned
        self._alias_checked_at = -math.inf
        self._engine = engine
        self._embedder = embedder
        self.terms = terms
        self._settings = settings
        self._tenant_counts: tuple[str, float, Mapping[str, int]] = ("", -math.inf, {})
        """The collection of the last count, its time, and the points of each tenant."""

    @property
    def collection(self) -> str:
        """The name of the collection that is read; empty if there is none yet."""
        return self._collection or ""

    @property
    def embedder(self) -> str:
        """The name of the embedding model."""
        return self._embedder.name

    async def search(
        self, question: str, *, access: Access, limit: int, earlier: str = "", synonyms: str = ""
    ) -> list[Hit]:
        """Return at most `limit` passages that `access` may read, best first; only the newest version of a document.

        Two versions of a document may be visible for a moment, while one replaces the other.
        `earlier` holds the conversation's earlier questions, which weigh less. `synonyms` holds the glossary's synonyms
        of words in all these questions, separated by blanks.

        Raises:
            IndexUnavailable: the index or the embedder does not answer.
        """
        weight = self._settings.fusion.dense_weight(language_of(question))
        vector = await self._embed_question(question, earlier)
        terms = await asyncio.to_thread(self.terms.query, question, earlier=earlier, synonyms=synonyms)
        search = partial(self._search, vector=vector, terms=terms, access=access, weight=weight, limit=limit)
        return await self._with_collection(search)

    async def _search(
        self, collection: str, *, vector: Sequence[float], terms: SparseTerms, access: Access, weight: float, limit: int
    ) -> list[Hit]:
        """Search each language by meaning and all passages by terms, and fuse; `weight` is that of the dense half."""
        visible = visible_filter(access)
        tenants = await self._points_by_tenant(collection, access.tenant)
        candidates = max(limit, self._settings.fusion.candidates)
        queries = [
            Query(vector=vector, filter=visible.narrowed(Equals("language", language)), limit=candidates)
            for language in LANGUAGES
        ]
        if weight < 1 and terms.indices:
            # The rarity of terms is computed over the tenant's own points. A sole tenant needs no filter for this,
            # which may take half of a search's time.
            has_other_tenants = bool(tenants.keys() - {access.tenant})
            corpus = _tenant_filter(access.tenant) if has_other_tenants else None
            queries.append(Query(vector=terms, filter=visible, limit=candidates, corpus=corpus))
        scores = await self._engine.search(collection, queries)
        by_language = scores[: len(LANGUAGES)]
        by_meaning = balanced(by_language, share=self._settings.fusion.language_balance, candidates=candidates)
        by_terms = scores[-1] if len(scores) > len(LANGUAGES) else {}
        best = fuse(by_meaning, by_terms, weight=weight, candidates=candidates)[:limit]
        cosines = {point: cosine for scored in by_language for point, cosine in scored.items()}
        tenant_points = tenants.get(access.tenant, min(tenants.values(), default=0))
        return await self._hits(best, vector, cosines, collection, tenant_points)

    async def passage(self, *, document_id: str, version: int, n: int, access: Access) -> Passage | None:
        """Return passage number `n` of a version if `access` may read it."""
        of_version = _version_filter(access.tenant, document_id, version)
        passage_filter = visible_filter(access).narrowed(*of_version.must, Equals("n", n))
        points, _ = await self._with_collection(partial(self._engine.page, only=passage_filter, limit=1))
        return _passage(points[0].payload) if points else None

    async def passages(
        self, *, tenant: str, document_id: str, version: int, after: int = 0, most: int | None = None
    ) -> list[Passage]:
        """Return the passages of a version in order, also of a draft: for the bank's staff, never for customers.

        With `most`, only those numbered `after` + 1 to `after` + `most`; without it, `after` is ignored.
        """
        passage_filter = _version_filter(tenant, document_id, version)
        if most is not None:
            passage_filter = passage_filter.narrowed(Above("n", after), AtMost("n", after + most))

        async def read(collection: str) -> list[Passage]:
            passages: list[Passage] = []
            next_page: str | None = None
            while True:
                points, next_page = await self._engine.page(collection, passage_filter, limit=_PAGE, after=next_page)
                passages.extend(_passage(point.payload) for point in points)
                if next_page is None:
                    return sorted(passages, key=lambda passage: passage.n)

        return await self._with_collection(read)

    async def count(self, *, tenant: str, document_id: str, version: int) -> int:
        """Return the number of a version's points."""
        count = partial(self._engine.count, only=_version_filter(tenant, document_id, version))
        return await self._with_collection(count)

    async def counts(self, tenant: str, *, limit: int) -> dict[str, int]:
        """Return the number of points of each of a tenant's documents, for at most `limit` documents."""
        only = _tenant_filter(tenant)
        return await self._with_collection(partial(self._engine.counts, only=only, field="document_id", limit=limit))

    async def holds_visible_passages(self, now: float) -> bool:
        """Return whether any tenant has a passage that is visible at `now` (Unix seconds), or was before."""
        has_begun = Filter(must=(AtMost("visible_from", instant(now)),))
        points, _ = await self._with_collection(partial(self._engine.page, only=has_begun, limit=1))
        return bool(points)

    async def count_differing(self, passages: Sequence[Passage]) -> int:
        """Return how many of these passages are missing from the index, or have another text there."""

        async def read(collection: str) -> int:
            differing = {passage.point_id: passage.text for passage in passages}
            ids = list(differing)
            for start in range(0, len(ids), _PAGE):
                for point in await self._engine.read(collection, ids[start : start + _PAGE], fields=["text"]):
                    if point.payload.get("text") == differing[point.id]:
                        del differing[point.id]
            return len(differing)

        return await self._with_collection(read)

    async def embed(self, passages: Sequence[Passage]) -> list[list[float]]:
        """Return the vectors to pass to `upsert`; embedding is the slow step, so the pipeline times it separately."""
        try:
            return await self._embedder.embed_passages([indexed_text(passage) for passage in passages])
        except EmbeddingUnavailable as exc:
            raise IndexUnavailable(f"passages cannot be embedded: {exc}") from exc

    async def upsert(self, passages: Sequence[Passage], vectors: Sequence[Sequence[float]] | None = None) -> None:
        """Write passages, durable on return and idempotent; without `vectors` they are embedded first."""
        if vectors is not None and len(vectors) != len(passages):
            raise ValueError(f"{len(passages)} passages came with {len(vectors)} vectors")
        step = self._settings.write_batch
        for start in range(0, len(passages), step):
            batch = passages[start : start + step]
            batch_vectors = await self.embed(batch) if vectors is None else vectors[start : start + step]
            points = await asyncio.to_thread(self._points, batch, batch_vectors)
            for collection in await self._collections_to_write(own_vectors=True):
                await self._engine.upsert(collection, points)

    async def set_visibility(
        self, *, tenant: str, document_id: str, version: int, visible_from: float | None, visible_until: float | None
    ) -> None:
        """Set the interval in which a version is visible (Unix seconds), for every search after the return."""
        interval = {
            "visible_from": None if visible_from is None else instant(visible_from),
            "visible_until": None if visible_until is None else instant(visible_until),
        }
        await self._set_payload(interval, _version_filter(tenant, document_id, version))

    async def set_first_day(self, *, tenant: str, document_id: str, version: int, effective_from: date | None) -> None:
        """Set the date that citations of a version show; it does not affect visibility."""
        day = None if effective_from is None else effective_from.isoformat()
        await self._set_payload({"effective_from": day}, _version_filter(tenant, document_id, version))

    async def _set_payload(self, payload: Payload, only: Filter) -> None:
        for collection in await self._collections_to_write(own_vectors=False):
            await self._engine.set_payload(collection, only, payload)

    async def delete(self, *, tenant: str, document_id: str, version: int) -> None:
        """Remove all points of a version."""
        for collection in await self._collections_to_write(own_vectors=False):
            await self._engine.delete(collection, _version_filter(tenant, document_id, version))

    async def next_index(self) -> "Index":
        """Return an index of the next collection, for a re-index to fill; the collection is created if it is missing.

        Raises:
            EmbedderMismatch: another embedder has begun to fill that collection.
        """
        name = await next_collection(self._engine, alias=self._settings.alias, vectors=_vectors_of(self._embedder))
        return Index(self._engine, self._embedder, self.terms, self._settings, collection=name, pinned=True)

    async def switch_to(self, filled: "Index") -> None:
        """Point the alias to the collection that a re-index has filled; keep the former one, and remove older ones."""
        alias = self._settings.alias
        former = await self._engine.alias_target(alias)
        await self._engine.point_alias(alias, filled.collection)
        self._collection = filled.collection
        for name in await collections_of(self._engine, alias):
            if name not in (former, filled.collection):
                await self._engine.drop(name)

    async def ping(self) -> None:
        """Raise IndexUnavailable if the collection cannot be read."""
        await self._with_collection(self._engine.vectors_of)

    async def ping_embedder(self) -> None:
        """Raise IndexUnavailable if the embedder cannot embed a word."""
        await self._embed_question("ping")

    async def require_current(self) -> None:
        """Raise EmbedderMismatch if another embedder filled the alias's collection; no search would see our writes."""
        await self._ensure_started()
        await check_alias(self._engine, alias=self._settings.alias, vectors=_vectors_of(self._embedder))

    async def start(self, *, check: bool, read_only: bool) -> None:
        """Check the engine, find the alias's collection or, unless `read_only`, create it. Later calls retry a failure.

        Raises:
            EmbedderMismatch: with `check`, another embedder filled the collection.
            IndexRefused: the engine's release is not supported.
            IndexUnavailable: the engine does not answer.
        """
        self._start = partial(self.start, check=check, read_only=read_only)
        alias, vectors = self._settings.alias, _vectors_of(self._embedder)
        await self._engine.check()
        if read_only:
            if check:
                await check_alias(self._engine, alias=alias, vectors=vectors)
            self._collection = await self._engine.alias_target(alias)
        else:
            self._collection = await ensure_collection(self._engine, alias=alias, vectors=vectors, check=check)
        self._start = None

    async def _ensure_started(self) -> None:
        if self._start is None:
            return
        try:
            await self._start()
        except IndexRefused as exc:
            raise IndexUnavailable(str(exc)) from exc

    async def _collection_to_read(self) -> str:
        """Return the collection to read, checking the alias each second; raise IndexUnavailable without one."""
        await self._ensure_started()
        if not self._is_pinned and time.monotonic() - self._alias_checked_at > _CHECK_EVERY:
            self._collection = await target_to_read(
                self._engine, alias=self._settings.alias, current=self._collection, embedder=self._embedder.name
            )
            self._alias_checked_at = time.monotonic()
        if self._collection is None:
            target = await self._engine.alias_target(self._settings.alias)
            if target is None:
                raise IndexUnavailable(f"{self._settings.alias} has no collection yet: `ingest` makes it at its start")
            raise IndexUnavailable(f"{target} was filled by another embedder than {self._embedder.name}")
        return self._collection

    async def _with_collection(self, read: Callable[[str], Awaitable[_T]]) -> _T:
        """Call `read` with the collection to read; again with the current one if a re-index has removed the former."""
        collection = await self._collection_to_read()
        try:
            return await read(collection)
        except CollectionGone:
            self._alias_checked_at = -math.inf
            current = await self._collection_to_read()
            if current == collection:
                raise
            return await read(current)

    async def _collections_to_write(self, *, own_vectors: bool) -> list[str]:
        """Return the names of all collections or, with `own_vectors`, of those with this embedder's vectors."""
        if self._is_pinned:
            return [self.collection]
        await self._ensure_started()
        embedders = await collections_of(self._engine, self._settings.alias)
        if not embedders:
            raise IndexUnavailable(f"{self._settings.alias} has no collection to write to")
        return [name for name, embedder in embedders.items() if not own_vectors or embedder == self._embedder.name]

    async def _embed_question(self, question: str, earlier: str = "") -> list[float]:
        """Return a question's vector, combined with the vector of the earlier questions at half the weight."""
        try:
            vectors = await self._embedder.embed_queries([question, earlier] if earlier else [question])
        except EmbeddingUnavailable as exc:
            raise IndexUnavailable(f"the question cannot be embedded: {exc}") from exc
        return _direction(*vectors)

    async def _points_by_tenant(self, collection: str, tenant: str) -> Mapping[str, int]:
        """Return each tenant's number of points, cached for 5 s; while a search counts, others use the last result."""
        counted_collection, counted_at, points = self._tenant_counts
        if counted_collection == collection and tenant in points:
            if time.monotonic() - counted_at <= _COUNT_EVERY:
                return points
            self._tenant_counts = collection, time.monotonic(), points  # for the searches during this count
        points = await self._engine.counts(collection, field=TENANT_FIELD, limit=_MOST_TENANTS)
        self._tenant_counts = collection, time.monotonic(), points
        return points

    async def _hits(
        self, best: Sequence[Fused], vector: Sequence[float], cosines: dict[str, float], collection: str, size: int
    ) -> list[Hit]:
        """Read the points of the best candidates; skip those deleted since the search.

        `cosines` has the scores of the dense search. A hit's `terms` is the BM25 score divided by the weight (IDF) of
        the rarest term possible, which only one of the tenant's `size` points contains.
        """
        if not best:
            return []
        rarest_weight = math.log1p(max(size - 0.5, 0.5) / 1.5)
        # Candidates of the terms alone have no cosine yet, so their vectors are read too.
        only_terms = [candidate.point_id for candidate in best if candidate.point_id not in cosines]
        ids = [candidate.point_id for candidate in best]
        points = {point.id: point for point in await self._engine.read(collection, ids, dense=bool(only_terms))}
        only_terms = [point_id for point_id in only_terms if point_id in points]
        computed = _cosines(vector, [points[point_id].dense for point_id in only_terms])
        cosines |= zip(only_terms, computed, strict=True)
        hits = [
            Hit(
                passage=_passage(points[candidate.point_id].payload),
                score=candidate.score,
                dense=cosines[candidate.point_id],
                terms=(candidate.terms or 0.0) / rarest_weight,
                collection=collection,
            )
            for candidate in best
            if candidate.point_id in points
        ]
        return _newest_versions(hits)

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
    """Open the index; create its collection if it is missing, and `check` that this embedder filled it.

    With `read_only` nothing is created: searches fail until another process has created the collection.
    With `retry_start` a server may be away: calls fail until it answers.

    Raises:
        EmbedderMismatch: with `check`, another embedder filled the collection.
        IndexRefused: the server's release is not supported.
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
        async with open_edge(settings.path, **timeouts) as embedded:
            yield embedded
        return
    # Imported here, because the client takes half a second and an embedded index does not need it.
    from knowledge.index.server import open_server  # noqa: PLC0415

    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    async with open_server(str(settings.url), settings.server, api_key=key, **timeouts) as server:
        yield server


def _vectors_of(embedder: Embedder) -> Vectors:
    return Vectors(embedder.name, embedder.dimensions)


def _newest_versions(hits: Sequence[Hit]) -> list[Hit]:
    """Return the hits in the newest version of each document."""
    newest: dict[str, int] = {}
    for hit in hits:
        passage = hit.passage
        newest[passage.document_id] = max(passage.version, newest.get(passage.document_id, 0))
    return [hit for hit in hits if hit.passage.version == newest[hit.passage.document_id]]


def _tenant_filter(tenant: str) -> Filter:
    return Filter(must=(Equals(TENANT_FIELD, tenant),))


def _version_filter(tenant: str, document_id: str, version: int) -> Filter:
    return Filter(must=(Equals("document_id", document_id), Equals("tenant", tenant), Equals("version", version)))


def _direction(question: Sequence[float], earlier: Sequence[float] | None = None) -> list[float]:
    """Return the question's vector, or the direction of its weighted sum with the earlier question's."""
    if earlier is None:
        return list(question)
    both = [own + _EARLIER_WEIGHT * other for own, other in zip(question, earlier, strict=True)]
    length = math.hypot(*both)
    return [value / length for value in both] if length else list(question)


def _cosines(vector: Sequence[float], stored: Sequence[Sequence[float]]) -> list[float]:
    """Return the cosine of a vector with each stored one."""
    if not stored:
        return []
    own, others = np.asarray(vector), np.asarray(stored)
    lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(own)
    cosines: list[float] = (others @ own / lengths).tolist()
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
        raise IndexUnavailable("a point of the collection is not a valid passage") from exc
