"""Points of the conformance suite; the process that is killed imports nothing else of the tests."""

import math
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from knowledge.index.engine import NewPoint, Vectors
from knowledge.terms import SparseTerms

VECTORS = Vectors("e5-small", 4)


def point_id(n: int) -> str:
    return str(uuid5(NAMESPACE_URL, str(n)))


def point(
    n: int, *, terms: dict[int, float] | None = None, dense: list[float] | None = None, **payload: Any
) -> NewPoint:
    """Return a point; its vector turns away from (1, 0, 0, 0) as n grows."""
    held = {n: 1.0} if terms is None else dict(sorted(terms.items()))
    angle = min(n, 500) * 0.003
    return NewPoint(
        id=point_id(n),
        dense=dense or [math.cos(angle), math.sin(angle), 0.0, 0.0],
        terms=SparseTerms(tuple(held), tuple(held.values())),
        payload={"tenant": "hanbit", "n": n, **payload},
    )
