"""Writes, shows and deletes versions in a folder until it is killed; a line on stdout acknowledges each step."""

import asyncio
import sys
from itertools import count
from pathlib import Path

from knowledge.index.collection import ensure_collection
from knowledge.index.edge import open_edge
from knowledge.index.filters import AtMost, Equals, Filter
from tests.knowledge.index.points import VECTORS, point

PASSAGES = 40
KEPT = 10
"""Versions that stay; older ones are deleted."""


def of_version(version: int) -> Filter:
    return Filter(must=(Equals("document_id", f"d{version}"), Equals("tenant", "hanbit")))


def shown(version: int) -> Filter:
    return of_version(version).narrowed(AtMost("visible_from", 1.0))


def acknowledge(step: str, version: int) -> None:
    sys.stdout.write(f"{step} {version}\n")
    sys.stdout.flush()


async def main(folder: Path) -> None:
    async with open_edge(folder, read_timeout=10, write_timeout=10) as engine:
        name = await ensure_collection(engine, alias="kb", vectors=VECTORS)
        for version in count():
            first = version * PASSAGES
            points = [point(n, document_id=f"d{version}", visible_from=None) for n in range(first, first + PASSAGES)]
            await engine.upsert(name, points)
            acknowledge("written", version)
            await engine.set_payload(name, of_version(version), {"visible_from": 1.0})
            acknowledge("shown", version)
            if version >= KEPT:
                await engine.delete(name, of_version(version - KEPT))
                acknowledge("deleted", version - KEPT)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
