"""Find, count and restore passages that the catalogue has and the index has lost.

An index that loses its volume restarts empty and still answers searches. One request per tenant counts the points of
each document; only documents with too few points have their versions counted one by one.
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
"""Documents expected in the index but not in SQL; with more, a document may be missing from the counts."""


async def compare_index(services: Services) -> Mapping[VersionKey, int]:
    """Compare the index with SQL; record, log and return the number of missing passages per version.

    Raises:
        IndexUnavailable, CatalogueUnavailable: one of them cannot be reached.
    """
    versions, now = await services.catalogue.indexed_versions(), services.now()
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
        for document_id, of_document in documents.items():
            if counts.get(document_id, 0) < sum(version.passages for version in of_document):
                nothing_there = document_id not in counts and len(counts) < limit
                missing |= await _missing_of(of_document, None if nothing_there else index)
    return missing


async def _missing_of(versions: Sequence[IndexedVersion], index: Index | None) -> Mapping[VersionKey, int]:
    """Return the versions of a document that lack passages; all of them if `index` is None."""
    missing = {}
    for version in versions:
        name = {"tenant": version.key.tenant, "document_id": version.key.document_id}
        held = 0 if index is None else await index.count(**name, version=version.key.version)
        if held < version.passages:
            missing[version.key] = version.passages - held
    return missing


async def restore_versions(keys: Iterable[VersionKey], services: Services, *, until: float) -> None:
    """Restore versions one by one until `until` (as of `services.now()`), after which none is started.

    Each worker uses a random order and counts a version's points before writing, so workers share the work.

    Raises:
        EmbedderMismatch: another embedder filled the index.
        IndexUnavailable, CatalogueUnavailable: one of them cannot be reached.
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
    """Restore one version that the index has lost; return whether it had to be written.

    Raises:
        Unreadable: its original can no longer be read.
        StorageUnavailable: its original is missing.
        OriginalChanged: its original's bytes differ from the approved ones.
    """
    version = await services.catalogue.version(key)
    count = await services.index.count(tenant=key.tenant, document_id=key.document_id, version=key.version)
    lost = count != version.passages or count == 0
    if lost:
        result = await write_draft(version, services, ignore_progress)
        await services.catalogue.set_passage_count(key, result.passages)
    await write_present_window(version, services.catalogue, services.index)
    return lost


async def write_present_window(version: Version, catalogue: Catalogue, index: Index) -> None:
    """Write a version's window from the catalogue to the index, if it has one."""
    if version.window is not None:
        await write_window(version.key, version.window, catalogue, index)


async def ignore_progress(_stage: Stage, _done: int, _total: int) -> None:
    """Discard a progress report."""
