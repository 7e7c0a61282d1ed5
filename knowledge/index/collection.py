"""Collections: their names, the alias that points to the current one, and the embedder that filled each.

A re-index fills the next collection, while readers use the current one and writes go to both; then it switches the
alias in one call. Readers check the alias each second, and follow it. If another embedder filled the alias's
collection, they continue with the former one, which exists until the next re-index.
"""

import re

from knowledge.index.engine import EmbedderMismatch, Engine, Vectors


async def ensure_collection(engine: Engine, *, alias: str, vectors: Vectors, check: bool = True) -> str:
    """Return the collection that the alias points to; create both if the alias is missing.

    Raises:
        EmbedderMismatch: with `check`, another embedder filled the collection.
    """
    target = await engine.alias_target(alias)
    name = target or f"{alias}-1"
    await engine.create(name, vectors)
    if target is None:
        await engine.point_alias(alias, name)
    if check:
        await check_embedder(engine, name, vectors)
    return name


async def next_collection(engine: Engine, *, alias: str, vectors: Vectors) -> str:
    """Return the collection that a re-index fills, numbered after the current one; create it if it is missing."""
    current = await engine.alias_target(alias) or f"{alias}-0"
    number = int(current.rpartition("-")[2])
    name = f"{alias}-{number + 1}"
    await engine.create(name, vectors)
    await check_embedder(engine, name, vectors)
    return name


async def collections_of(engine: Engine, alias: str) -> dict[str, str | None]:
    """Return the former, current and next collections of the alias, each with its embedder."""
    names = sorted(name for name in await engine.collections() if re.fullmatch(rf"{re.escape(alias)}-\d+", name))
    return {name: (await engine.vectors_of(name)).embedder for name in names}


async def target_to_read(engine: Engine, *, alias: str, current: str | None, embedder: str) -> str | None:
    """Return the alias's collection if this embedder filled it, else the `current` one."""
    target = await engine.alias_target(alias)
    if target is None or target == current:
        return current
    is_ours = (await engine.vectors_of(target)).embedder == embedder
    return target if is_ours else current


async def check_alias(engine: Engine, *, alias: str, vectors: Vectors) -> None:
    """Raise EmbedderMismatch if another embedder filled the alias's collection."""
    target = await engine.alias_target(alias)
    if target is not None:
        await check_embedder(engine, target, vectors)


async def check_embedder(engine: Engine, name: str, vectors: Vectors) -> None:
    """Raise EmbedderMismatch if the collection has another embedder or other dimensions."""
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
