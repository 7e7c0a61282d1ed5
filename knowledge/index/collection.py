"""The collection: what it is called, what it holds, and which embedder filled it.

A re-index fills the next collection while readers use the present one and writes go to both, and switches the alias in
one call. Readers look at the alias each second and follow it, unless another embedder than theirs filled what it stands
for: they stay with what they can read, which is kept until the re-index after.
"""

import re

from knowledge.index.engine import EmbedderMismatch, Engine, Vectors


async def ensure_collection(engine: Engine, *, alias: str, vectors: Vectors, check: bool = True) -> str:
    """Return the collection behind the alias, made when there is none.

    Raises:
        EmbedderMismatch: with `check`, another embedder filled it.
    """
    behind = await engine.behind(alias)
    name = behind or f"{alias}-1"
    await engine.create(name, vectors)
    if behind is None:
        await engine.point_alias(alias, name)
    if check:
        await check_embedder(engine, name, vectors)
    return name


async def next_collection(engine: Engine, *, alias: str, vectors: Vectors) -> str:
    """Return the collection after the alias's, made when there is none: what a re-index fills."""
    behind = await engine.behind(alias) or f"{alias}-0"
    name = f"{alias}-{int(behind.rpartition('-')[2]) + 1}"
    await engine.create(name, vectors)
    await check_embedder(engine, name, vectors)
    return name


async def collections_of(engine: Engine, alias: str) -> dict[str, str | None]:
    """Return the alias's collections, present, former and next ones, each with the embedder that fills it."""
    names = sorted(name for name in await engine.collections() if re.fullmatch(rf"{re.escape(alias)}-\d+", name))
    return {name: (await engine.vectors_of(name)).embedder for name in names}


async def followed(engine: Engine, *, alias: str, present: str | None, embedder: str) -> str | None:
    """Return the collection to read: the alias's, unless another embedder filled it; then the present one."""
    behind = await engine.behind(alias)
    if behind is None or behind == present:
        return present
    return behind if (await engine.vectors_of(behind)).embedder == embedder else present


async def check_behind(engine: Engine, *, alias: str, vectors: Vectors) -> None:
    """Raise EmbedderMismatch where another embedder filled the collection behind the alias."""
    behind = await engine.behind(alias)
    if behind is not None:
        await check_embedder(engine, behind, vectors)


async def check_embedder(engine: Engine, name: str, vectors: Vectors) -> None:
    """Raise EmbedderMismatch unless the collection holds such vectors."""
    stored = await engine.vectors_of(name)
    if stored.embedder != vectors.embedder:
        raise EmbedderMismatch(
            f"collection {name} holds vectors of {stored.embedder or 'an unnamed embedder'}, this process embeds with "
            f"{vectors.embedder}: use the recorded embedder, or fill a new collection with `ingest reindex`"
        )
    if stored.dimensions != vectors.dimensions:
        raise EmbedderMismatch(
            f"collection {name} holds {stored.dimensions} dimensions, {vectors.embedder} gives {vectors.dimensions}"
        )
