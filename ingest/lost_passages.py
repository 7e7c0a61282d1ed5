"""Find, count and restore passages that the catalogue has and the index has lost.

An index that loses its volume restarts empty and still answers searches. One request per tenant counts the points of
each document; if a document has too few points, its versions are counted one by one.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import structlog

from ingest.catalogue import Catalogue, IndexedVersion, Stage, Version, VersionKey
from ingest.errors import NotFound, OriginalChanged, StorageUnavailable
from ingest.parsing import Unreadable
from ingest.pipeline import write_draft, write_window
from ingest.services import Services
from knowledge.index import Index
from knowledge.index_state import IndexState

log = structlog.get_logger(__name__)

_FOREIGN_DOCUMENTS = 100
"""Allowance for documents that the index has and SQL lacks; with more, `counts` may leave out a document."""


async def compare_index(services: Services) -> Mapping[VersionKey, int]:
    """Compare the index with SQL; record, log and return the number of missing passages per version."""
    versions = await services.catalogue.indexed_versions()
    now = services.now()
    missing = await _missing_passages(versions, services.index)
    state = IndexState(
        visible_passages=sum(v.passages for v in versions if v.visible_from is not None and v.visible_from <= now),
        missing_passages=sum(missing.values()),
        missing_versions=len(missing),
        compared_at=now,
    )
    await services.catalogue.record_index_state(state)
    services.metrics.missing_passages.set(state.missing_passages)
    services.metrics.index_compared.set(state.compared_at)
    if missing:
        log.error("passages_lost", passages=state.missing_passages, versions=len(missing))
    return missing


async def _missing_passages(versions: Sequence[IndexedVersion], index: Index) -> dict[VersionKey, int]:
    """Return the number of missing passages of each incomplete version.

    Extra points are ignored: they belong to versions that are being indexed.
    """
    tenants = defaultdict[str, dict[str, list[IndexedVersion]]](lambda: defaultdict(list))
    for version in versions:
        tenants[version.key.tenant][version.key.document_id].append(version)
    missing: dict[VersionKey, int] = {}
    for tenant, documents in tenants.items():
        limit = len(documents) + _FOREIGN_DOCUMENTS
        counts = await index.counts(tenant, limit=limit)
        for document_id, document_versions in documents.items():
            if counts.get(document_id, 0) >= sum(version.passages for version in document_versions):
                continue
            if document_id not in counts and len(counts) < limit:  # the counts are complete, so it has no points
                missing |= {version.key: version.passages for version in document_versions if version.passages}
            else:
                missing |= await _count_missing(document_versions, index)
    return missing


async def _count_missing(versions: Sequence[IndexedVersion], index: Index) -> Mapping[VersionKey, int]:
    missing = {}
    for version in versions:
        key = version.key
        count = await index.count(tenant=key.tenant, document_id=key.document_id, version=key.version)
        if count < version.passages:
            missing[key] = version.passages - count
    return missing


async def restore_versions(keys: Iterable[VersionKey], services: Services, *, until: float) -> None:
    """Restore versions one by one, until the instant `until` (Unix seconds).

    Workers share the work, because each uses a random order and skips versions that are complete. Raises
    EmbedderMismatch if another embedder filled the index.
    """
    await services.index.require_current()
    shuffled = list(keys)
    random.shuffle(shuffled)
    for key in shuffled:
        if services.now() >= until:
            break
        name = {"document_id": key.document_id, "version": key.version}
        try:
            if await restore(key, services):
                log.info("version_restored", **name)
        except (Unreadable, OriginalChanged, StorageUnavailable, NotFound) as exc:
            log.error("version_restore_failed", detail=exc.detail, **name)  # noqa: TRY400  the detail is enough


async def restore(key: VersionKey, services: Services) -> bool:
    """Restore one version if the index has no passages of it, or too few or too many; return whether it was written.

    Raises:
        Unreadable: its original can no longer be parsed.
        StorageUnavailable: its original cannot be fetched.
        OriginalChanged: its original's bytes differ from the uploaded ones.
    """
    version = await services.catalogue.version(key)
    count = await services.index.count(tenant=key.tenant, document_id=key.document_id, version=key.version)
    is_incomplete = count != version.passages or count == 0
    if is_incomplete:
        result = await write_draft(version, services, ignore_progress)
        await services.catalogue.set_passage_count(key, result.passages)
    await write_current_window(version, services.catalogue, services.index)
    return is_incomplete


async def write_current_window(version: Version, catalogue: Catalogue, index: Index) -> None:
    """Write a version's window from the catalogue to the index, if it has one."""
    if version.window is not None:
        await write_window(version.key, version.window, catalogue, index)


async def ignore_progress(_stage: Stage, _done: int, _total: int) -> None:
    """Discard a progress report."""
