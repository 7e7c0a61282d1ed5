"""Plans: the limits in force, by tenant and role; from the settings, or from a YAML file that is read as it changes.

    default:                              # for every tenant
      user: {tokens_per_minute: 60000}
      roles:
        staff: {tokens_per_minute: 200000, concurrent: 8}
    tenants:
      savings:
        cached_weight: 0.25
        user: {tokens_per_day: 500000}

A field that an entry leaves out comes from `default`, and then from the settings; a role's from `user`. A file that
cannot be read, has an unknown name or an invalid value stops the boot; later it changes nothing, and is logged.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import structlog
import yaml
from pydantic import BaseModel, Field, ValidationError

from chatbot.limits.limits import LedgerSettings, LimitSettings
from telemetry.supervision import OnFailure, supervise, uncounted

log = structlog.get_logger(__name__)

RawPlan = Mapping[str, object]
"""A part of the file before validation: names and values."""


class PlansRefused(Exception):
    """The plans cannot be used; the message names the file, the place and the fault."""


@dataclass(frozen=True, slots=True)
class PlansRead:
    """The file changed and was read; `accepted`: whether its plans apply now."""

    accepted: bool


@dataclass(frozen=True, slots=True)
class FileVersion:
    """The identity of one state of the file; `modified` in nanoseconds."""

    inode: int
    size: int
    modified: int


class PlansFile(BaseModel, extra="forbid"):
    """The file's outline; its entries are validated once they are merged."""

    default: dict[str, object] = Field(default_factory=dict)
    tenants: dict[str, dict[str, object]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanBook:
    """The plans of all tenants at one time."""

    default: LimitSettings
    tenants: Mapping[str, LimitSettings]


class Plans:
    """The plans in force, read again when their file changes."""

    def __init__(
        self,
        settings: LedgerSettings,
        *,
        book: PlanBook,
        version: FileVersion | None = None,
        on_read: Callable[[PlansRead], None] = lambda _: None,
    ) -> None:
        """`version` is the file's when `book` was read from it."""
        self._settings = settings
        self._on_read = on_read
        self._book = book
        self._last_seen = self._last_read = version

    def of(self, tenant: str) -> LimitSettings:
        """Return the tenant's plan."""
        return self._book.tenants.get(tenant, self._book.default)

    async def check(self, file: Path) -> None:
        """Read the file if it has changed, but not since the last check: its writer may be half done."""
        version = await anyio.to_thread.run_sync(version_of, file)
        if version == self._last_seen and version != self._last_read:
            self._last_read = version
            await self._read(file)
        self._last_seen = version

    async def _read(self, file: Path) -> None:
        try:
            self._book = await anyio.to_thread.run_sync(read_plans, file, self._settings)
        except PlansRefused as exc:
            log.error("limit_plans_rejected", reason=str(exc))  # noqa: TRY400 - the message says all that a trace would
            self._on_read(PlansRead(accepted=False))
        else:
            log.info("limit_plans_loaded", file=str(file), tenants=len(self._book.tenants))
            self._on_read(PlansRead(accepted=True))

    async def watch(self, file: Path) -> None:
        """Check the file every `plans_every` seconds, until cancelled."""
        while True:
            await self.check(file)
            await anyio.sleep(self._settings.plans_every)


@asynccontextmanager
async def open_plans(
    settings: LedgerSettings, *, on_read: Callable[[PlansRead], None], on_failure: OnFailure = uncounted
) -> AsyncGenerator[Plans]:
    """Read the plans, and again whenever their file changes while the block runs.

    Raises:
        PlansRefused: the file cannot be used.
    """
    file = settings.plans_file
    if file is None:
        yield Plans(settings, book=PlanBook(settings.limits, settings.tenants))
        return
    version = await anyio.to_thread.run_sync(version_of, file)
    book = await anyio.to_thread.run_sync(read_plans, file, settings)
    plans = Plans(settings, book=book, version=version, on_read=on_read)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervise, "plans", partial(plans.watch, file), on_failure)
        try:
            yield plans
        finally:
            tasks.cancel_scope.cancel()


def version_of(file: Path) -> FileVersion | None:
    """Return the file's version; None where there is no file."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return FileVersion(stat.st_ino, stat.st_size, stat.st_mtime_ns)


def read_plans(file: Path, settings: LedgerSettings) -> PlanBook:
    """Return the settings' plans with the file's merged over them.

    Raises:
        PlansRefused: it cannot be read, or is invalid.
    """
    try:
        outline = PlansFile.model_validate(yaml.safe_load(file.read_text("utf-8")) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise PlansRefused(f"the plans in {file} cannot be read: {exc}") from exc
    except ValidationError as exc:
        raise PlansRefused(invalid(file, (), exc)) from exc
    default = merge(settings.limits.model_dump(), outline.default)
    plans = dict(settings.tenants)
    for tenant, changes in outline.tenants.items():
        plans[tenant] = validated(file, ("tenants", tenant), merge(default, changes))
    return PlanBook(validated(file, ("default",), default), plans)


def validated(file: Path, place: tuple[str, ...], raw: RawPlan) -> LimitSettings:
    """Return a plan; a field that a role leaves out comes from `user`.

    Raises:
        PlansRefused: it is invalid.
    """
    plan = dict(raw)
    user, roles = plan.get("user"), plan.get("roles")
    if isinstance(user, Mapping) and isinstance(roles, Mapping):
        plan["roles"] = {
            name: merge(user, changes) if isinstance(changes, Mapping) else changes for name, changes in roles.items()
        }
    try:
        return LimitSettings.model_validate(plan)
    except ValidationError as exc:
        raise PlansRefused(invalid(file, place, exc)) from exc


def merge(base: RawPlan, changes: RawPlan) -> dict[str, object]:
    """Return `base` with the changes over it, recursively."""
    merged = dict(base)
    for name, change in changes.items():
        before = merged.get(name)
        merged[name] = merge(before, change) if isinstance(before, Mapping) and isinstance(change, Mapping) else change
    return merged


def invalid(file: Path, place: tuple[str, ...], exc: ValidationError) -> str:
    """Return a message that names the places and their faults."""
    wrong = [f"{'.'.join(map(str, (*place, *error['loc'])))}: {error['msg']}" for error in exc.errors()[:5]]
    return f"the plans in {file} cannot be used: {'; '.join(wrong)}"
