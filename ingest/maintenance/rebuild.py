"""Restore an index, or fill a new one, from the catalogue and the originals alone.

`rebuild` restores what the index lost. `reindex` fills the next collection with this process's embedder and chunker
while all services read the current one and write to both, then switches the alias when nothing is missing. If
interrupted, it continues when run again.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial

from ingest.catalogue import Catalogue, VersionKey
from ingest.errors import NotFound, OriginalChanged, StorageUnavailable
from ingest.lost_passages import compare_index, ignore_progress, restore, write_present_window
from ingest.parsing import Unreadable
from ingest.pipeline import passages_of, read, write_points
from ingest.services import Services
from knowledge.index import Index

ReportVersion = Callable[[VersionKey, int, int, str], None]
"""Called after each version with its key, its number, the total, and the result."""
Written = dict[tuple[VersionKey, bool], int]
"""Number of passages written per version and whether it was approved, since a draft may have screening marks."""


@dataclass(slots=True)
class Tally:
    """The counts of a run, and the versions that failed."""

    seen: int = 0
    written: int = 0
    failed: list[VersionKey] = field(default_factory=list)


async def rebuild(services: Services, report: ReportVersion) -> Tally:
    """Restore every version that differs between the index and the catalogue.

    Raises:
        IndexUnavailable, CatalogueUnavailable: run it again.
    """
    tally = await _each(services.catalogue, partial(restore, services=services), report)
    await compare_index(services)
    return tally


async def reindex(services: Services, report: ReportVersion) -> Tally:
    """Fill the next collection and switch all services to it; if a version fails, they keep the current one.

    Raises:
        EmbedderMismatch: another embedder has started to fill it.
        IndexUnavailable, CatalogueUnavailable: run it again.
    """
    filled = await services.index.next_index()
    done: Written = {}
    write = partial(_rewrite, services=services, filled=filled, done=done)
    tally = await _each(services.catalogue, write, report)
    # Versions uploaded during the run.
    while not tally.failed and (missed := await _each(services.catalogue, write, report)).written:
        tally.written += missed.written
    if tally.failed:
        return tally
    await services.index.switch_to(filled)
    await _each(services.catalogue, write, report)  # versions whose writing began before the next collection existed
    for (key, _), passages in done.items():
        await services.catalogue.set_passage_count(key, passages)
    await compare_index(services)
    return tally


async def _rewrite(key: VersionKey, services: Services, filled: Index, done: Written) -> bool:
    """Chunk and embed one version into `filled`; return whether it had to be written."""
    version = await services.catalogue.version(key)
    written = False
    as_it_is = key, version.approved_by is not None
    if as_it_is not in done:
        passages = passages_of(version, await read(version, services, ignore_progress))
        stored = await filled.passages(tenant=key.tenant, document_id=key.document_id, version=key.version)
        written = [passage.text for passage in stored] != [passage.text for passage in passages]
        if written:
            await write_points(key, passages, filled.embed, replace(services, index=filled), ignore_progress)
        done[as_it_is] = len(passages)
    await write_present_window(version, services.catalogue, services.index)
    return written


async def _each(catalogue: Catalogue, write: Callable[[VersionKey], Awaitable[bool]], report: ReportVersion) -> Tally:
    keys = [version.key for version in await catalogue.indexed_versions()]
    tally = Tally(seen=len(keys))
    for n, key in enumerate(keys, start=1):
        try:
            written = await write(key)
        except (Unreadable, OriginalChanged, StorageUnavailable, NotFound) as exc:
            tally.failed.append(key)
            report(key, n, len(keys), exc.detail)
            continue
        tally.written += written
        report(key, n, len(keys), "written again" if written else "was there")
    return tally
