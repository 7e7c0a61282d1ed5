"""Scoring terms by postings gives what the embedded client computes itself, to the last bit, and is what it uses."""

import numpy as np
import pytest
from qdrant_client.local.local_collection import LocalCollection
from qdrant_client.local.sparse_distances import calculate_distance_sparse
from qdrant_client.models import SparseVector

from knowledge.index.index import Index
from knowledge.index.postings import TermScores
from tests.knowledge.conftest import CUSTOMER, numbered


def drawn(rng: np.random.Generator, *, terms: int) -> SparseVector:
    indices = np.sort(rng.choice(np.arange(2**32 - 60, 2**32), terms, replace=False))  # the highest that a server takes
    return SparseVector(indices=indices.tolist(), values=rng.uniform(-2, 5, terms).tolist())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("empty_is_zero", [False, True])
def test_scores_are_the_clients_own(seed: int, *, empty_is_zero: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors = [drawn(rng, terms=int(rng.integers(0, 30))) for _ in range(int(rng.integers(0, 40)))]
    scores = TermScores()
    for terms in (0, 1, 8, 50):
        query = drawn(rng, terms=terms)
        found = scores(query, vectors, empty_is_zero)
        assert np.array_equal(found, calculate_distance_sparse(query, vectors, empty_is_zero))
        assert found.dtype == np.float32


def test_a_vector_that_changed_is_scored_anew() -> None:
    rng = np.random.default_rng(0)
    vectors = [drawn(rng, terms=20) for _ in range(5)]
    scores, query = TermScores(), drawn(rng, terms=30)
    scores(query, vectors)
    for changed in ([*vectors[:2], drawn(rng, terms=20), *vectors[3:]], vectors[:4], [*vectors, drawn(rng, terms=9)]):
        assert np.array_equal(scores(query, changed), calculate_distance_sparse(query, changed))


@pytest.mark.anyio
async def test_an_embedded_index_scores_by_postings(index: Index) -> None:
    await index.upsert(numbered("수수료 안내", "예금 금리"))
    await index.search("수수료", access=CUSTOMER, limit=3)
    scorer = LocalCollection.search.__globals__["calculate_distance_sparse"]
    assert isinstance(scorer, TermScores)
    assert len(scorer.postings.vectors) == 2
