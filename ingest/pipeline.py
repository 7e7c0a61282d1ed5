"""From bytes to answers, read top to bottom: receive → read → embed → upsert → verify → activate.

`receive` (`ingest.uploads`) stores an original and a job. `index_version` is the job: it ends with a draft in the
index, which only staff see. `activate` is a second person's decision. Every step can be repeated after a crash: point
ids are derived from the document, and an incomplete version is written again from the start.

Several documents are processed at once (`at_once`): while one is read or written, others are embedded.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from ingest.catalogue import (
    ApprovalDecision,
    Catalogue,
    ChangedWindows,
    IndexingResult,
    Seen,
    Stage,
    State,
    Version,
    VersionKey,
    Window,
    WindowWritten,
    known_to_index,
    plain,
    replaced_by_unknown,
    starts_too_soon,
)
from ingest.errors import Suspicious, Unavailable
from ingest.parsing import ChunkedDocument, LeftOut, Reason, Unreadable
from ingest.review import passage_findings
from ingest.services import Services
from knowledge.index import Index
from knowledge.passage import Passage

Report = Callable[[Stage, int, int], Awaitable[None]]
"""Called at each step with the stage, the amount done and the total; raises ClaimLost if another worker has the job."""
Write = Callable[[Version, Services, Report], Awaitable[IndexingResult]]
Embed = Callable[[Sequence[Passage]], Awaitable[Sequence[Sequence[float]]]]
"""Returns the dense vectors of passages."""


async def index_version(key: VersionKey, services: Services, report: Report, write: Write | None = None) -> Version:
    """Index a received version: as a draft, or active at once if a rollback brought it back.

    `write` replaces `write_draft` if the document was parsed and embedded elsewhere (`ingest.bulk.batch`).

    Raises:
        Unreadable: the file cannot become passages, or the index does not hold the passages that were written.
        IndexUnavailable, CatalogueUnavailable: try again later.
    """
    version = await services.catalogue.version(key)
    # A process that died before its job ended may have indexed the version already.
    if version.state not in (State.INDEXED, State.APPROVED, State.WITHDRAWN):
        result = await (write or write_draft)(version, services, report)
        version = await services.catalogue.mark_indexed(key, result)
    if version.state is State.WITHDRAWN and version.visible_from is None:  # withdrawn during this job or before it
        await services.index.delete(tenant=key.tenant, document_id=key.document_id, version=key.version)
    elif version.state is State.INDEXED and version.approved_by is not None:  # a rollback: approved once already
        version = await activate(key, version.approved_by, services)
    return version


async def write_draft(version: Version, services: Services, report: Report) -> IndexingResult:
    """Turn the stored bytes into verified points of the index, which no customer sees yet."""
    document = await read(version, services, report)
    passages = passages_of(version, document)
    await write_points(version.key, passages, services.index.embed, services, report)
    return indexing_result(document.format, passages, document.left_out)


def indexing_result(file_format: str, passages: Sequence[Passage], left_out: Mapping[LeftOut, int]) -> IndexingResult:
    """Return the result that the catalogue stores for an indexed version."""
    first = passages[0]
    return IndexingResult(
        format=file_format,
        title=first.title,
        language=first.language,
        passages=len(passages),
        left_out={kind.value: count for kind, count in left_out.items()},
    )


async def activate(key: VersionKey, approver: str, services: Services, seen: Seen | None = None) -> Version:
    """Screen a draft and approve it; raises the errors of `require_harmless` and `approve`."""
    await require_harmless(key, services)
    decision = ApprovalDecision(by=approver, at=services.now())  # the time after screening, which may take a minute
    return await approve(key, decision, services, seen)


async def approve(key: VersionKey, decision: ApprovalDecision, services: Services, seen: Seen | None = None) -> Version:
    """Approve a draft that was screened; raises the errors of `ingest.catalogue.Approvals.approve`.

    The version begins to answer two seconds after the decision's time, at the earliest. The decision must be recent,
    because the index is written within these two seconds. `seen` holds the dates and the title that the approver was
    shown, if known.
    """
    with services.metrics.timed(Stage.ACTIVATE):
        changed = await services.approvals.approve(key, decision, seen=seen)
        await update_index(key, changed, services)
        version = await services.catalogue.version(key)
    services.metrics.documents.labels(outcome="approved").inc()
    return version


async def update_index(document: VersionKey, changed: ChangedWindows, services: Services) -> None:
    """Write the changes of a decision to the index; later searches see them. `document` is the key of any version."""
    await write_windows(document, changed.windows, services)
    for key in changed.dropped:
        await services.index.delete(tenant=key.tenant, document_id=key.document_id, version=key.version)


async def read(version: Version, services: Services, report: Report) -> ChunkedDocument:
    """Read the original and cut it into passages, in the parser's sandboxed process."""
    with services.metrics.timed(Stage.PARSE):
        await report(Stage.PARSE, 0, 1)
        async with services.blobs.on_disk(version.sha256) as path:
            return await services.parser.chunk(path, services.chunking)


async def write_points(
    key: VersionKey, passages: Sequence[Passage], embed: Embed, services: Services, report: Report
) -> None:
    """Embed and write all points of a version, and read them back; the points of an interrupted run are deleted first.

    `report` also checks the job's claim before each write, because a worker that was suspended may have lost the job,
    and would delete or hide passages that answer. Raises Unreadable if the index then holds other points than those of
    the passages.
    """
    index, metrics, total = services.index, services.metrics, len(passages)
    if await index.count(tenant=key.tenant, document_id=key.document_id, version=key.version):
        await report(Stage.EMBED, 0, 1)
        await index.delete(tenant=key.tenant, document_id=key.document_id, version=key.version)
    await report(Stage.EMBED, 0, total)
    for done in range(0, total, services.settings.batch):
        batch = passages[done : done + services.settings.batch]
        with metrics.timed(Stage.EMBED):
            vectors = await embed(batch)
        await report(Stage.EMBED, done, total)
        with metrics.timed(Stage.UPSERT):
            await index.upsert(batch, vectors)
        metrics.passages.inc(len(batch))
    await report(Stage.UPSERT, total, total)
    with metrics.timed(Stage.VERIFY):
        await report(Stage.VERIFY, 0, 1)
        await _verify(key, passages, index)


async def _verify(key: VersionKey, passages: Sequence[Passage], index: Index) -> None:
    count = await index.count(tenant=key.tenant, document_id=key.document_id, version=key.version)
    if count != len(passages):
        raise Unreadable(Reason.NOT_INDEXED, f"the index holds {count} of {len(passages)} passages")
    differing = await index.count_differing(passages)
    if differing:
        raise Unreadable(Reason.NOT_INDEXED, f"the index does not give back {differing} of {len(passages)} passages")


async def write_windows(document: VersionKey, windows: Sequence[Window], services: Services) -> None:
    """Write the windows of a document's versions to the index, in their order.

    An approval takes effect after two seconds, in which all windows are written. If too little of this time is
    left, the version that begins last is postponed. If the writes take longer than the time left, two versions answer
    for a moment, and searches return the newer one.
    """
    latest = max(windows, key=lambda window: window.visible_from, default=None)
    if latest is not None and starts_too_soon(latest.visible_from, now=services.now()):
        latest_key = replace(document, version=latest.version)
        postponed = await services.approvals.postpone_late_start(latest_key, now=services.now())
        postponed_versions = {window.version for window in postponed}
        windows = [*postponed, *(window for window in windows if window.version not in postponed_versions)]
    for window in windows:
        await write_window(replace(document, version=window.version), window, services.catalogue, services.index)


async def write_window(key: VersionKey, window: Window, catalogue: Catalogue, index: Index) -> None:
    """Write a version's window and first day to the index; repeat this if another decision changes them in between."""
    while True:
        metadata = (await catalogue.version(key)).metadata
        await index.set_first_day(
            tenant=key.tenant, document_id=key.document_id, version=key.version, effective_from=metadata.effective_from
        )
        await index.set_visibility(
            tenant=key.tenant,
            document_id=key.document_id,
            version=key.version,
            visible_from=window.visible_from,
            visible_until=window.visible_until,
        )
        if await catalogue.confirm_window(key, window):
            return
        current_window = (await catalogue.version(key)).window
        if current_window is None:
            return
        window = current_window


async def write_pending_windows(services: Services) -> int:
    """Write the windows that the index may lack after a crash or an outage; return their number."""
    for version in await services.catalogue.unwritten_windows():
        if version.window_written is WindowWritten.NOTHING:
            await services.approvals.postpone_late_start(version.key, now=services.now())
    unwritten = await services.catalogue.unwritten_windows()
    for version in replaced_by_unknown(unwritten, now=services.now()):
        # Leave the end open until the successor's start is written, so that a version answers at any time.
        await services.index.set_visibility(
            tenant=version.key.tenant,
            document_id=version.key.document_id,
            version=version.key.version,
            visible_from=version.visible_from,
            visible_until=None,
        )
    for version in sorted(unwritten, key=known_to_index):
        if version.window is not None:
            await write_window(version.key, version.window, services.catalogue, services.index)
    return len(unwritten)


async def require_harmless(key: VersionKey, services: Services) -> None:
    """Refuse a draft with a finding that blocks; a version that is not a draft, or was approved once, is not screened.

    Raises:
        Suspicious: a passage instructs the model, or may differ from what the document's page shows.
        Unavailable: too many reviews are in progress, or the index lacks its passages.
    """
    version = await services.catalogue.version(key)
    if version.state is not State.INDEXED or version.approved_by is not None:
        return
    stored = await services.index.passages(tenant=key.tenant, document_id=key.document_id, version=key.version)
    if not stored:
        raise Unavailable("the index has none of its passages: try again when it has been restored")
    findings = await services.review_limiter.run(lambda check: passage_findings(stored, check))
    blocking = next((finding for finding in findings if finding.blocks), None)
    if blocking is not None:
        raise Suspicious(
            f"passage {blocking.n} says {blocking.excerpt!r} ({blocking.name}): reject this version and load a text"
            " without it"
        )


def passages_of(version: Version, document: ChunkedDocument) -> list[Passage]:
    """Return a version's passages, numbered from 1, with its metadata and window.

    Title and language default to those in the file, and the title then to the file's name. A draft has no window. A
    version that is restored after a loss of the index has its window on each point from the first write, so that a
    crash between two writes hides no passage.
    """
    metadata = version.metadata
    language = metadata.language or document.language
    return [
        Passage(
            tenant=version.key.tenant,
            document_id=version.key.document_id,
            version=version.key.version,
            n=n,
            title=metadata.title or plain(document.title or "").strip() or PurePath(version.file_name).stem,
            section=chunk.section,
            page=chunk.page,
            text=chunk.text,
            language=language,
            product=metadata.product,
            link=metadata.link,
            readers=metadata.readers,
            effective_from=metadata.effective_from,
            visible_from=version.visible_from,
            visible_until=version.visible_until,
        )
        for n, chunk in enumerate(document.chunks, start=1)
    ]
