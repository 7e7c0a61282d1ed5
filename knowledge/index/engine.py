"""The search engine's interface. It has two adapters: a Qdrant server (`server`), and Qdrant Edge in a folder (`edge`).

Every method raises IndexUnavailable if the engine does not answer, and CollectionGone if the collection is missing.
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
"""The candidates in a search of the graph (`ef`; Malkov and Yashunin, 2016). Among 30,000 passages, many of them alike,
the engine's default of 100 finds .88 of the 20 nearest; 512 finds all, in 0.9 ms."""

# The payload fields that filters use. A server stores a tenant's points together on disk.
TENANT_FIELD = "tenant"
KEYWORD_FIELDS = ("readers", "document_id", "language")
INTEGER_FIELDS = ("version",)
FLOAT_FIELDS = ("visible_from", "visible_until")


class IndexUnavailable(Exception):
    """The index or its embedder does not answer now."""


class CollectionGone(IndexUnavailable):
    """The collection no longer exists: a re-index has removed it."""


class IndexInUse(IndexUnavailable):
    """Another process has the folder of an embedded index open."""


class IndexRefused(Exception):
    """The index cannot be used until an operator follows the message; a retry does not help."""


class EmbedderMismatch(IndexRefused):
    """Another embedder filled the collection, so its vectors cannot be compared with ours."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """The embedder of a collection's dense vectors (None: not recorded), and their dimensions."""

    embedder: str | None
    dimensions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query for the `limit` best points that pass the filter: by cosine for a dense vector, by BM25 for terms.

    The rarity of terms (IDF) is computed per shard, over the points that pass `corpus` (default: all).
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
    """A point that was read, with the requested fields of its payload and, if requested, its dense vector."""

    id: str
    payload: Payload
    dense: Sequence[float] = ()


class Engine(Protocol):
    """Collections of points behind aliases. On return a write is durable, and every later search sees it."""

    async def check(self) -> None:
        """Raise IndexRefused if the engine's release is not supported."""

    async def collections(self) -> list[str]:
        """Return the names of all collections."""

    async def vectors_of(self, collection: str) -> Vectors:
        """Return the collection's embedder and dimensions."""

    async def create(self, collection: str, vectors: Vectors) -> None:
        """Create an empty collection with its payload indexes; an existing one is kept."""

    async def drop(self, collection: str) -> None:
        """Remove a collection if it exists."""

    async def alias_target(self, alias: str) -> str | None:
        """Return the collection that the alias points to."""

    async def point_alias(self, alias: str, collection: str) -> None:
        """Point the alias to the collection, atomically."""

    async def search(self, collection: str, queries: Sequence[Query]) -> list[dict[str, float]]:
        """Return the scores of each query by point id, best first, in one round trip."""

    async def count(self, collection: str, only: Filter) -> int:
        """Return the exact number of points that pass the filter."""

    async def counts(self, collection: str, *, field: str, limit: int, only: Filter | None = None) -> dict[str, int]:
        """Return the number of points for each of the `limit` most frequent values of a keyword field.

        With `only` the counts are exact. Without it they are approximate and cheap, because no point is read.
        """

    async def read(
        self, collection: str, ids: Sequence[str], *, fields: Sequence[str] | None = None, dense: bool = False
    ) -> list[StoredPoint]:
        """Return the existing points among `ids`, in any order; `fields` limits the payload."""

    async def page(
        self, collection: str, only: Filter, *, limit: int, after: str | None = None
    ) -> tuple[list[StoredPoint], str | None]:
        """Return a page of matching points, ordered by id, and the next page's `after` (None: the last page)."""

    async def upsert(self, collection: str, points: Sequence[NewPoint]) -> None:
        """Write points, replacing those with the same id."""

    async def set_payload(self, collection: str, only: Filter, payload: Payload) -> None:
        """Set these fields of all points that pass the filter, and leave other fields unchanged."""

    async def delete(self, collection: str, only: Filter) -> None:
        """Remove all points that pass the filter."""
