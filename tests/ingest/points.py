"""The points of an embedded index that no process holds."""

from contextlib import closing
from pathlib import Path

import pytest
from qdrant_client import QdrantClient
from qdrant_client.models import Record

Points = dict[str, tuple[object, ...]]


def points_in(data: Path) -> Points:
    """Return every point by its id, without when it may be read: that is the clock's."""
    points: Points = {}
    for record in _records(data):
        vectors = record.vector
        assert isinstance(vectors, dict)
        payload = {name: value for name, value in (record.payload or {}).items() if not name.startswith("visible_")}
        # Texts that are embedded together change each other's last digits, and batches differ from run to run.
        dense = [pytest.approx(float(str(value)), abs=5e-3) for value in vectors["dense"]]
        points[str(record.id)] = (payload, vectors["terms"], dense)
    return points


def starts_of(data: Path, document_id: str, version: int) -> set[object]:
    """Return the instants from which the points of a version may be read."""
    payloads = [record.payload or {} for record in _records(data)]
    return {p["visible_from"] for p in payloads if (p["document_id"], p["version"]) == (document_id, version)}


def _records(data: Path) -> list[Record]:
    with closing(QdrantClient(path=str(data / "qdrant"))) as index:
        return index.scroll("kb", limit=10_000, with_vectors=True)[0]
