"""Open the components of the staff side in order, in one exit stack, and yield the frozen `Services`."""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from zoneinfo import ZoneInfo

import anyio
from sqlalchemy.ext.asyncio import AsyncEngine

from edge.sign_in import SignIn, open_sign_in
from ingest.catalogue import Approvals, Catalogue
from ingest.jobs import JobClaims
from ingest.metrics import Metrics
from ingest.parsing import Chunking, ParserSettings, Readers, open_parser, open_readers, require_tokenizer
from ingest.pipeline import write_pending_windows
from ingest.review import CpuLimiter
from ingest.services import Services
from ingest.settings import Settings
from ingest.uploads import Uploads, open_blobs
from ingest.worker import Worker
from knowledge.bank import read_banks
from knowledge.embedding import open_embedder, read_model_config
from knowledge.identity import Authenticator, open_authenticator
from knowledge.index import Index, IndexUnavailable, open_index
from knowledge.passage import instant
from knowledge.service_keys import open_service_keys
from knowledge.storage import close_engine, open_clock, open_engine
from knowledge.terms import Terms
from knowledge.tls import check_connections
from telemetry.groups import first_failure
from telemetry.ocsf import Code
from telemetry.siem import open_siem

MOST_DOWNLOADS = 4  # concurrent downloads of originals by staff; each needs a copy on disk
MOST_EMBED_WORKERS = 4  # embedding threads when the machine has no other work; each additional one takes 110 MB


@asynccontextmanager
async def open_services(
    settings: Settings,
    *,
    index: Index | None = None,
    engine: AsyncEngine | None = None,
    parser: Readers | None = None,
    with_worker: bool = True,
    any_embedder: bool = False,
) -> AsyncGenerator[Services]:
    """Open the services; pass `index`, `engine` and `parser` if the process shares them with other services.

    With `with_worker` this process also indexes uploads while the block runs; without it (`ingest load`) the caller
    runs the jobs and embeds on up to MOST_EMBED_WORKERS cores. `any_embedder` skips the check that this process's
    embedder filled the live collection (for a re-index).
    """
    async with AsyncExitStack() as stack:
        await check_connections(settings.connections)
        chunking = await _chunking(settings)
        if parser is None:
            parser = await stack.enter_async_context(_start_readers(settings.parser))
        if engine is None:
            engine = open_engine(settings.database, settings.database_tls)
            stack.push_async_callback(close_engine, engine)
        if index is None:
            index = await stack.enter_async_context(
                _open_passage_index(settings, with_worker=with_worker, any_embedder=any_embedder)
            )
        metrics = Metrics()
        metrics.set_restrictions(await parser.restrictions())
        previewer = await stack.enter_async_context(open_parser(settings.parser.of_one_page()))
        catalogue = Catalogue(engine)
        await catalogue.create_tables()
        stack.enter_context(first_failure())
        now = partial(_now, await stack.enter_async_context(open_clock(engine, metrics.task_failed)))
        authenticator, sign_in = await stack.enter_async_context(_open_identity(settings, engine, now, metrics))
        siem = stack.enter_context(open_siem("ingest", settings.traces, tls=settings.traces_tls.context(), now=now))
        blobs = open_blobs(
            settings.blobs, on_changed=lambda digest: siem.emit(Code.ORIGINAL_CHANGED, about=f"sha256:{digest}")
        )
        services = Services(
            settings=settings.pipeline,
            authenticator=authenticator,
            approvals=Approvals(catalogue, ZoneInfo(settings.pipeline.zone)),
            blobs=blobs,
            catalogue=catalogue,
            chunking=chunking,
            downloads=anyio.Semaphore(MOST_DOWNLOADS),
            index=index,
            job_claims=JobClaims(catalogue),
            metrics=metrics,
            now=now,
            parser=parser,
            previewer=previewer,
            review_limiter=CpuLimiter(),
            siem=siem,
            sign_in=sign_in,
            uploads=Uploads(blobs, catalogue, now=now),
        )
        # Entered last and so exited first: jobs must end before the components they use.
        tasks = await stack.enter_async_context(anyio.create_task_group())
        # Before the first search: after a crash, the index may have a version's end without its successor's start.
        with suppress(IndexUnavailable):  # the worker's sweep retries it
            await write_pending_windows(services)
        if with_worker:
            tasks.start_soon(Worker(services).run)
        yield services
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def _open_identity(
    settings: Settings, engine: AsyncEngine, now: Callable[[], float], metrics: Metrics
) -> AsyncGenerator[tuple[Authenticator | None, SignIn | None]]:
    """Yield the authenticator of tokens and service keys, and the sign-in sessions.

    Both are None without an issuer; the sessions are None if another setting that `serve` requires is missing.
    """
    if settings.auth is None:
        yield None, None
        return
    async with (
        open_service_keys(engine, now=now, on_failure=metrics.task_failed) as keys,
        open_authenticator(
            settings.auth, now=now, principal_of_key=keys.principal, tls=settings.auth_tls
        ) as authenticator,
        AsyncExitStack() as stack,
    ):
        sign_in = None
        if settings.oidc is not None and settings.redis_url is not None and settings.bank_file is not None:
            banks = await anyio.to_thread.run_sync(read_banks, settings.bank_file)
            redis_url = settings.redis_url.get_secret_value()
            opened = open_sign_in(settings.oidc, redis_url, authenticator, banks, now=now, redis_tls=settings.redis_tls)
            sign_in = await stack.enter_async_context(opened)
        yield authenticator, sign_in


def _now(clock: Callable[[], float]) -> float:
    """Return the current time, rounded as the index stores it, so that SQL and the index have equal instants."""
    return instant(clock())


async def _chunking(settings: Settings) -> Chunking:
    """Return the chunking: token counts by the embedder's tokenizer, and its maximum length."""
    await anyio.to_thread.run_sync(require_tokenizer, settings.tokenizer_folder)
    config = await anyio.to_thread.run_sync(read_model_config, settings.embedder)
    return settings.chunks.chunking(settings.tokenizer_folder, max_tokens=config.max_tokens)


@asynccontextmanager
async def _start_readers(settings: ParserSettings) -> AsyncGenerator[Readers]:
    """Open the readers and start the first one, which loads its parsers while this process loads its models."""
    async with open_readers(settings) as readers:
        await readers.start()
        yield readers


@asynccontextmanager
async def _open_passage_index(settings: Settings, *, with_worker: bool, any_embedder: bool) -> AsyncGenerator[Index]:
    workers = 1 if with_worker else min(len(os.sched_getaffinity(0)), MOST_EMBED_WORKERS)
    terms = await anyio.to_thread.run_sync(Terms)
    async with (
        open_embedder(settings.embedder.model_copy(update={"workers": workers})) as embedder,
        open_index(
            settings.index,
            embedder,
            terms,
            check=not any_embedder,
            retry_start=with_worker and settings.qdrant_url is not None,
        ) as index,
    ):
        yield index
