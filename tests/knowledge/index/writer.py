"""Writes, shows and deletes versions in a folder until it is killed; a line on stdout acknowledges each step."""

import asyncio
import sys
from itertools import count
from pathlib import Path

from knowledge.index import edge
from knowledge.index.collection import ensure_collection, next_collection
from knowledge.index.edge import open_edge
from knowledge.index.engine import Engine, NewPoint
from knowledge.index.filters import AtMost, Equals, Filter
from tests.knowledge.index.points import VECTORS, point

PASSAGES = 40
KEPT = 10
"""Versions that stay; older ones are deleted."""


def of_version(version: int) -> Filter:
    return Filter(must=(Equals("document_id", f"d{version}"), Equals("tenant", "hanbit")))


def shown(version: int) -> Filter:
    return of_version(version).narrowed(AtMost("visible_from", 1.0))


def points_of(version: int) -> list[NewPoint]:
    """Return the points of a version, as a draft."""
    numbers = range(version * PASSAGES, (version + 1) * PASSAGES)
    return [point(n, document_id=f"d{version}", text=f"문단 {n}", visible_from=None) for n in numbers]


def acknowledge(step: str, version: int) -> None:
    sys.stdout.write(f"{step} {version}\n")
    sys.stdout.flush()


async def reindex(engine: Engine) -> None:
    """Fill the next collection of a second alias, switch it, and drop the former one."""
    former = await engine.alias_target("beside")
    filled = await next_collection(engine, alias="beside", vectors=VECTORS)
    await engine.upsert(filled, points_of(0))
    await engine.point_alias("beside", filled)
    if former is not None:
        await engine.drop(former)


async def main(folder: Path) -> None:
    async with open_edge(folder, read_timeout=10, write_timeout=10) as engine:
        name = await ensure_collection(engine, alias="kb", vectors=VECTORS)
        for version in count():
            await engine.upsert(name, points_of(version))
            acknowledge("written", version)
            await engine.set_payload(name, of_version(version), {"visible_from": 1.0})
            acknowledge("shown", version)
            if version >= KEPT:
                await engine.delete(name, of_version(version - KEPT))
                acknowledge("deleted", version - KEPT)
            if version % 3 == 0:
                await reindex(engine)


if __name__ == "__main__":
    edge._FLUSH_SECONDS = 0.05  # so that kills come during a flush too
    asyncio.run(main(Path(sys.argv[1])))
