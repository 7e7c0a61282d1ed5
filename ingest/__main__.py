"""The `ingest` command: load documents, serve the staff API, show the catalogue, rebuild a lost index."""

import asyncio
import getpass
import socket
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, TypeVar
from zoneinfo import ZoneInfo

import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from ingest import remote
from ingest.app import create_app
from ingest.catalogue import Catalogue
from ingest.errors import IngestError
from ingest.loading import LoadOrder, Outcome, load
from ingest.offerings import ManifestError, Offering, gather
from ingest.parsing.parsed import Unreadable
from ingest.pipeline import restore
from ingest.screen import print_summary, showing
from ingest.settings import Settings
from ingest.versions import Stage, State
from ingest.wiring import WeightsMissing, open_services
from knowledge.database import open_engine
from knowledge.index import EmbedderMismatch, IndexUnavailable
from telemetry.logs import configure_logs
from telemetry.setup import tracing

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

TENANT = "hanbit"


def settings_or_exit() -> Settings:
    """Return the settings, or end with one line a wrong value that says what to set."""
    try:
        return Settings()
    except ValidationError as exc:
        for error in exc.errors():
            name = "__".join(str(part) for part in error["loc"]).upper()
            typer.echo(f"ingest: {name + ': ' if name else ''}{error['msg'].removeprefix('Value error, ')}", err=True)
        raise typer.Exit(2) from exc


def run_or_exit(work: Coroutine[object, object, T]) -> T:
    """Run the work; what stands in its way becomes one sentence and exit code 1."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        typer.echo("ingest: interrupted; start the same command again and it goes on where it stopped.", err=True)
        raise typer.Exit(130) from None
    except (IngestError, remote.ApiRefused) as exc:
        typer.echo(f"ingest: {exc.detail}", err=True)
    except (WeightsMissing, ManifestError, EmbedderMismatch, PortTaken) as exc:
        typer.echo(f"ingest: {exc}", err=True)
    except IndexUnavailable as exc:
        typer.echo(f"ingest: {_why_unavailable(exc)}", err=True)
    raise typer.Exit(1)


class PortTaken(Exception):
    """One sentence that says which port and what to do."""


@app.command("load")
def load_command(  # noqa: PLR0917 - typer calls it, by name
    paths: Annotated[list[Path], typer.Argument(help="Files and folders; a folder may hold a documents.yaml.")],
    approved_by: Annotated[str | None, typer.Option(help="Who approves; without it everything stays a draft.")] = None,
    uploaded_by: Annotated[str | None, typer.Option(help="Who uploads (default: you); never the approver.")] = None,
    tenant: Annotated[str, typer.Option(help="The bank.")] = TENANT,
    url: Annotated[str | None, typer.Option(help="Load through the API of a running process.")] = None,
    token: Annotated[str | None, typer.Option(envvar="INGEST_TOKEN", help="With --url: the uploader's token.")] = None,
    approver_token: Annotated[
        str | None, typer.Option(envvar="INGEST_APPROVER_TOKEN", help="With --url: the approver's token.")
    ] = None,
) -> None:
    """Bring documents in; started again after an interruption it goes on where it stopped."""
    settings = settings_or_exit()
    configure_logs(level="WARNING", log_format="console")
    uploader = uploaded_by or getpass.getuser()
    if approved_by is not None and approved_by.strip().casefold() == uploader.strip().casefold():
        typer.echo(f"ingest: {uploader} uploads, so somebody else has to approve (--approved-by).", err=True)
        raise typer.Exit(2)
    if url is not None and (token is None or (approved_by is not None and approver_token is None)):
        needed = "--token" if token is None else "--approver-token: the API takes an approval only from its approver"
        typer.echo(f"ingest: --url needs {needed}.", err=True)
        raise typer.Exit(2)
    console = Console()
    offerings = _offerings(paths)
    order = LoadOrder(tenant=tenant, uploaded_by=uploader, approver=approved_by)
    if url is None or token is None:
        outcomes = run_or_exit(_load(offerings, order, settings, console))
    else:
        api = remote.Api(url=url, token=token, approver_token=approver_token)
        outcomes = run_or_exit(_load_remotely(offerings, api, console))
    print_summary(outcomes, console, ZoneInfo(settings.pipeline.zone))
    if any(outcome.reason is not None for outcome in outcomes):
        raise typer.Exit(1)


def _offerings(paths: list[Path]) -> list[Offering]:
    try:
        return gather(paths)
    except ManifestError as exc:
        typer.echo(f"ingest: {exc}", err=True)
        raise typer.Exit(2) from exc


async def _load(offerings: list[Offering], order: LoadOrder, settings: Settings, console: Console) -> list[Outcome]:
    async with open_services(settings, works_jobs=False) as services:
        with showing(console) as show:
            return await load(offerings, order, services, show)


async def _load_remotely(offerings: list[Offering], api: remote.Api, console: Console) -> list[Outcome]:
    with showing(console) as show:
        return await remote.load(offerings, api, show)


@app.command()
def serve() -> None:
    """Serve the staff API and index what is uploaded (settings come from the environment)."""
    settings = settings_or_exit()
    if settings.auth is None:
        typer.echo("ingest: set AUTH__ISSUER and AUTH__JWKS_URL or AUTH__PUBLIC_KEY_FILE: whose tokens?", err=True)
        raise typer.Exit(2)
    configure_logs(level=settings.log_level, log_format=settings.log_format)
    run_or_exit(_serve(settings))


async def _serve(settings: Settings) -> None:
    bound = _bind(settings.ingest_host, settings.ingest_port)
    async with AsyncExitStack() as stack:
        stack.callback(bound.close)
        provider = stack.enter_context(tracing("ingest", settings.traces))
        services = await stack.enter_async_context(open_services(settings))
        staff = create_app(services, tracer_provider=provider)
        config = uvicorn.Config(
            staff, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=10, server_header=False
        )
        typer.echo(f"ingest listens on http://{settings.ingest_host}:{settings.ingest_port}", err=True)
        await uvicorn.Server(config).serve([bound])


def _bind(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(1024)
    except OSError as exc:
        bound.close()
        raise PortTaken(f"port {port} cannot be used ({exc.strerror}): set INGEST_PORT to a free one") from exc
    return bound


@app.command()
def status(tenant: Annotated[str, typer.Option(help="The bank.")] = TENANT) -> None:
    """Show how many versions are in which state, and why some failed."""
    settings = settings_or_exit()
    run_or_exit(_status(settings, tenant, Console()))


async def _status(settings: Settings, tenant: str, console: Console) -> None:
    engine = open_engine(settings.database)
    try:
        catalogue = Catalogue(engine)
        await catalogue.create_tables()
        versions = await catalogue.all_versions(tenant)
    finally:
        await engine.dispose()
    now = time.time()
    states = Counter(version.state_at(now) for version in versions)
    table = Table("state", "versions", "passages")
    for state in (state for state in State if states[state]):
        passages = sum(version.passages for version in versions if version.state_at(now) is state)
        table.add_row(state, str(states[state]), str(passages))
    console.print(table)
    for version in versions:
        if version.state is State.FAILED:
            console.print(f"{version.file_name}: {version.reason}: {version.detail}", markup=False, soft_wrap=True)


@app.command()
def rebuild() -> None:
    """Write every version that the index lost again, from the catalogue and the originals alone."""
    settings = settings_or_exit()
    configure_logs(level="WARNING", log_format="console")
    if not run_or_exit(_rebuild(settings, Console())):
        raise typer.Exit(1)


async def _rebuild(settings: Settings, console: Console) -> bool:
    async def ignore(_stage: Stage, _done: int, _total: int) -> None:
        return

    failures = written = 0
    async with open_services(settings, works_jobs=False) as services:
        keys = await services.catalogue.everything()
        for n, key in enumerate(keys, start=1):
            try:
                lost = await restore(key, services, ignore)
            except Unreadable as exc:
                failures += 1
                console.print(f"[{n}/{len(keys)}] {key}: {exc.reason}: {exc.detail}", markup=False)
                continue
            written += lost
            console.print(f"[{n}/{len(keys)}] {key}: {'written again' if lost else 'was there'}", markup=False)
    console.print(f"{written} of {len(keys)} versions written again, {failures} failed.")
    return failures == 0


def _why_unavailable(exc: IndexUnavailable) -> str:
    if isinstance(exc.__cause__, RuntimeError):  # what the embedded index raises for a folder that another has locked
        return (
            "the index is in use by a running process: load through its API with "
            "--url http://127.0.0.1:8001 --token TOKEN, or stop it first."
        )
    return f"{exc}."


if __name__ == "__main__":
    app()
