"""Plans: the limits in force, by tenant and role; from the settings, or from a YAML file that is read as it changes.

    default:                              # what nobody says otherwise
      user: {tokens_per_minute: 60000}
      roles:
        staff: {tokens_per_minute: 200000, concurrent: 8}
    tenants:
      hanbit:
        cached_weight: 0.25
        user: {tokens_per_day: 500000}

What an entry leaves out it takes from `default`, and that from the settings; a role takes it from `user`. A file that
cannot be read, misspells a name or sets what cannot be stops the boot; later it changes nothing, and says so.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import structlog
import yaml
from pydantic import BaseModel, Field, ValidationError

from chatbot.limits.limits import LedgerSettings, LimitSettings

log = structlog.get_logger(__name__)

Written = Mapping[str, object]
"""A part of the file as it is written, names and values."""


class PlansRefused(Exception):
    """One sentence that names the file, the place and what is wrong there."""


@dataclass(frozen=True, slots=True)
class PlansRead:
    """The file has changed and was looked at; `accepted` says whether its plans apply now."""

    accepted: bool


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one state of the file from another."""

    inode: int
    size: int
    modified: int


class PlansFile(BaseModel, extra="forbid"):
    """The file as it is written; its entries are checked once they are whole."""

    default: dict[str, object] = Field(default_factory=dict)
    tenants: dict[str, dict[str, object]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Book:
    """Everybody's plan at one time."""

    default: LimitSettings
    tenants: Mapping[str, LimitSettings]


class Plans:
    """The plans in force; a look a second finds a file that was changed."""

    def __init__(
        self,
        settings: LedgerSettings,
        *,
        book: Book,
        version: Version | None = None,
        on_read: Callable[[PlansRead], None] = lambda _: None,
    ) -> None:
        """`version` is what the file was when `book` was read from it."""
        self._settings = settings
        self._on_read = on_read
        self._book = book
        self._last_seen = self._last_read = version

    def of(self, tenant: str) -> LimitSettings:
        """Return the tenant's plan."""
        return self._book.tenants.get(tenant, self._book.default)

    async def look(self, file: Path) -> None:
        """Read the file if it has changed and was left alone since the last look: its writer may be half done."""
        seen = await anyio.to_thread.run_sync(version_of, file)
        if seen == self._last_seen and seen != self._last_read:
            self._last_read = seen
            await self._read(file)
        self._last_seen = seen

    async def _read(self, file: Path) -> None:
        try:
            self._book = await anyio.to_thread.run_sync(read_plans, file, self._settings)
        except PlansRefused as exc:
            log.error("plans_refused", reason=str(exc))  # noqa: TRY400 - the sentence says all that a trace would
            self._on_read(PlansRead(accepted=False))
        else:
            log.info("plans_read", file=str(file), tenants=len(self._book.tenants))
            self._on_read(PlansRead(accepted=True))

    async def watch(self, file: Path) -> None:
        """Look for ever."""
        while True:
            await self.look(file)
            await anyio.sleep(self._settings.plans_every)


@asynccontextmanager
async def open_plans(settings: LedgerSettings, *, on_read: Callable[[PlansRead], None]) -> AsyncGenerator[Plans]:
    """Read the plans, and again whenever their file changes while the block runs.

    Raises:
        PlansRefused: the file says nothing that can be used.
    """
    file = settings.plans_file
    if file is None:
        yield Plans(settings, book=Book(settings.limits, settings.tenants))
        return
    version = await anyio.to_thread.run_sync(version_of, file)
    book = await anyio.to_thread.run_sync(read_plans, file, settings)
    plans = Plans(settings, book=book, version=version, on_read=on_read)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(plans.watch, file)
        try:
            yield plans
        finally:
            tasks.cancel_scope.cancel()


def version_of(file: Path) -> Version | None:
    """Return the file's state; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return Version(found.st_ino, found.st_size, found.st_mtime_ns)


def read_plans(file: Path, settings: LedgerSettings) -> Book:
    """Return the plans that the file writes over the settings'.

    Raises:
        PlansRefused: it cannot be read, or says what cannot be.
    """
    try:
        written = PlansFile.model_validate(yaml.safe_load(file.read_text("utf-8")) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise PlansRefused(f"the plans in {file} cannot be read: {exc}") from exc
    except ValidationError as exc:
        raise PlansRefused(sentence(file, (), exc)) from exc
    default = over(settings.limits.model_dump(), written.default)
    plans = dict(settings.tenants)
    for tenant, changes in written.tenants.items():
        plans[tenant] = plan(file, ("tenants", tenant), over(default, changes))
    return Book(plan(file, ("default",), default), plans)


def plan(file: Path, place: tuple[str, ...], written: Written) -> LimitSettings:
    """Return a plan whose roles take from `user` what they leave out.

    Raises:
        PlansRefused: it says what cannot be.
    """
    whole = dict(written)
    user, roles = whole.get("user"), whole.get("roles")
    if isinstance(user, Mapping) and isinstance(roles, Mapping):
        whole["roles"] = {
            name: over(user, changes) if isinstance(changes, Mapping) else changes for name, changes in roles.items()
        }
    try:
        return LimitSettings.model_validate(whole)
    except ValidationError as exc:
        raise PlansRefused(sentence(file, place, exc)) from exc


def over(under: Written, changes: Written) -> dict[str, object]:
    """Return `under` with the changes written over it, entry by entry."""
    merged = dict(under)
    for name, change in changes.items():
        before = merged.get(name)
        merged[name] = over(before, change) if isinstance(before, Mapping) and isinstance(change, Mapping) else change
    return merged


def sentence(file: Path, place: tuple[str, ...], exc: ValidationError) -> str:
    """Return what is wrong where."""
    wrong = [f"{'.'.join(map(str, (*place, *error['loc'])))}: {error['msg']}" for error in exc.errors()[:5]]
    return f"the plans in {file} cannot be used: {'; '.join(wrong)}"
