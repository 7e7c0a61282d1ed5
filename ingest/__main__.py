"""Load documents, serve the staff API, show the catalogue, and rebuild or renew the index."""

import getpass
import os
import signal
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from typing import Annotated, TypeVar
from zoneinfo import ZoneInfo

import anyio
import typer
import uvloop
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console

from edge import PortTaken, bind, listening, wrong_settings
from ingest.app import create_app
from ingest.bulk import (
    ApiRefused,
    BatchStopped,
    LoadDisplay,
    LoadOutcome,
    LoadRequest,
    LocalTarget,
    ManifestError,
    Source,
    Target,
    load,
    open_api,
    open_source,
    print_summary,
)
from ingest.catalogue import SCHEMA, Catalogue, Job, JobState, Version, VersionKey
from ingest.errors import CatalogueUnavailable, IngestError
from ingest.jobs import JobClaims
from ingest.maintenance import ReportVersion, TenantStatus, read_status, rebuild, reindex, show_status
from ingest.parsing import ParserUnavailable, WeightsMissing
from ingest.services import Services
from ingest.settings import Settings
from ingest.uploads import open_blobs
from ingest.wiring import open_services
from knowledge import withdrawals
from knowledge.bank import Banks, read_banks
from knowledge.command_line import AsJson, TenantOption, add_common_help, print_json
from knowledge.embedding import EmbeddingUnavailable, read_model_config
from knowledge.index import IndexInUse, IndexRefused, IndexUnavailable
from knowledge.storage import UNAVAILABLE, DatabaseMissing, migrate_database, open_engine, require_database
from knowledge.tls import TlsRefused
from telemetry.logs import configure_logs
from telemetry.setup import tracing

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

Tenant = Annotated[str, TenantOption]
RAY_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
"""Environment variables without which Ray would send usage statistics and draw its own progress bars."""

USER_FACING_ERRORS = (
    BatchStopped, DatabaseMissing, EmbeddingUnavailable, IndexRefused, ManifestError, ParserUnavailable, PortTaken,
    TlsRefused, WeightsMissing,
)  # fmt: skip
"""Errors whose message is printed as is."""


def settings_or_exit() -> Settings:
    """Return the settings, or exit after printing one line per invalid value."""
    try:
        return Settings()
    except (ValidationError, SettingsError) as exc:
        for line in wrong_settings(exc, Settings, os.environ):
            typer.echo(f"ingest: {line}", err=True)
        raise typer.Exit(2) from exc


def _usage(problem: str) -> typer.Exit:
    """Print a usage error; return the exit for the caller to raise."""
    typer.echo(f"ingest: {problem}", err=True)
    return typer.Exit(2)


def run_or_exit(work: Coroutine[object, object, T]) -> T:
    """Run the work; a known failure prints one sentence and exits with code 1, Ctrl-C with 130."""
    try:
        return uvloop.run(work)
    except KeyboardInterrupt:
        typer.echo("ingest: interrupted; start the same command again: it continues where it stopped.", err=True)
        raise typer.Exit(130) from None
    except (IngestError, ApiRefused) as exc:
        typer.echo(f"ingest: {exc.detail}", err=True)
    except USER_FACING_ERRORS as exc:
        typer.echo(f"ingest: {exc}", err=True)
    except IndexUnavailable as exc:
        typer.echo(f"ingest: {_index_unavailable(exc)}", err=True)
    raise typer.Exit(1)


@app.command("load")
def load_command(  # noqa: PLR0917 - typer calls it, by name
    paths: Annotated[list[str], typer.Argument(help="Files and folders; a folder may hold a documents.yaml.")],
    approved_by: Annotated[str | None, typer.Option(help="Who approves; without it everything stays a draft.")] = None,
    uploaded_by: Annotated[str | None, typer.Option(help="Who uploads (default: you); never the approver.")] = None,
    tenant: Annotated[str | None, TenantOption] = None,
    url: Annotated[str | None, typer.Option(help="Load through the API of a running process.")] = None,
    token: Annotated[str | None, typer.Option(envvar="INGEST_TOKEN", help="With --url: the uploader's token.")] = None,
    approver_token: Annotated[
        str | None, typer.Option(envvar="INGEST_APPROVER_TOKEN", help="With --url: the approver's token.")
    ] = None,
) -> None:
    """Load documents; to continue after an interruption, run the same command again."""
    settings = settings_or_exit()
    if url is not None:
        if token is None:
            raise _usage("--url needs --token.")
        if approved_by is not None and approver_token is None:
            raise _usage("--url needs --approver-token: the API takes an approval only from its approver.")
        _load(paths, open_api(url, token, approver_token), settings)
        return
    if tenant is None:
        raise _usage("name the bank's tenant: --tenant, or TENANT (with --url the token names it).")
    request = _load_request(tenant, uploaded_by, approved_by)
    _load(paths, _local_target(request, settings), settings)


@app.command("batch")
def batch_command(
    source: Annotated[
        str, typer.Argument(metavar="PATH|s3://BUCKET/PREFIX", help="A folder (documents.yaml or all files).")
    ],
    tenant: Tenant,
    approved_by: Annotated[str | None, typer.Option(help="Who approves; without it everything stays a draft.")] = None,
    uploaded_by: Annotated[str | None, typer.Option(help="Who uploads (default: you); never the approver.")] = None,
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster (ray://host:10001, or auto on one of its nodes).")
    ] = None,
    object_store_mib: Annotated[
        int, typer.Option(min=80, help="Without --address: memory for passages on their way, in MiB.")
    ] = 256,
) -> None:
    """Load many documents with Ray: read and embed on all cores, into the same index as `ingest load`.

    Without --address, Ray runs on this machine for this command only. Finished documents are skipped: after an
    interruption, run the same command again. Failed files are listed with the reason, and the exit code is 1.

    \b
    ingest batch ./documents --tenant T --approved-by lee        this machine
    ingest batch s3://bank/circulars --tenant T --address auto   a cluster, from one of its nodes

    All nodes of a cluster need the same package, the weights in the same place (WEIGHTS_DIR) and access to the store
    of originals (BLOB_URL=s3://…). S3's address and keys come from AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ….
    Ray is an extra: pip install -r requirements/batch.lock (docs/documents.md).
    """
    settings = settings_or_exit()
    request = _load_request(tenant, uploaded_by, approved_by)
    os.environ.update(RAY_QUIET)
    try:
        ray_batch = import_module("ingest.bulk.batch")
    except ModuleNotFoundError as exc:
        if exc.name != "ray":
            raise
        raise _usage("`ingest batch` needs Ray: pip install -r requirements/batch.lock") from exc
    stages = ray_batch.StageSettings(
        blobs=settings.blobs,
        parser=settings.parser,
        chunking=settings.chunks.chunking(
            settings.tokenizer_folder, max_tokens=read_model_config(settings.embedder).max_tokens
        ),
        embedder=settings.embedder,
    )
    cluster = ray_batch.Cluster(address=address, object_store_bytes=object_store_mib * 1024 * 1024)
    target = partial(ray_batch.RayTarget, cluster=cluster, settings=stages)
    _load([source], _local_target(request, settings, target), settings)


def _load_request(tenant: str, uploaded_by: str | None, approved_by: str | None) -> LoadRequest:
    """Return whose documents are loaded, by whom; exit with a usage error if the uploader is also the approver."""
    uploader = uploaded_by or getpass.getuser()
    if approved_by is not None and approved_by.strip().casefold() == uploader.strip().casefold():
        raise _usage(f"{uploader} uploads, so somebody else has to approve (--approved-by).")
    return LoadRequest(tenant=tenant, uploaded_by=uploader, approver=approved_by)


@asynccontextmanager
async def _local_target(
    request: LoadRequest, settings: Settings, target: Callable[[Services, LoadRequest], Target] = LocalTarget
) -> AsyncGenerator[Target]:
    async with open_services(settings, with_worker=False) as services:
        yield target(services, request)


def _load(places: list[str], target: AbstractAsyncContextManager[Target], settings: Settings) -> None:
    """Load documents and print the outcomes; exit with code 1 if one failed."""
    configure_logs(level="WARNING", log_format="console")
    console = Console()
    with ExitStack() as stack:
        try:
            source = stack.enter_context(open_source(places, settings.blob_tls))
        except ManifestError as exc:
            raise _usage(str(exc)) from exc
        outcomes = run_or_exit(_open_and_load(source, target, console))
    print_summary(outcomes, console, ZoneInfo(settings.pipeline.zone))
    if any(outcome.reason is not None for outcome in outcomes):
        raise typer.Exit(1)


async def _open_and_load(
    source: Source, target: AbstractAsyncContextManager[Target], console: Console
) -> list[LoadOutcome]:
    async with target as open_target:
        return await load(source, open_target, LoadDisplay(console))


@app.command()
def serve(
    works: Annotated[bool, typer.Option("--worker/--no-worker", help="Also do the jobs, in this process.")] = True,
) -> None:
    """Serve the staff API and index uploads (settings come from the environment)."""
    settings = settings_or_exit()
    if settings.auth is None:
        raise _usage("set AUTH__ISSUER and AUTH__JWKS_URL or AUTH__PUBLIC_KEY_FILE: whose tokens?")
    if settings.bank_file is None:
        raise _usage("set BANK_FILE: whose name and logo does the page show? (docs/bank.md)")
    if settings.oidc is not None and settings.redis_url is None:
        raise _usage("set REDIS_URL: where are the sessions of OIDC__ISSUER kept?")
    configure_logs(level=settings.log_level, log_format=settings.log_format)
    run_or_exit(_serve(settings, read_banks(settings.bank_file), with_worker=works))


@app.command()
def worker() -> None:
    """Index uploads to other processes' API; run any number of workers (needs a Qdrant server: QDRANT_URL)."""
    settings = settings_or_exit()
    configure_logs(level=settings.log_level, log_format=settings.log_format)
    run_or_exit(_run_worker(settings))


async def _run_worker(settings: Settings) -> None:
    with tracing("ingest-worker", settings.traces, tls=settings.traces_tls.context()):
        async with open_services(settings):
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                typer.echo("ingest worker waits for jobs", err=True)
                await anext(signals)


async def _serve(settings: Settings, banks: Banks, *, with_worker: bool) -> None:
    bound = bind(settings.ingest_host, settings.ingest_port, setting="INGEST_PORT")
    async with AsyncExitStack() as stack:
        stack.callback(bound.close)
        provider = stack.enter_context(tracing("ingest", settings.traces, tls=settings.traces_tls.context()))
        services = await stack.enter_async_context(open_services(settings, with_worker=with_worker))
        staff = create_app(services, banks, tracer_provider=provider)
        # uvicorn shuts down and then raises the signal again; unless it is received here, the process would end before
        # its jobs are released.
        signals = stack.enter_context(anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT))
        await stack.enter_async_context(listening(staff, bound, certificate=settings.server_tls))
        where = f"{settings.server_tls.scheme}://{settings.ingest_host}:{settings.ingest_port}"
        typer.echo(f"ingest listens on {where}", err=True)
        await anext(signals)


@app.command()
def migrate() -> None:
    """Migrate the SQL tables to this release; the other commands do so automatically if they have the rights."""
    for owner, revision in run_or_exit(_migrate(settings_or_exit())).items():
        typer.echo(f"{owner} {revision}")


async def _migrate(settings: Settings) -> dict[str, str | None]:
    try:
        return await migrate_database(settings.database, withdrawals.SCHEMA, SCHEMA, tls=settings.database_tls)
    except UNAVAILABLE as exc:
        raise CatalogueUnavailable(f"the database could not be migrated: {exc}") from exc


@app.command()
def status(tenant: Tenant, as_json: AsJson = False) -> None:
    """Show versions and jobs by state, the backlog, reasons of failures, and originals without a version."""
    status = run_or_exit(_status(settings_or_exit(), tenant))
    if as_json:
        print_json(status)
    else:
        show_status(status, Console())


async def _status(settings: Settings, tenant: str) -> TenantStatus:
    async with _catalogue(settings) as (catalogue, job_claims):
        return await read_status(catalogue, job_claims, open_blobs(settings.blobs), tenant, now=time.time())


@app.command()
def jobs(tenant: Tenant, as_json: AsJson = False) -> None:
    """List the failed jobs and the dead letters (given up after three attempts), with the reason of each."""
    rows = run_or_exit(_jobs(settings_or_exit(), tenant, JobState.FAILED, JobState.DEAD))
    if as_json:
        print_json([{"job": job, "version": version} for job, version in rows])
        return
    if not rows:
        typer.echo(f"ingest: tenant {tenant} has no failed jobs", err=True)
    for job, version in rows:
        typer.echo(f"{job.id}  {job.key}  {version.file_name}  {job.state} at {job.stage}: {version.detail or ''}")


async def _jobs(settings: Settings, tenant: str, *states: JobState) -> list[tuple[Job, Version]]:
    async with _catalogue(settings) as (catalogue, _job_claims):
        return [row for state in states for row in await catalogue.jobs(tenant, state)]


@app.command()
def retry(
    tenant: Tenant,
    job_ids: Annotated[list[str] | None, typer.Argument(help="Jobs, as `ingest jobs` lists them.")] = None,
) -> None:
    """Queue these jobs again, or every dead letter; a worker starts them within seconds."""
    for job in run_or_exit(_retry(settings_or_exit(), tenant, job_ids)):
        typer.echo(f"{job.id}  {job.key}  {job.state}")


async def _retry(settings: Settings, tenant: str, job_ids: list[str] | None) -> list[Job]:
    async with _catalogue(settings) as (catalogue, job_claims):
        if not job_ids:
            job_ids = [job.id for job, _version in await catalogue.jobs(tenant, JobState.DEAD)]
        return [await job_claims.retry(job_id, tenant=tenant, now=time.time()) for job_id in job_ids]


@asynccontextmanager
async def _catalogue(settings: Settings) -> AsyncGenerator[tuple[Catalogue, JobClaims]]:
    """Open only the catalogue and its job claims, without the index and the parsers."""
    require_database(settings.database)
    engine = open_engine(settings.database, settings.database_tls)
    try:
        catalogue = Catalogue(engine)
        await catalogue.create_tables()
        yield catalogue, JobClaims(catalogue)
    finally:
        await engine.dispose()


@app.command("rebuild")
def rebuild_command() -> None:
    """Restore all versions that the index has lost, from SQL and the originals alone."""
    settings = settings_or_exit()
    configure_logs(level="WARNING", log_format="console")
    if not run_or_exit(_rebuild(settings, Console())):
        raise typer.Exit(1)


async def _rebuild(settings: Settings, console: Console) -> bool:
    """Rebuild the index and print the counts; return whether every version succeeded."""
    require_database(settings.database)
    async with open_services(settings, with_worker=False) as services:
        tally = await rebuild(services, _report_to(console))
    console.print(f"{tally.written} of {tally.total} versions written again, {len(tally.failed)} failed.")
    return not tally.failed


@app.command("reindex")
def reindex_command() -> None:
    """Fill a new collection with the current embedder and chunking beside the live one, then switch to it."""
    settings = settings_or_exit()
    configure_logs(level="WARNING", log_format="console")
    if not run_or_exit(_reindex(settings, Console())):
        raise typer.Exit(1)


async def _reindex(settings: Settings, console: Console) -> bool:
    """Re-index all versions and print the counts; return whether every version succeeded."""
    require_database(settings.database)
    async with open_services(settings, with_worker=False, any_embedder=True) as services:
        tally = await reindex(services, _report_to(console))
        collection = services.index.collection
    state = "stays" if tally.failed else "answers now"
    console.print(f"{tally.written} versions written, {len(tally.failed)} failed; {collection} {state}.")
    return not tally.failed


def _report_to(console: Console) -> ReportVersion:
    def report(key: VersionKey, number: int, total: int, result: str) -> None:
        console.print(f"[{number}/{total}] {key}: {result}", markup=False, soft_wrap=True)

    return report


def _index_unavailable(exc: IndexUnavailable) -> str:
    if isinstance(exc, IndexInUse):
        return (
            "the index is in use by a running process: stop it first, or load through its API with "
            "`ingest load … --url http://127.0.0.1:8001 --token TOKEN`."
        )
    return f"{exc}."


add_common_help(app, "Exit codes: 0 done; 1 something failed; 2 an argument or a setting is wrong; 130 interrupted.")

if __name__ == "__main__":
    app()
