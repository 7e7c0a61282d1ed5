"""Brings an index back, or a new one into being, from the catalogue and the originals alone.

`rebuild` writes again what the index lost. `reindex` fills the next collection with this process's embedder and cutting
while everybody reads the present one and writes to both, and switches the alias when nothing is missing; stopped and
started again it goes on where it was.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from ingest.catalogue import Stage, Version, VersionKey
from ingest.errors import NotFound, StorageUnavailable
from ingest.parsing import Unreadable
from ingest.pipeline import chunk, embed_and_upsert, parse, verify, write_draft, write_window
from ingest.services import Services
from knowledge.index import Index

Told = Callable[[VersionKey, int, int, str], None]
"""Told after each version: which, its number, of how many, and what became of it."""


@dataclass(slots=True)
class Tally:
    """What a run came to."""

    seen: int = 0
    written: int = 0
    failed: list[VersionKey] = field(default_factory=list)


async def rebuild(services: Services, told: Told) -> Tally:
    """Write every version again that the index does not hold as the catalogue says.

    Raises:
        IndexUnavailable, CatalogueUnavailable: see there.
    """
    return await _each(services, told, restore)


async def reindex(services: Services, told: Told) -> Tally:
    """Fill the next collection and let everybody read it; where a version fails, everybody stays with the present one.

    Raises:
        EmbedderMismatch: another embedder has begun to fill it.
        IndexUnavailable, CatalogueUnavailable: see there; start again.
    """
    filled = await services.index.beside()
    done: dict[VersionKey, int] = {}

    async def cut_anew(key: VersionKey, services: Services) -> bool:
        return await _cut_anew(key, services, filled, done)

    tally = await _each(services, told, cut_anew)
    while not tally.failed and (missed := await _each(services, told, cut_anew)).written:  # what came in meanwhile
        tally.written += missed.written
    if tally.failed:
        return tally
    await services.index.switch_to(filled)
    await _each(services, told, cut_anew)  # what began to be written before the next collection was there
    for key, passages in done.items():
        await services.catalogue.recounted(key, passages)
    return tally


async def restore(key: VersionKey, services: Services) -> bool:
    """Bring one version back into an index that lost it; return whether it had to be written.

    Raises:
        Unreadable: its original can no longer be read.
        StorageUnavailable: its original is gone.
    """
    version = await services.catalogue.version(key)
    count = await services.index.count(tenant=key.tenant, document_id=key.document_id, version=key.version)
    lost = count != version.passages or count == 0
    if lost:
        await write_draft(version, services, _ignore)
    await _write_present_window(version, services)
    return lost


async def _cut_anew(key: VersionKey, services: Services, filled: Index, done: dict[VersionKey, int]) -> bool:
    """Write one version as it is cut and embedded now into `filled`; return whether it had to be written."""
    version = await services.catalogue.version(key)
    written = False
    if key not in done:
        passages = await chunk(version, await parse(version, services, _ignore), services, _ignore)
        stored = await filled.passages(tenant=key.tenant, document_id=key.document_id, version=key.version)
        written = [passage.text for passage in stored] != [passage.text for passage in passages]
        if written:
            beside = replace(services, index=filled)
            await embed_and_upsert(key, passages, beside, _ignore)
            await verify(key, passages, beside, _ignore)
        done[key] = len(passages)
    await _write_present_window(version, services)
    return written


async def _write_present_window(version: Version, services: Services) -> None:
    if version.window is not None:
        await write_window(version.key, version.window, services)


async def _each(services: Services, told: Told, do: Callable[[VersionKey, Services], Awaitable[bool]]) -> Tally:
    keys = await services.catalogue.everything()
    tally = Tally(seen=len(keys))
    for n, key in enumerate(keys, start=1):
        try:
            written = await do(key, services)
        except (Unreadable, StorageUnavailable, NotFound) as exc:
            tally.failed.append(key)
            told(key, n, len(keys), exc.detail)
            continue
        tally.written += written
        told(key, n, len(keys), "written again" if written else "was there")
    return tally


async def _ignore(_stage: Stage, _done: int, _total: int) -> None:
    return
