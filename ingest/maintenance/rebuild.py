"""Restore an index, or fill a new one, from the catalogue and the originals alone.

`rebuild` restores lost passages. `reindex` fills the next collection with this process's embedder and chunker while all
services read the current collection and write to both. When the next collection is complete, `reindex` switches the
alias to that collection. If interrupted, it continues when run again.

Both raise IndexUnavailable or CatalogueUnavailable, after which they can be run again.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial

from ingest.catalogue import Catalogue, VersionKey
from ingest.errors import NotFound, OriginalChanged, StorageUnavailable
from ingest.lost_passages import compare_index, ignore_progress, restore, write_current_window
from ingest.parsing import Unreadable
from ingest.pipeline import passages_of, read, write_points
from ingest.services import Services
from knowledge.index import Index

ReportVersion = Callable[[VersionKey, int, int, str], None]
"""Called after each version with its key, its number, the total, and the result."""
PassageCounts = dict[tuple[VersionKey, bool], int]
"""The number of passages of each finished version.

The key also has whether the version was approved when it was read; a version approved later is read again.
"""


@dataclass(slots=True)
class Tally:
    """The number of versions of a run, how many of them were written, and which failed."""

    total: int = 0
    written: int = 0
    failed: list[VersionKey] = field(default_factory=list)


async def rebuild(services: Services, report: ReportVersion) -> Tally:
    """Restore every version that differs between the index and the catalogue."""
    tally = await _write_each(services.catalogue, partial(restore, services=services), report)
    await compare_index(services)
    return tally


async def reindex(services: Services, report: ReportVersion) -> Tally:
    """Fill the next collection and switch all services to it; if a version fails, they keep the current collection.

    Raises EmbedderMismatch if another embedder has started to fill the next collection.
    """
    new_index = await services.index.next_index()
    done: PassageCounts = {}
    write = partial(_rewrite, services=services, new_index=new_index, done=done)
    tally = await _write_each(services.catalogue, write, report)
    is_complete = False
    while not tally.failed and not is_complete:  # versions may have been uploaded during the previous pass
        added = await _write_each(services.catalogue, write, report)
        tally.written += added.written
        tally.failed += added.failed
        is_complete = added.written == 0
    if tally.failed:
        return tally
    await services.index.switch_to(new_index)
    # Write the versions that a worker began to write before the next collection existed.
    await _write_each(services.catalogue, write, report)
    for (key, _), passages in done.items():
        await services.catalogue.set_passage_count(key, passages)
    await compare_index(services)
    return tally


async def _rewrite(key: VersionKey, services: Services, new_index: Index, done: PassageCounts) -> bool:
    """Chunk and embed one version into the new index, unless it has the same passages; return whether it was written.

    Also write its window.
    """
    version = await services.catalogue.version(key)
    is_written = False
    done_key = (key, version.approved_by is not None)
    if done_key not in done:
        passages = passages_of(version, await read(version, services, ignore_progress))
        stored = await new_index.passages(tenant=key.tenant, document_id=key.document_id, version=key.version)
        is_written = [passage.text for passage in stored] != [passage.text for passage in passages]
        if is_written:
            await write_points(key, passages, new_index.embed, replace(services, index=new_index), ignore_progress)
        done[done_key] = len(passages)
    await write_current_window(version, services.catalogue, services.index)
    return is_written


async def _write_each(
    catalogue: Catalogue, write: Callable[[VersionKey], Awaitable[bool]], report: ReportVersion
) -> Tally:
    """Call `write`, which returns whether it had to write, for each version; count and report the results."""
    keys = [version.key for version in await catalogue.indexed_versions()]
    tally = Tally(total=len(keys))
    for number, key in enumerate(keys, start=1):
        try:
            is_written = await write(key)
        except (Unreadable, OriginalChanged, StorageUnavailable, NotFound) as exc:
            tally.failed.append(key)
            report(key, number, len(keys), exc.detail)
            continue
        tally.written += is_written
        report(key, number, len(keys), "written again" if is_written else "was there")
    return tally
