"""What the index asks of a search engine. Two adapters: a Qdrant server (`server`), Qdrant Edge in a folder (`edge`).

Every method raises IndexUnavailable where the engine cannot be asked, CollectionGone where the collection is not there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from knowledge.index.filters import Filter
from knowledge.terms import SparseTerms

DENSE = "dense"
TERMS = "terms"
Payload: TypeAlias = Mapping[str, Any]

HNSW_EF = 512
"""Candidates that a search of the graph keeps (`ef`; Malkov and Yashunin, 2016). With the engine's default of 100 the
dense half found .88 of the 20 nearest of 30,000 passages of which many are alike; with 512 it found all, in 0.9 ms.
"""

# The payload fields that filters name. A tenant's points lie together on a server's disk.
TENANT_FIELD = "tenant"
KEYWORD_FIELDS = ("readers", "document_id", "language")
INTEGER_FIELDS = ("version",)
FLOAT_FIELDS = ("visible_from", "visible_until")


class IndexUnavailable(Exception):
    """The index, or the embedder it needs, cannot be asked now."""


class CollectionGone(IndexUnavailable):
    """There is no such collection any more: a re-index has removed it."""


class IndexInUse(IndexUnavailable):
    """Another process has the folder of an embedded index open."""


class IndexRefused(Exception):
    """The index cannot be used as it is, and asking again does not help; the message says what to do."""


class EmbedderMismatch(IndexRefused):
    """The collection was filled by another embedder than this one; its vectors cannot be compared."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """What fills a collection's dense vectors: the embedder's name (None: not recorded) and their dimensions."""

    embedder: str | None
    dimensions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The `limit` nearest points that pass the filter: by cosine for a dense vector, by BM25 for terms.

    The rarity of terms (IDF) is counted over the points that pass `corpus`, by default all, in each shard separately.
    """

    vector: Sequence[float] | SparseTerms
    filter: Filter
    limit: int
    corpus: Filter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPoint:
    """A point to write; `id` is a UUID."""

    id: str
    dense: Sequence[float]
    terms: SparseTerms
    payload: Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPoint:
    """A point that was read: its payload as far as asked, and its dense vector where asked, else ()."""

    id: str
    payload: Payload
    dense: Sequence[float] = ()


class Engine(Protocol):
    """Collections of points behind aliases. Writes are durable, and seen by every later search, on return."""

    async def check(self) -> None:
        """Raise IndexRefused unless the engine can be used as it is."""
        ...

    async def collections(self) -> list[str]:
        """Return the names of all collections."""
        ...

    async def vectors_of(self, collection: str) -> Vectors:
        """Return what fills the collection."""
        ...

    async def create(self, collection: str, vectors: Vectors) -> None:
        """Create an empty collection with its payload indexes; an existing one is kept."""
        ...

    async def drop(self, collection: str) -> None:
        """Remove a collection; one that does not exist is ignored."""
        ...

    async def behind(self, alias: str) -> str | None:
        """Return the collection that the alias stands for."""
        ...

    async def point_alias(self, alias: str, collection: str) -> None:
        """Let the alias stand for the collection, in one step: a reader finds the former or the new one."""
        ...

    async def search(self, collection: str, queries: Sequence[Query]) -> list[dict[str, float]]:
        """Return the scores of each query by point id, best first, in one round trip."""
        ...

    async def count(self, collection: str, only: Filter) -> int:
        """Return exactly how many points pass the filter."""
        ...

    async def counts(self, collection: str, *, field: str, limit: int, only: Filter | None = None) -> dict[str, int]:
        """Return the points by the value of a keyword field, of the `limit` most frequent values.

        The counts are exact with `only`; without it they are approximate, and no point is read.
        """
        ...

    async def read(
        self, collection: str, ids: Sequence[str], *, fields: Sequence[str] | None = None, dense: bool = False
    ) -> list[StoredPoint]:
        """Return those of the points that exist, in any order; `fields` limits the payload to these."""
        ...

    async def page(
        self, collection: str, only: Filter, *, limit: int, after: str | None = None
    ) -> tuple[list[StoredPoint], str | None]:
        """Return points that pass the filter, ordered by id, and where the next page starts (None: there is none)."""
        ...

    async def upsert(self, collection: str, points: Sequence[NewPoint]) -> None:
        """Write points; those with the same id are replaced."""
        ...

    async def set_payload(self, collection: str, only: Filter, payload: Payload) -> None:
        """Set these fields of all points that pass the filter; the other fields stay."""
        ...

    async def delete(self, collection: str, only: Filter) -> None:
        """Remove all points that pass the filter."""
        ...
