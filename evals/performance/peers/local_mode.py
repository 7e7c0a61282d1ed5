"""The index as it was embedded until release 0.1: the Python client's local mode, asked what a search of ours asks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qdrant_client import AsyncQdrantClient, models

from knowledge.access import Access
from knowledge.index import IndexSettings
from knowledge.passage import LANGUAGES
from knowledge.terms import SparseTerms

COLLECTION = "kb"
CANDIDATES = IndexSettings(path=Path()).fusion.candidates


class LocalMode:
    """Writes and searches a folder; everything is held in memory and computed in Python."""

    def __init__(self, folder: Path) -> None:
        self._client = AsyncQdrantClient(path=str(folder))

    async def create(self, dimensions: int) -> None:
        await self._client.create_collection(
            COLLECTION,
            vectors_config={"dense": models.VectorParams(size=dimensions, distance=models.Distance.COSINE)},
            sparse_vectors_config={"terms": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )

    async def upsert(
        self, ids: Sequence[str], vectors: Sequence[list[float]], terms: Sequence[SparseTerms], payloads: Sequence[Any]
    ) -> None:
        points = [
            models.PointStruct(id=id_, vector={"dense": vector, "terms": _sparse(own)}, payload=payload)
            for id_, vector, own, payload in zip(ids, vectors, terms, payloads, strict=True)
        ]
        await self._client.upsert(COLLECTION, points)

    async def search(self, vector: list[float], terms: SparseTerms, access: Access) -> int:
        """Ask both halves and read the payload of the first twenty; return how many there are."""
        visible = _visible(access)
        requests = [
            models.QueryRequest(query=vector, using="dense", filter=_and(language, visible), limit=CANDIDATES)
            for language in LANGUAGES
        ]
        requests.append(models.QueryRequest(query=_sparse(terms), using="terms", filter=visible, limit=CANDIDATES))
        answers = await self._client.query_batch_points(COLLECTION, requests)
        best = [point.id for answer in answers for point in answer.points][:20]
        return len(await self._client.retrieve(COLLECTION, best, with_payload=True, with_vectors=["dense"]))

    async def aclose(self) -> None:
        await self._client.close()


def _sparse(terms: SparseTerms) -> models.SparseVector:
    return models.SparseVector(indices=list(terms.indices), values=list(terms.values))


def _and(language: str, visible: models.Filter) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="language", match=models.MatchValue(value=language)), visible])


def _visible(access: Access) -> models.Filter:
    return models.Filter(
        must=[
            models.FieldCondition(key="tenant", match=models.MatchValue(value=access.tenant)),
            models.FieldCondition(key="readers", match=models.MatchAny(any=sorted(access.groups))),
            models.FieldCondition(key="visible_from", range=models.Range(lte=access.as_of)),
        ],
        should=[
            models.IsEmptyCondition(is_empty=models.PayloadField(key="visible_until")),
            models.FieldCondition(key="visible_until", range=models.Range(gt=access.as_of)),
        ],
    )
