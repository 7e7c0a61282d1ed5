"""The points of an embedded index that no process holds."""

from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge

Points = dict[str, tuple[object, ...]]


def points_in(data: Path) -> Points:
    """Return every point by its id, without when it may be read: that is the clock's."""
    points: Points = {}
    for record in _records(data):
        vectors: Any = record.vector
        # A field that is null is one that is missing, to every filter; a window that is written again writes nulls.
        fields = (record.payload or {}).items()
        payload = {name: value for name, value in fields if not name.startswith("visible_") and value is not None}
        # Texts that are embedded together change each other's last digits, and batches differ from run to run.
        dense = [pytest.approx(value, abs=5e-3) for value in vectors["dense"]]
        terms = dict(zip(vectors["terms"].indices, vectors["terms"].values, strict=True))
        points[str(record.id)] = (payload, terms, dense)
    return points


def starts_of(data: Path, document_id: str, version: int) -> set[object]:
    """Return the instants from which the points of a version may be read."""
    payloads = [record.payload or {} for record in _records(data)]
    return {p["visible_from"] for p in payloads if (p["document_id"], p["version"]) == (document_id, version)}


def windows_in(data: Path) -> dict[str, tuple[int, int]]:
    """Return for each document how many of its points readers may see, now or later, and how many are drafts."""
    if not (data / "qdrant" / "kb-1" / "shard").exists():
        return {}
    starts: dict[str, list[bool]] = {}
    for record in _records(data):
        payload = record.payload or {}
        starts.setdefault(str(payload["document_id"]), []).append(payload.get("visible_from") is not None)
    return {document_id: (sum(shown), len(shown) - sum(shown)) for document_id, shown in starts.items()}


def _records(data: Path) -> list[edge.Record]:
    shard = edge.EdgeShard.load(str(data / "qdrant" / "kb-1" / "shard"))
    try:
        return shard.scroll(edge.ScrollRequest(limit=10_000, with_payload=True, with_vector=True))[0]
    finally:
        shard.close()
