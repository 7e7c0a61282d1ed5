"""From bytes to answers, read top to bottom: receive → parse → chunk → embed → upsert → verify → activate.

`receive` (its own file) leaves a stored original and a job. `take_in` is the job: it ends with a draft in the index,
which nobody but staff sees. `activate` is a second person's decision. Every step may be repeated after a crash: ids
follow from the document, and a version that was half written is written again as a whole.

Several documents are under way at once (`at_once`), each at a step of its own: while one is parsed others are embedded,
together and by like length (`knowledge.embedding`), and what is embedded is written while the next is.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import PurePath

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from ingest.catalogue import (
    ApprovalDecision,
    ChangedWindows,
    Indexed,
    IndexTold,
    Stage,
    State,
    Version,
    VersionKey,
    Window,
    is_late,
)
from ingest.errors import Suspicious, Unavailable
from ingest.parsing import Chunk, Parsed, Reason, Unreadable
from ingest.review import passage_findings
from ingest.services import Services
from knowledge.access import Access
from knowledge.passage import Passage, language_of
from telemetry.groups import first_failure

Report = Callable[[Stage, int, int], Awaitable[None]]
"""Told at each step: the stage, how much of it is done, of how much. It raises where the work is no longer ours."""
Write = Callable[[Version, Services, Report], Awaitable[Indexed]]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Passages that are ready to be written."""

    passages: Sequence[Passage]
    vectors: Sequence[Sequence[float]]


async def take_in(key: VersionKey, services: Services, report: Report, write: Write | None = None) -> Version:
    """Bring a received version into the index: as a draft, or, where it was rolled back to, as what answers.

    `write` stands for `write_draft` where the document was parsed and embedded elsewhere (`ingest.bulk.batch`).

    Raises:
        Unreadable: the file cannot become passages, or the index does not hold what was written.
        IndexUnavailable, CatalogueUnavailable: try again later.
    """
    version = await services.catalogue.version(key)
    if version.state not in (State.INDEXED, State.APPROVED, State.WITHDRAWN):  # else a crash came before its job's end
        version = await services.catalogue.indexed(key, await (write or write_draft)(version, services, report))
    if version.state is State.WITHDRAWN and version.visible_from is None:
        await services.index.delete(tenant=key.tenant, document_id=key.document_id, version=key.version)
    elif version.state is State.INDEXED and version.approved_by is not None:  # brought back: approved once already
        version = await activate(key, version.approved_by, services)
    return version


async def write_draft(version: Version, services: Services, report: Report) -> Indexed:
    """Go from the stored bytes to verified points in the index that nobody sees yet."""
    parsed = await parse(version, services, report)
    passages = await chunk(version, parsed, services, report)
    await embed_and_upsert(version.key, passages, services, report)
    await verify(version.key, passages, services, report)
    return indexed_as(parsed.format, passages)


def indexed_as(file_format: str, passages: Sequence[Passage]) -> Indexed:
    """Return what the catalogue keeps of an indexed version."""
    first = passages[0]
    return Indexed(format=file_format, title=first.title, language=first.language, passages=len(passages))


async def activate(key: VersionKey, approver: str, services: Services) -> Version:
    """Approve a draft: from its instant on it answers, and its predecessor no longer does.

    Raises:
        Suspicious, Unavailable: see `require_harmless`.
        Forbidden, WrongState: see `approve`.
    """
    await require_harmless(key, services)
    return await approve(key, ApprovalDecision(by=approver, at=services.now()), services)  # screening may take a minute


async def approve(key: VersionKey, decided: ApprovalDecision, services: Services) -> Version:
    """Approve a draft that was found harmless; decided a moment ago, so that it is written before it shows.

    Raises:
        Forbidden: the approver is the uploader.
        WrongState: see `ingest.timeline.activate`.
    """
    async with _measured(Stage.ACTIVATE, services):
        changed = await services.decisions.approve(key, decided)
        await tell_index(key, changed, services)
        version = await services.catalogue.version(key)
        await _require_readable(version, services)
    services.metrics.documents.labels(outcome="approved").inc()
    return version


async def tell_index(of: VersionKey, changed: ChangedWindows, services: Services) -> None:
    """Let the index follow a decision about a document's versions; every search after the return sees it."""
    await write_windows(of, changed.windows, services)
    for key in changed.dropped:
        await services.index.delete(tenant=key.tenant, document_id=key.document_id, version=key.version)


async def parse(version: Version, services: Services, report: Report) -> Parsed:
    """Read the original in the limited process."""
    async with _measured(Stage.PARSE, services):
        await report(Stage.PARSE, 0, 1)
        async with services.blobs.on_disk(version.sha256) as path:
            return await services.parser.parse(path)


async def chunk(version: Version, parsed: Parsed, services: Services, report: Report) -> list[Passage]:
    """Cut the document into passages that carry all that a search or a citation needs."""
    async with _measured(Stage.CHUNK, services):
        await report(Stage.CHUNK, 0, 1)
        chunks = await anyio.to_thread.run_sync(services.chunker.split, parsed)
        if not chunks:
            raise Unreadable(Reason.EMPTY_TEXT, "no text could be read from it")
        return passages_of(version, parsed, chunks)


async def embed_and_upsert(key: VersionKey, passages: Sequence[Passage], services: Services, report: Report) -> None:
    """Write all points of a version, as a draft; what an interrupted run left is cleared first."""
    await clear(key, services, report)
    send, receive = anyio.create_memory_object_stream[Embedded](1)
    with first_failure():
        async with anyio.create_task_group() as group:
            group.start_soon(_embed, passages, send, services)
            async with receive:
                await upsert(len(passages), receive, services, report)


async def clear(key: VersionKey, services: Services, report: Report) -> None:
    """Remove what an interrupted run left of a version."""
    if await services.index.count(tenant=key.tenant, document_id=key.document_id, version=key.version):
        await report(Stage.CHUNK, 1, 1)  # whoever stood still and lost the claim would remove what answers by now
        await services.index.delete(tenant=key.tenant, document_id=key.document_id, version=key.version)


async def _embed(passages: Sequence[Passage], send: MemoryObjectSendStream[Embedded], services: Services) -> None:
    async with send:
        for batch in _batches(passages, services.settings.batch):
            async with _measured(Stage.EMBED, services):
                vectors = await services.index.embed(batch)
            await send.send(Embedded(batch, vectors))


async def upsert(total: int, embedded: AsyncIterable[Embedded], services: Services, report: Report) -> None:
    """Write what was embedded, batch by batch, as it comes."""
    done = 0
    await report(Stage.EMBED, done, total)
    async for batch in embedded:
        await report(Stage.EMBED, done, total)  # embedding took long: whoever lost the claim would hide what answers
        async with _measured(Stage.UPSERT, services):
            await services.index.upsert(batch.passages, batch.vectors)
        done += len(batch.passages)
        services.metrics.passages.inc(len(batch.passages))
        await report(Stage.UPSERT if done == total else Stage.EMBED, done, total)


async def verify(key: VersionKey, passages: Sequence[Passage], services: Services, report: Report) -> None:
    """Read the index back: as many points as passages, and every passage says what was written."""
    async with _measured(Stage.VERIFY, services):
        await report(Stage.VERIFY, 0, 1)
        count = await services.index.count(tenant=key.tenant, document_id=key.document_id, version=key.version)
        if count != len(passages):
            raise Unreadable(Reason.NOT_INDEXED, f"the index holds {count} of {len(passages)} passages")
        unlike = await services.index.unlike(passages)
        if unlike:
            raise Unreadable(Reason.NOT_INDEXED, f"the index does not give back {unlike} of {len(passages)} passages")


async def write_windows(key: VersionKey, windows: Sequence[Window], services: Services) -> None:
    """Tell the index from when until when each version may be read, predecessors first.

    Both are written within the notice that an approval has, so a reader sees one version or the other; where too little
    of it is left, the last one begins later.
    """
    if windows and is_late(windows[-1].visible_from, now=services.now()):
        last = replace(key, version=windows[-1].version)
        moved = await services.decisions.begin_in_time(last, now=services.now())
        kept = [window for window in windows if window.version not in {one.version for one in moved}]
        windows = [*kept, *moved]
    for window in windows:
        await write_window(replace(key, version=window.version), window, services)


async def write_window(key: VersionKey, window: Window, services: Services) -> None:
    """Write a window, and the first day that goes with it, until the index has what the catalogue says.

    Somebody may decide anew meanwhile.
    """
    while True:
        said = (await services.catalogue.version(key)).metadata
        await services.index.set_first_day(
            tenant=key.tenant,
            document_id=key.document_id,
            version=key.version,
            effective_from=said.effective_from,
        )
        await services.index.set_visibility(
            tenant=key.tenant,
            document_id=key.document_id,
            version=key.version,
            visible_from=window.visible_from,
            visible_until=window.visible_until,
        )
        if await services.catalogue.window_written(key, window):
            return
        present = (await services.catalogue.version(key)).window
        if present is None:
            return
        window = present


async def finish_windows(services: Services) -> int:
    """Write the windows that a crash, or an index that was away, kept from the index; return how many there were."""
    for version in await services.catalogue.unwritten_windows():
        if version.told is IndexTold.NOTHING:
            await services.decisions.begin_in_time(version.key, now=services.now())
    unwritten = await services.catalogue.unwritten_windows()
    for version in unwritten:
        if version.window is not None:
            await write_window(version.key, version.window, services)
    return len(unwritten)


async def require_harmless(key: VersionKey, services: Services) -> None:
    """Refuse a draft with a passage that instructs the model; what was approved once is not looked at again.

    Raises:
        Suspicious: there is such a passage.
        Unavailable: too many look at documents at this moment, or the index has lost it.
    """
    version = await services.catalogue.version(key)
    if version.state is not State.INDEXED or version.approved_by is not None:
        return
    stored = await services.index.passages(tenant=key.tenant, document_id=key.document_id, version=key.version)
    if not stored:
        raise Unavailable("the index gives back none of its passages at this moment")
    found = await services.review_limiter.run(lambda: passage_findings(stored))
    blocking = next((one for one in found if one.blocks), None)
    if blocking is not None:
        raise Suspicious(
            f"passage {blocking.n} says {blocking.excerpt!r} ({blocking.name}): reject this version and load a text"
            " without it"
        )


async def _require_readable(version: Version, services: Services) -> None:
    """Read the version's first passage as one of its readers would at its first instant.

    By its name, not by a search: where many documents begin alike, a search may find the others.
    """
    at = version.visible_from
    if at is None or (version.visible_until is not None and version.visible_until <= at):
        return  # replaced before it ever showed
    readers = frozenset(version.metadata.readers)
    access = Access(tenant=version.key.tenant, groups=readers, as_of=at)
    key = version.key
    first = await services.index.passage(document_id=key.document_id, version=key.version, n=1, access=access)
    if readers and first is None:
        raise Unreadable(Reason.NOT_INDEXED, "its first passage cannot be read")


def passages_of(version: Version, parsed: Parsed, chunks: Sequence[Chunk]) -> list[Passage]:
    """Return a version's passages, numbered, with what was said about it and what the file says of itself."""
    said = version.metadata
    language = said.language or language_of("\n".join(chunk.text for chunk in chunks))
    return [
        Passage(
            tenant=version.key.tenant,
            document_id=version.key.document_id,
            version=version.key.version,
            n=n,
            title=said.title or parsed.title or PurePath(version.file_name).stem,
            section=chunk.section,
            page=chunk.page,
            text=chunk.text,
            language=language,
            product=said.product,
            readers=said.readers,
            effective_from=said.effective_from,
        )
        for n, chunk in enumerate(chunks, start=1)
    ]


def _batches(passages: Sequence[Passage], size: int) -> Iterator[Sequence[Passage]]:
    for start in range(0, len(passages), size):
        yield passages[start : start + size]


@asynccontextmanager
async def _measured(stage: Stage, services: Services) -> AsyncGenerator[None]:
    begun = time.perf_counter()
    try:
        yield
    finally:
        services.metrics.stage_seconds.labels(stage=stage.value).observe(time.perf_counter() - begun)
