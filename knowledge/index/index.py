"""The index: passages in Qdrant, on a server or embedded in this process, found by meaning and by terms at once.

IndexUnavailable    (knowledge.index.driver) the index, or the embedder it needs, cannot be asked now
EmbedderMismatch    (knowledge.index.collection) stops the boot: the collection was filled by another embedder
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
from pydantic import AnyHttpUrl, BaseModel, PositiveFloat, PositiveInt, SecretStr, model_validator
from qdrant_client import AsyncQdrantClient, models

from knowledge.access import Access
from knowledge.embedding import Embedder, EmbeddingUnavailable
from knowledge.index.collection import (
    DENSE,
    TERMS,
    EmbedderMismatch,
    check_behind,
    collections_of,
    drop_former,
    ensure_collection,
    followed,
    next_collection,
    switch_alias,
)
from knowledge.index.driver import Driver, IndexUnavailable, Operation, ask, open_driver
from knowledge.index.fusion import Fused, FusionSettings, balanced, fuse
from knowledge.passage import LANGUAGES, Hit, Language, Passage, language_of
from knowledge.terms import SparseTerms, Terms

__all__ = [
    "EmbedderMismatch",
    "Index",
    "IndexSettings",
    "IndexUnavailable",
    "indexed_text",
    "open_index",
    "visible_filter",
]

T = TypeVar("T")

_BEFORE = 0.5
_PAGE = 256
_COUNT_EVERY = 5.0
"""Seconds."""
_LOOK_EVERY = 1.0
"""Seconds after which a reader looks again at what the alias stands for."""


class IndexSettings(BaseModel, frozen=True):
    """Either the `url` of a Qdrant server or the `path` of an embedded one, which only one process may open."""

    url: AnyHttpUrl | None = None
    path: Path | None = None
    api_key: SecretStr | None = None
    alias: str = "kb"
    read_timeout: PositiveFloat = 2.0
    write_timeout: PositiveFloat = 30.0
    # The embedded index writes 64 points in 0.1 s; searches wait that long at most.
    write_batch: PositiveInt = 64
    fusion: FusionSettings = FusionSettings()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.url is None) == (self.path is None):
            raise ValueError("set either the index's url or its path")
        return self


def visible_filter(access: Access) -> models.Filter:
    """Return the one filter of the tree: what `access` may read at its instant, and nothing else.

    A draft has no `visible_from` and matches no range; without groups nothing matches.
    """
    tenant = models.FieldCondition(key="tenant", match=models.MatchValue(value=access.tenant))
    if not access.groups:
        # A condition and its opposite: engines differ in what an empty list of alternatives means.
        return models.Filter(must=[tenant], must_not=[tenant])
    return models.Filter(
        must=[
            tenant,
            models.FieldCondition(key="readers", match=models.MatchAny(any=sorted(access.groups))),
            models.FieldCondition(key="visible_from", range=models.Range(lte=access.as_of)),
        ],
        should=[
            models.IsEmptyCondition(is_empty=models.PayloadField(key="visible_until")),
            models.FieldCondition(key="visible_until", range=models.Range(gt=access.as_of)),
        ],
    )


def indexed_text(passage: Passage) -> str:
    """Return what is embedded and what terms are read from: title and section name what the text is about."""
    return "\n".join(part for part in (passage.title, passage.section, passage.text) if part)


class Index:
    """Reads and writes passages; every search is seen through an `Access`."""

    def __init__(
        self,
        driver: Driver,
        embedder: Embedder,
        terms: Terms,
        settings: IndexSettings,
        *,
        collection: str,
        pinned: bool = False,
    ) -> None:
        self.collection = collection
        self._pinned = pinned
        self._looked_at = -math.inf
        self._driver = driver
        self._embedder = embedder
        self.terms = terms
        self._settings = settings
        self._size = 0
        self._counted_at = -math.inf

    @property
    def embedder(self) -> str:
        """The name of the embedding model."""
        return self._embedder.name

    async def search(
        self,
        question: str,
        *,
        access: Access,
        limit: int,
        before: str = "",
        others: str = "",
        seen: Callable[[Sequence[float]], None] | None = None,
    ) -> list[Hit]:
        """Return at most `limit` passages that `access` may read, best first.

        `before` is what the question goes on from, and counts less; `others` are other words for what it names. `seen`
        is told the vector that was looked for.
        A hit's `dense` is the cosine, its `terms` the term score in rarest terms, 0 if it is no candidate there.

        Raises:
            IndexUnavailable: the index or the embedder cannot be asked.
        """
        visible = visible_filter(access)
        collection = await self._present()
        candidates = max(limit, self._settings.fusion.candidates)
        weight = self._settings.fusion.dense_weight(language_of(question))
        try:
            # Two requests instead of one batch: the terms are looked up while the question is embedded.
            async with asyncio.TaskGroup() as halves:
                query = partial(self.terms.query, question, before=before, others=others)
                asked = partial(self._by_terms, query, visible, collection, limit=candidates)
                terms = halves.create_task(asked()) if weight < 1 else None
                dense = halves.create_task(self._by_meaning([question, before], visible, collection, limit=candidates))
                unit = halves.create_task(self._rarest())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        vector, by_meaning = dense.result()
        if seen is not None:
            seen(vector)
        by_terms = {} if terms is None else terms.result()
        best = fuse(by_meaning, by_terms, weight=weight, candidates=candidates)[:limit]
        return await self._hits(best, vector, collection, unit=unit.result())

    async def passage(self, *, document_id: str, version: int, n: int, access: Access) -> Passage | None:
        """Return one passage if `access` may read it."""
        only = _of_version(access.tenant, document_id, version)
        number = models.FieldCondition(key="n", match=models.MatchValue(value=n))
        wanted = models.Filter(must=[visible_filter(access), only, number])
        collection = await self._present()
        records, _ = await self._read(lambda client: client.scroll(collection, scroll_filter=wanted, limit=1))
        return _passage(records[0].payload) if records else None

    async def passages(self, *, tenant: str, document_id: str, version: int) -> list[Passage]:
        """Return all passages of a version in order, drafts too: the view of the bank's staff, never a customer's."""
        wanted = _of_version(tenant, document_id, version)
        found: list[Passage] = []
        offset: Any = None
        collection = await self._present()
        while True:
            page = _page(collection, wanted, offset)
            records, offset = await self._read(page)
            found.extend(_passage(record.payload) for record in records)
            if offset is None:
                return sorted(found, key=lambda passage: passage.n)

    async def count(self, *, tenant: str, document_id: str, version: int) -> int:
        """Return how many points a version has."""
        wanted = _of_version(tenant, document_id, version)
        collection = await self._present()
        return (await self._read(lambda client: client.count(collection, wanted, exact=True))).count

    async def unlike(self, passages: Sequence[Passage]) -> int:
        """Return how many of these passages the index does not give back, or not with the text that they have."""
        collection = await self._present()
        texts = {passage.point_id: passage.text for passage in passages}
        ids = list(texts)
        for start in range(0, len(ids), _PAGE):
            for record in await self._read(_texts(collection, ids[start : start + _PAGE])):
                if record.payload is not None and record.payload.get("text") == texts[str(record.id)]:
                    del texts[str(record.id)]
        return len(texts)

    async def embed(self, passages: Sequence[Passage]) -> list[list[float]]:
        """Return the dense vectors that `upsert` takes: the slow step, for a pipeline that times it by itself."""
        try:
            return await self._embedder.embed_passages([indexed_text(passage) for passage in passages])
        except EmbeddingUnavailable as exc:
            raise IndexUnavailable("passages cannot be embedded") from exc

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
                await self._write(_upsert(collection, points))

    async def set_visibility(
        self, *, tenant: str, document_id: str, version: int, visible_from: float | None, visible_until: float | None
    ) -> None:
        """Set the interval in which all points of a version are seen; it holds for every search after the return."""
        interval = {"visible_from": visible_from, "visible_until": visible_until}
        await self._set(interval, _of_version(tenant, document_id, version))

    async def set_first_day(self, *, tenant: str, document_id: str, version: int, effective_from: date | None) -> None:
        """Set the day that citations of a version name; it says nothing about who may read it."""
        day = None if effective_from is None else effective_from.isoformat()
        await self._set({"effective_from": day}, _of_version(tenant, document_id, version))

    async def _set(self, payload: dict[str, float | None] | dict[str, str | None], wanted: models.Filter) -> None:
        for collection in await self._collections(own_vectors=False):
            await self._write(partial(_set_payload, collection, payload, wanted))

    async def delete(self, *, tenant: str, document_id: str, version: int) -> None:
        """Remove all points of a version."""
        wanted = models.FilterSelector(filter=_of_version(tenant, document_id, version))
        for collection in await self._collections(own_vectors=False):
            await self._write(partial(_delete, collection, wanted))

    async def beside(self) -> "Index":
        """Return the index that a re-index fills: the next collection, made when there is none, and nothing else.

        Raises:
            EmbedderMismatch: another embedder has begun to fill it.
        """
        make = partial(
            next_collection,
            alias=self._settings.alias,
            embedder=self._embedder.name,
            dimensions=self._embedder.dimensions,
            payload_indexes=self._settings.url is not None,
        )
        name = await self._write(make)
        return Index(self._driver, self._embedder, self.terms, self._settings, collection=name, pinned=True)

    async def switch_to(self, filled: "Index") -> None:
        """Let the alias stand for a collection that was filled beside; the one before is kept, older ones go."""
        alias, former = self._settings.alias, self.collection
        await self._write(lambda client: switch_alias(client, alias, filled.collection))
        self._looked_at = -math.inf
        await self._write(lambda client: drop_former(client, alias=alias, keep=(former, filled.collection)))

    def weighing(self, dense_weight: float) -> "Index":
        """Return the same passages, searched with this weight of the dense half: 1 asks it alone, 0 orders by terms."""
        fusion = self._settings.fusion.model_copy(
            update={"dense_weight_ko": dense_weight, "dense_weight_en": dense_weight}
        )
        settings = self._settings.model_copy(update={"fusion": fusion})
        return Index(
            self._driver, self._embedder, self.terms, settings, collection=self.collection, pinned=self._pinned
        )

    async def ping(self) -> None:
        """Raise IndexUnavailable unless the collection can be read."""
        await self._read(lambda client: client.get_collection(self.collection))

    async def require_current(self) -> None:
        """Raise EmbedderMismatch where another embedder filled what answers: nobody reads what is written here."""
        check = partial(
            check_behind,
            alias=self._settings.alias,
            embedder=self._embedder.name,
            dimensions=self._embedder.dimensions,
        )
        await self._read(check)

    async def _present(self) -> str:
        """Return the collection to read."""
        if not self._pinned and time.monotonic() - self._looked_at > _LOOK_EVERY:
            look = partial(followed, alias=self._settings.alias, present=self.collection, embedder=self._embedder.name)
            self.collection = await self._read(look)
            self._looked_at = time.monotonic()
        return self.collection

    async def _collections(self, *, own_vectors: bool) -> list[str]:
        """Return the collections to write: all there are, or those that this embedder fills."""
        if self._pinned:
            return [self.collection]
        known = await self._read(partial(collections_of, alias=self._settings.alias))
        return [name for name, filled_by in known.items() if not own_vectors or filled_by == self._embedder.name]

    async def _by_meaning(
        self, questions: Sequence[str], visible: models.Filter, collection: str, *, limit: int
    ) -> tuple[list[float], dict[str, float]]:
        try:
            vectors = await self._embedder.embed_queries([question for question in questions if question])
        except EmbeddingUnavailable as exc:
            raise IndexUnavailable("the question cannot be embedded") from exc
        vector = _leaning(*vectors)
        requests = [
            models.QueryRequest(query=vector, using=DENSE, filter=_in_language(visible, language), limit=limit)
            for language in LANGUAGES
        ]
        share = self._settings.fusion.language_balance
        return vector, balanced(await self._scores(collection, requests), share=share, candidates=limit)

    async def _by_terms(
        self, query: Callable[[], SparseTerms], visible: models.Filter, collection: str, *, limit: int
    ) -> dict[str, float]:
        terms = await asyncio.to_thread(query)
        if not terms.indices:
            return {}
        request = models.QueryRequest(query=_sparse(terms), using=TERMS, filter=visible, limit=limit)
        return (await self._scores(collection, [request]))[0]

    async def _scores(self, collection: str, requests: Sequence[models.QueryRequest]) -> list[dict[str, float]]:
        found = await self._read(lambda client: client.query_batch_points(collection, requests))
        return [{str(point.id): point.score for point in one.points} for one in found]

    async def _rarest(self) -> float:
        """Return the weight of a term that only one passage has (the IDF of BM25): it grows with the collection."""
        if time.monotonic() - self._counted_at > _COUNT_EVERY:
            collection = self.collection
            self._size = (await self._read(lambda client: client.count(collection, exact=False))).count
            self._counted_at = time.monotonic()
        return math.log1p(max(self._size - 0.5, 0.5) / 1.5)

    async def _hits(self, best: Sequence[Fused], vector: Sequence[float], collection: str, *, unit: float) -> list[Hit]:
        """Fetch what is shown; a point deleted since the search is left out."""
        ids = [one.point_id for one in best]
        fetch: Operation[list[models.Record]] = lambda client: client.retrieve(  # noqa: E731  typed for the driver
            collection, ids, with_payload=True, with_vectors=[DENSE]
        )
        found = {str(record.id): record for record in await self._read(fetch)} if ids else {}
        hits = [_hit(one, found[one.point_id], vector, unit) for one in best if one.point_id in found]
        return [replace(hit, collection=collection) for hit in hits]

    def _points(self, passages: Sequence[Passage], vectors: Sequence[Sequence[float]]) -> list[models.PointStruct]:
        return [
            models.PointStruct(
                id=passage.point_id,
                vector={DENSE: list(vector), TERMS: _sparse(self.terms.passage(indexed_text(passage)))},
                payload=msgspec.to_builtins(passage),
            )
            for passage, vector in zip(passages, vectors, strict=True)
        ]

    async def _read(self, operation: Operation[T]) -> T:
        return await ask(self._driver, operation, timeout=self._settings.read_timeout)

    async def _write(self, operation: Operation[T]) -> T:
        return await ask(self._driver, operation, timeout=self._settings.write_timeout)


@asynccontextmanager
async def open_index(
    settings: IndexSettings, embedder: Embedder, terms: Terms, *, check: bool = True
) -> AsyncGenerator[Index]:
    """Open the index and make sure that its collection is there and was filled by this embedder (`check`).

    Raises:
        EmbedderMismatch: it was filled by another.
        IndexUnavailable: the server does not answer, or the folder cannot be opened.
    """
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    place = settings.path if settings.path is not None else str(settings.url)
    async with open_driver(place, api_key=key, timeout=settings.write_timeout) as driver:
        collection = await ask(
            driver,
            lambda client: ensure_collection(
                client,
                alias=settings.alias,
                embedder=embedder.name,
                dimensions=embedder.dimensions,
                payload_indexes=settings.url is not None,
                check=check,
            ),
            timeout=settings.write_timeout,
        )
        yield Index(driver, embedder, terms, settings, collection=collection)


# The embedded engine tries the conditions of every point in their order, and ends at the first that fails: what most
# points fail stands first.


def _of_version(tenant: str, document_id: str, version: int) -> models.Filter:
    return models.Filter(
        must=[
            models.FieldCondition(key="document_id", match=models.MatchValue(value=document_id)),
            models.FieldCondition(key="tenant", match=models.MatchValue(value=tenant)),
            models.FieldCondition(key="version", match=models.MatchValue(value=version)),
        ]
    )


def _in_language(visible: models.Filter, language: Language) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="language", match=models.MatchValue(value=language)), visible])


def _leaning(question: Sequence[float], before: Sequence[float] | None = None) -> list[float]:
    """Return the direction of a question that goes on from another one: the other counts half."""
    if before is None:
        return list(question)
    both = [own + _BEFORE * other for own, other in zip(question, before, strict=True)]
    length = math.hypot(*both)
    return [value / length for value in both] if length else list(question)


def _page(collection: str, wanted: models.Filter, offset: Any) -> Operation[tuple[list[models.Record], Any]]:
    return lambda client: client.scroll(collection, scroll_filter=wanted, limit=_PAGE, offset=offset)


def _texts(collection: str, ids: Sequence[str]) -> Operation[list[models.Record]]:
    return lambda client: client.retrieve(collection, ids, with_payload=["text"])


def _upsert(collection: str, points: list[models.PointStruct]) -> Operation[models.UpdateResult]:
    return lambda client: client.upsert(collection, points, wait=True)


async def _set_payload(
    collection: str,
    payload: dict[str, float | None] | dict[str, str | None],
    wanted: models.Filter,
    client: AsyncQdrantClient,
) -> None:
    await client.set_payload(collection, payload, points=wanted, wait=True)


async def _delete(collection: str, wanted: models.FilterSelector, client: AsyncQdrantClient) -> None:
    await client.delete(collection, wanted, wait=True)


def _sparse(terms: SparseTerms) -> models.SparseVector:
    return models.SparseVector(indices=list(terms.indices), values=list(terms.values))


def _hit(fused: Fused, record: models.Record, vector: Sequence[float], unit: float) -> Hit:
    stored = record.vector if isinstance(record.vector, dict) else {}
    dense = _cosine(vector, stored.get(DENSE, ()))
    return Hit(passage=_passage(record.payload), score=fused.score, dense=dense, terms=(fused.terms or 0.0) / unit)


def _cosine(one: Sequence[float], other: Any) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return float(dot / (math.hypot(*one) * math.hypot(*other)))


def _passage(payload: Mapping[str, Any] | None) -> Passage:
    try:
        return msgspec.convert(payload, Passage)
    except msgspec.ValidationError as exc:
        raise IndexUnavailable("a point of the collection holds no passage") from exc
