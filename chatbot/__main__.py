"""The `chatbot` command: serve the chat API, make tokens and keys, verify and replay answers, stop and resume them."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from chatbot.api import LocalSigner, create_app, demo_signer, key_pair, until_stopped
from chatbot.audit import Anchors, AnchorsUnavailable, Audit, ChainProblem, open_anchors
from chatbot.calibration import CalibrationRefused
from chatbot.errors import AuditUnavailable, ChatError, NotFound
from chatbot.models import ModelsMisconfigured
from chatbot.proof import Replayed, replay, report
from chatbot.retrieval import RerankerRefused
from chatbot.settings import AuditCommandSettings, CommandSettings, Settings
from chatbot.tables import SCHEMA
from chatbot.wiring import open_replay_context, open_services
from edge import PortTaken, bind, listening, wrong_settings
from knowledge import withdrawals
from knowledge.bank import BankRefused
from knowledge.command_line import AsJson, add_common_help, print_json
from knowledge.embedding import EmbeddingUnavailable
from knowledge.identity import DEMO_TENANT, MACHINE, ROLES, Principal
from knowledge.index import IndexRefused, IndexUnavailable
from knowledge.service_keys import KEY_ROLES, KeyRefused, NewKey, ServiceKey, ServiceKeys, load_service_keys
from knowledge.storage import (
    UNAVAILABLE,
    DatabaseMissing,
    close_engine,
    migrate_database,
    open_engine,
    require_database,
    revision,
)
from knowledge.tls import TlsRefused
from knowledge.withdrawals import StopChange, change_target, load_withdrawals
from telemetry.groups import leaves
from telemetry.logs import configure_logs
from telemetry.ocsf import Code
from telemetry.setup import tracing
from telemetry.siem import Siem, open_siem

T = TypeVar("T")
S = TypeVar("S", bound=CommandSettings)

CANNOT_SERVE = (
    BankRefused,
    CalibrationRefused,
    EmbeddingUnavailable,
    IndexRefused,
    IndexUnavailable,
    ModelsMisconfigured,
    PortTaken,
    RerankerRefused,
    TlsRefused,
)
"""The errors that prevent the start; each message says what to do."""

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
audit_app = typer.Typer(no_args_is_help=True, help="Check the audit trail.")
app.add_typer(audit_app, name="audit")
keys_app = typer.Typer(no_args_is_help=True, help="The keys of machines.")
app.add_typer(keys_app, name="keys")


def settings_or_exit(kind: type[S]) -> S:
    """Read the settings, or print one line for each invalid value and exit with 2; log warnings to stderr."""
    configure_logs(level="WARNING", log_format="console")
    try:
        return kind()
    except (ValidationError, SettingsError) as exc:
        for line in wrong_settings(exc, kind, os.environ):
            typer.echo(f"chatbot: {line}", err=True)
        typer.echo("chatbot: docs/settings.md lists every environment variable.", err=True)
        raise typer.Exit(2) from exc


def settings_of_database(kind: type[S]) -> S:
    """Read the settings of a command that needs an existing database, or print one line and exit with 2."""
    settings = settings_or_exit(kind)
    try:
        require_database(settings.database)
    except DatabaseMissing as exc:
        typer.echo(f"chatbot: {exc}", err=True)
        raise typer.Exit(2) from exc
    return settings


@app.command()
def serve() -> None:
    """Serve the chat API (settings come from the environment; see docs/settings.md)."""
    settings = settings_or_exit(Settings)
    configure_logs(level=settings.log_level, log_format=settings.log_format)
    errors: list[BaseException] = []
    try:
        asyncio.run(_serve(settings))
    except* CANNOT_SERVE as group:
        errors = list(leaves(group))
    for error in errors:
        typer.echo(f"chatbot: {error}", err=True)
    if errors:
        raise typer.Exit(1)


async def _serve(settings: Settings) -> None:
    listener = bind(settings.host, settings.port)
    admin_listener = bind(settings.host, settings.admin_port, setting="ADMIN_PORT") if settings.admin_port else None
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        if admin_listener is not None:
            stack.callback(admin_listener.close)
        provider = stack.enter_context(tracing("chatbot", settings.traces, tls=settings.traces_tls.context()))
        engine = open_engine(settings.database, settings.database_tls)
        stack.push_async_callback(close_engine, engine)
        services = await stack.enter_async_context(open_services(settings, engine=engine))
        demo = demo_signer(settings.demo_key_file)
        chat = create_app(
            services,
            admin_port=settings.admin_port,
            tracer_provider=provider,
            demo=demo,
            demo_tenant=settings.demo_tenant,
        )
        if admin_listener is not None:
            await stack.enter_async_context(listening(chat, admin_listener, certificate=settings.server_tls))
        await stack.enter_async_context(listening(chat, listener, certificate=settings.server_tls))
        typer.echo(f"chatbot listens on {settings.server_tls.scheme}://{settings.host}:{settings.port}", err=True)
        await until_stopped(chat, drain_seconds=settings.drain_seconds, refuse_seconds=settings.refuse_seconds)


@app.command()
def migrate() -> None:
    """Migrate the SQL tables to this release; `serve` migrates them too if its database user may change tables."""
    settings = settings_or_exit(CommandSettings)
    try:
        revisions = asyncio.run(
            migrate_database(settings.database, withdrawals.SCHEMA, SCHEMA, tls=settings.database_tls)
        )
    except UNAVAILABLE as exc:
        typer.echo(f"chatbot: the database could not be migrated: {exc}", err=True)
        raise typer.Exit(1) from exc
    for owner, latest in revisions.items():
        typer.echo(f"{owner} {latest}")


def known_roles(roles: list[str]) -> list[str]:
    """Return the roles, or raise BadParameter for an unknown role."""
    if unknown := set(roles) - ROLES:
        raise typer.BadParameter(f"there is no role {min(unknown)}: choose from {', '.join(sorted(ROLES))}")
    return roles


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="The token's subject: a customer or a staff member.")] = "guest",
    role: Annotated[list[str], typer.Option(callback=known_roles, help=f"A role: {', '.join(sorted(ROLES))}.")] = [
        "customer"
    ],
    tenant: Annotated[str, typer.Option(envvar="DEMO_TENANT", help="The bank's tenant.")] = DEMO_TENANT,
    group: Annotated[list[str], typer.Option(help="A reader group, besides that of all customers.")] = [],
    hours: Annotated[float, typer.Option(help="The token's lifetime.")] = 12,
    data_dir: Annotated[Path, typer.Option(envvar="DATA_DIR", help="The data folder of `make run`.")] = Path(".data"),
) -> None:
    """Print a token signed with the demo key of `make run`: curl -H "Authorization: Bearer $(chatbot token)" …"""
    if not data_dir.exists():
        where = "run this command in the folder of `make run`, or set DATA_DIR"
        typer.echo(f"chatbot: the data folder {data_dir} does not exist: {where}", err=True)
        raise typer.Exit(2)
    private, _ = key_pair(data_dir)
    who = Principal(tenant=tenant, sub=name, roles=frozenset(role), groups=frozenset(group))
    typer.echo(LocalSigner(private.read_text("ascii")).token(who, hours=hours)[0])


Tenant = Annotated[str | None, typer.Option(help="Only the answers of this tenant.")]
Model = Annotated[str | None, typer.Option(help="Only this entry of the MODELS_FILE (`primary` with LLM_URLS).")]
By = Annotated[str, typer.Option(help="Your name, for the record.")]
Reason = Annotated[str, typer.Option(help="The reason, for the record.")]


@app.command()
def stop(by: By, reason: Reason, model: Model = None, tenant: Tenant = None) -> None:
    """Stop all answers on all replicas within seconds, or only those of one tenant or one model."""
    _change_stop("stop", model, tenant, by, reason)


@app.command()
def resume(by: By, reason: Reason, model: Model = None, tenant: Tenant = None) -> None:
    """Resume answers of the chatbot, a tenant or one model."""
    _change_stop("resume", model, tenant, by, reason)


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="The name of the machine.")],
    tenant: Annotated[str, typer.Option(help="The bank whose machine it is.")],
    by: By,
    role: Annotated[list[str], typer.Option(help=f"A role: {', '.join(sorted(KEY_ROLES))}.")] = ["service"],
    days: Annotated[int | None, typer.Option(help="The key's lifetime. Default: the longest allowed.")] = None,
) -> None:
    """Make a key and print it; it is not shown again."""
    new = NewKey(tenant=tenant, name=name, roles=frozenset(role), made_by=by, days=days)

    async def make(keys: ServiceKeys, siem: Siem) -> tuple[ServiceKey, str]:
        key, secret = await keys.make(new)
        siem.emit(Code.KEY_MADE, tenant=tenant, by=by, about=MACHINE + key.id, detail=roles_of(key))
        return key, secret

    key, secret = with_keys(make)
    typer.echo(line_of(key), err=True)
    typer.echo(secret)


@keys_app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only the keys of this tenant.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the newest 1,000 keys, including expired and revoked keys."""
    listed_keys = with_keys(lambda keys, _siem: keys.newest(tenant=tenant))
    if as_json:
        print_json(list(listed_keys))
        return
    for key in listed_keys:
        typer.echo(line_of(key))


@keys_app.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="The key's id, as `list` shows it.")], by: By) -> None:
    """Revoke a key; all replicas reject it within 5 s."""

    async def revoke(keys: ServiceKeys, siem: Siem) -> ServiceKey | None:
        revoked = await keys.revoke(key_id, by=by)
        if revoked is not None:
            siem.emit(Code.KEY_REVOKED, tenant=revoked.tenant, by=by, about=MACHINE + key_id)
        return revoked

    revoked = with_keys(revoke)
    if revoked is None:
        typer.echo(f"chatbot: there is no key {key_id}", err=True)
        raise typer.Exit(2)
    typer.echo(line_of(revoked))


def open_siem_of(settings: CommandSettings) -> AbstractContextManager[Siem]:
    """Open the recorder of a command's security events."""
    return open_siem("chatbot", settings.traces, tls=settings.traces_tls.context())


def roles_of(key: ServiceKey) -> str:
    """Return the detail of a SIEM event that names a key's roles."""
    return f"roles: {', '.join(sorted(key.roles))}"


def line_of(key: ServiceKey) -> str:
    """Format a key as one line, without its secret."""

    def minute(at: float) -> str:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%MZ")

    revoked = f"revoked {minute(key.revoked_at)} by {key.revoked_by}" if key.revoked_at is not None else ""
    roles = ",".join(sorted(key.roles))
    made = f"made {minute(key.made_at)} by {key.made_by}, until {minute(key.expires_at)}"
    return "  ".join(part for part in (key.id, key.tenant, roles, key.name, made, revoked) if part)


def with_keys(use: Callable[[ServiceKeys, Siem], Awaitable[T]]) -> T:
    """Call `use` and return its result, or print why it failed and exit with 2 (refused) or 1 (no database)."""
    settings = settings_of_database(CommandSettings)

    async def use_keys() -> T:
        engine = open_engine(settings.database, settings.database_tls)
        try:
            keys = await load_service_keys(engine, settings.service_keys, now=time.time)
            with open_siem_of(settings) as siem:
                return await use(keys, siem)
        finally:
            await engine.dispose()

    try:
        return asyncio.run(use_keys())
    except KeyRefused as exc:
        typer.echo(f"chatbot: {exc}", err=True)
        raise typer.Exit(2) from exc
    except UNAVAILABLE as exc:
        typer.echo(f"chatbot: nothing was done, the database cannot be used ({type(exc).__name__})", err=True)
        raise typer.Exit(1) from exc


def _change_stop(
    action: Literal["stop", "resume"], model: str | None, tenant: str | None, by: str, reason: str
) -> None:
    settings = settings_of_database(CommandSettings)
    change = StopChange(action=action, model=model, tenant=tenant, by=by, reason=reason, at=time.time())
    try:
        typer.echo(asyncio.run(_apply_change(settings, change)))
    except (ValueError, ModelsMisconfigured) as exc:
        typer.echo(f"chatbot: {exc}", err=True)
        raise typer.Exit(2) from exc
    except UNAVAILABLE as exc:
        typer.echo(f"chatbot: nothing was changed, the database cannot be written ({type(exc).__name__})", err=True)
        raise typer.Exit(1) from exc


async def _apply_change(settings: CommandSettings, change: StopChange) -> str:
    """Record the change; return the stops after it as a line of text, or raise ValueError for an unknown model."""
    engine = open_engine(settings.database, settings.database_tls)
    try:
        withdrawals = await load_withdrawals(engine)
        known_models = {*settings.models.read().names, *withdrawals.stopped_models()} if change.model else set()
        if change.model is not None and change.model not in known_models:
            raise ValueError(f"no model is named {change.model}: there are {', '.join(sorted(known_models))}")
        await withdrawals.change(change)
        with open_siem_of(settings) as siem:
            code = Code.ANSWERS_STOPPED if change.action == "stop" else Code.ANSWERS_RESUMED
            siem.emit(code, by=change.by, about=change_target(model=change.model, tenant=change.tenant))
        state = "everything is stopped" if withdrawals.stopped() else "the chatbot answers"
        tenants = ", ".join(sorted(withdrawals.stopped_tenants())) or "none"
        models = ", ".join(sorted(withdrawals.stopped_models())) or "none"
        return f"{state}; stopped tenants: {tenants}; stopped models: {models}"
    finally:
        await engine.dispose()


@app.command("replay")
def replay_answer(
    answer_id: Annotated[str, typer.Argument(help="The answer's id, as in its event `accepted`.")],
    question: Annotated[
        typer.FileText | None,
        typer.Option(help="A file with the question, if it is no longer stored; `-` reads standard input."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rebuild an answer's passages, prompt and checks; exit with 1 if they differ from its audit rows."""
    question_text = question.read().strip() if question else None
    try:
        replayed = asyncio.run(_replay(settings_or_exit(Settings), answer_id, question_text))
    except NotFound as exc:
        typer.echo(f"chatbot: {exc}", err=True)
        raise typer.Exit(2) from exc
    except (ChatError, IndexUnavailable, IndexRefused) as exc:
        typer.echo(f"chatbot: the answer cannot be replayed: {exc}", err=True)
        raise typer.Exit(2) from exc
    typer.echo(msgspec.json.format(msgspec.json.encode(replayed)).decode() if as_json else report(replayed))
    raise typer.Exit(1 if replayed.differs else 0)


async def _replay(settings: Settings, answer_id: str, question: str | None) -> Replayed:
    engine = open_engine(settings.database, settings.database_tls)
    try:
        async with open_replay_context(settings, engine=engine) as context:
            return await replay(answer_id, context, question=question)
    finally:
        await engine.dispose()


@audit_app.command()
def verify(
    open_minutes: Annotated[float, typer.Option(help="An answer that is open for longer than this is a problem.")] = 15,
) -> None:
    """Check the chain and its anchors for rows that were edited, removed, reordered or never closed; exit 1 if any."""
    settings = settings_of_database(AuditCommandSettings)
    problems = with_audit(
        settings, partial(_verify, unclosed_before=time.time() - open_minutes * 60, settings=settings)
    )
    for problem in problems:
        typer.echo(str(problem))
    typer.echo(f"{len(problems)} problems" if problems else "no problems", err=True)
    if settings.anchors is None:
        typer.echo("the chain was not compared with anchors: AUDIT_ANCHORS is not set", err=True)
    raise typer.Exit(1 if problems else 0)


@audit_app.command()
def prune(by: By) -> None:
    """Remove the chains whose last row and last anchor are older than AUDIT_KEPT_DAYS; the other chains stay valid."""
    settings = settings_of_database(AuditCommandSettings)
    kept_since = settings.audit_kept_since(time.time())
    if kept_since == 0:
        typer.echo(
            "chatbot: AUDIT_KEPT_DAYS is not set, so nothing is removed: set the days that rows are kept", err=True
        )
        raise typer.Exit(2)
    removed = with_audit(settings, partial(_prune, kept_since=kept_since, by=by, settings=settings))
    typer.echo(f"{removed} rows removed")


async def _prune(
    audit: Audit, anchors: Anchors | None, *, kept_since: float, by: str, settings: AuditCommandSettings
) -> int:
    removed = await (anchors or audit).prune(before=kept_since)
    with open_siem_of(settings) as siem:
        siem.emit(Code.AUDIT_PRUNED, by=by, about="chatbot_audit", detail=f"{removed} rows")
    return removed


def with_audit(settings: AuditCommandSettings, use: Callable[[Audit, Anchors | None], Awaitable[T]]) -> T:
    """Call `use` and return its result, or print which store is unavailable and exit with 2."""

    async def use_audit() -> T:
        engine = open_engine(settings.database, settings.database_tls)
        try:
            if await revision(engine, SCHEMA) is None:
                raise AuditUnavailable("the database has no tables yet: run `chatbot migrate` first")
            audit = Audit(engine, settings.audit)
            store = open_anchors(settings.anchors, settings.audit_anchors_tls) if settings.anchors else None
            return await use(audit, Anchors(audit, store, now=time.time) if store else None)
        finally:
            await engine.dispose()

    try:
        return asyncio.run(use_audit())
    except (AnchorsUnavailable, ChatError) as exc:
        typer.echo(f"chatbot: {exc}", err=True)
        raise typer.Exit(2) from exc
    except UNAVAILABLE as exc:
        typer.echo(f"chatbot: the database cannot be used ({type(exc).__name__})", err=True)
        raise typer.Exit(2) from exc


async def _verify(
    audit: Audit, anchors: Anchors | None, *, unclosed_before: float, settings: AuditCommandSettings
) -> list[ChainProblem]:
    problems = await (anchors or audit).verify(
        unclosed_before=unclosed_before, since=settings.audit_kept_since(time.time())
    )
    with open_siem_of(settings) as siem:
        for fault, number in Counter(problem.fault for problem in problems).items():
            siem.emit(Code.AUDIT_DIFFERS, about=fault, count=number)
    return problems


add_common_help(app, "Exit codes: 0 done; 1 something failed, or differs; 2 an argument or a setting is wrong.")

if __name__ == "__main__":
    app()
