"""Service keys authenticate machines. A person creates a key, sees it once, and can revoke it everywhere within 5 s.

A key is `bck_<id>_<secret>` with 256 random bits, so its stored SHA-256 does not reveal it. Every process of both
services polls the active keys once a second and verifies callers in memory, so forged keys cause no queries. If the
last read is more than five seconds old, every key is rejected (docs/decisions/0031-service-keys.md).
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
import structlog
from pydantic import BaseModel, Field, PositiveInt
from sqlalchemy import Column, Double, Row, String, Table, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from knowledge.access import EVERY_CUSTOMER
from knowledge.identity import MACHINE, ROLES, KeysUnavailable, Principal, TokenRefused
from knowledge.storage import migrate, polled, transaction_lock
from knowledge.withdrawals import METADATA, SCHEMA
from telemetry.supervision import OnFailure, uncounted

log = structlog.get_logger(__name__)

KEY_ROLES: Final = ROLES - {"approver"}
"""The roles that a key may have; approving a version takes a person."""
MOST_KEYS_PER_TENANT = 100
"""The maximum number of a tenant's active keys; every process holds all active keys and reads them each second."""
MOST_LISTED = 1_000
POLL_SECONDS = 1.0
DEADLINE_SECONDS = 2.0
KNOWN_FOR_SECONDS = 5.0  # the age at which the last read of the keys is too old
_DAY = 86_400.0

KEYS = Table(
    "knowledge_service_keys",
    METADATA,
    Column("id", String(16), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("tenant", String(200), nullable=False),
    Column("name", String(100), nullable=False),
    Column("roles", String(200), nullable=False),
    Column("made_by", String(310), nullable=False),
    Column("made_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("revoked_by", String(310), nullable=True),
    Column("revoked_at", Double, nullable=True),
)
_KEY: Final = re.compile(r"bck_([0-9a-f]{16})_[0-9a-f]{64}")  # the id, and the secret


class KeyRefused(Exception):
    """The requested key is not allowed; the message says why."""


class ServiceKeySettings(BaseModel, frozen=True):
    """The validity of keys."""

    longest_days: PositiveInt = Field(90, description="days: A service key is valid for at most this long.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A request for a key: `name` identifies the machine; `made_by` is a person, as `tenant/subject`.

    Without `days` the key gets the longest validity allowed.
    """

    tenant: str
    name: str
    roles: frozenset[str]
    made_by: str
    days: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceKey:
    """A key without its secret; times are in Unix seconds."""

    id: str
    tenant: str
    name: str
    roles: frozenset[str]
    made_by: str
    made_at: float
    expires_at: float
    revoked_by: str | None = None
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True)
class _ActiveKey:
    digest: str
    expires_at: float
    principal: Principal


class ServiceKeys:
    """The table of keys, with a cache of the active ones."""

    def __init__(
        self,
        engine: AsyncEngine,
        settings: ServiceKeySettings,
        *,
        now: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now` returns Unix seconds; `clock` is monotonic."""
        self._engine = engine
        self._longest_days = settings.longest_days
        self._now = now
        self._clock = clock
        self._keys: dict[str, _ActiveKey] = {}
        self._read_at = float("-inf")

    def principal(self, key: str) -> Principal:
        """Return the principal for a key.

        Raises:
            TokenRefused: the key is malformed, unknown, expired or revoked.
            KeysUnavailable: the last read is too old, so revocations may be missing.
        """
        parts = _KEY.fullmatch(key)
        if parts is None:
            raise TokenRefused("the service key is not complete")
        if self._clock() - self._read_at > KNOWN_FOR_SECONDS:
            raise KeysUnavailable("the service keys cannot be read")
        active = self._keys.get(parts[1])
        is_genuine = active is not None and hmac.compare_digest(active.digest, _digest(key))
        if active is None or not is_genuine or active.expires_at <= self._now():
            raise TokenRefused("the service key is unknown, revoked or expired")
        return active.principal

    async def make(self, new: NewKey) -> tuple[ServiceKey, str]:
        """Create a key; return it with its text, which is not stored.

        Raises:
            KeyRefused: a role or the validity is not allowed, or the tenant has too many active keys.
            UNAVAILABLE: the table cannot be written.
        """
        days = self._longest_days if new.days is None else new.days
        if not new.roles or not new.roles <= KEY_ROLES:
            raise KeyRefused(f"a key has one or more of the roles {', '.join(sorted(KEY_ROLES))}")
        if not 1 <= days <= self._longest_days:
            raise KeyRefused(f"a key is valid for 1 to {self._longest_days} days (SERVICE_KEYS__LONGEST_DAYS)")
        key_id = secrets.token_hex(8)
        text = f"bck_{key_id}_{secrets.token_hex(32)}"
        now = self._now()
        columns = {"id": key_id, "digest": _digest(text), "tenant": new.tenant, "name": new.name}
        columns |= {"roles": " ".join(sorted(new.roles)), "made_by": new.made_by}
        times = {"made_at": now, "expires_at": now + days * _DAY}
        active_count = select(func.count()).where(KEYS.c.tenant == new.tenant, _is_active(now))
        with anyio.fail_after(DEADLINE_SECONDS):
            async with self._engine.begin() as connection:
                await transaction_lock(connection, "service keys")
                if (await connection.execute(active_count)).scalar_one() >= MOST_KEYS_PER_TENANT:
                    raise KeyRefused(f"{MOST_KEYS_PER_TENANT} keys are in force: revoke one first")
                await connection.execute(insert(KEYS).values(columns | times))
                row = (await connection.execute(select(KEYS).where(KEYS.c.id == key_id))).one()
        log.warning("service_key_created", key=key_id, by=new.made_by, tenant=new.tenant, roles=sorted(new.roles))
        await self.read()
        return _key_of(row), text

    async def revoke(self, key_id: str, *, by: str, tenant: str | None = None) -> ServiceKey | None:
        """Revoke a key on every replica within 5 s; an already revoked key is unchanged.

        With `tenant`, only that tenant's keys match. Returns None if no key matches.

        Raises:
            UNAVAILABLE: the table cannot be written.
        """
        is_key = KEYS.c.id == key_id
        if tenant is not None:
            is_key &= KEYS.c.tenant == tenant
        revoke = update(KEYS).where(is_key, KEYS.c.revoked_at.is_(None)).values(revoked_at=self._now(), revoked_by=by)
        with anyio.fail_after(DEADLINE_SECONDS):
            async with self._engine.begin() as connection:
                revoked_keys = (await connection.execute(revoke)).rowcount
                row = (await connection.execute(select(KEYS).where(is_key))).one_or_none()
        if revoked_keys:
            log.warning("service_key_revoked", key=key_id, by=by)
        await self.read()
        return _key_of(row) if row is not None else None

    async def newest(self, *, tenant: str | None = None) -> tuple[ServiceKey, ...]:
        """Return the newest MOST_LISTED keys, revoked and expired ones included; with `tenant`, only that tenant's.

        Raises:
            UNAVAILABLE: the table cannot be read.
        """
        newest = select(KEYS).order_by(KEYS.c.made_at.desc(), KEYS.c.id).limit(MOST_LISTED)
        if tenant is not None:
            newest = newest.where(KEYS.c.tenant == tenant)
        with anyio.fail_after(DEADLINE_SECONDS):
            async with self._engine.connect() as connection:
                return tuple(_key_of(row) for row in (await connection.execute(newest)).all())

    async def read(self) -> None:
        """Read the active keys; raise one of `UNAVAILABLE` if the table cannot be read."""
        began = self._clock()  # the read may miss revocations from this time on
        columns = (KEYS.c.id, KEYS.c.digest, KEYS.c.tenant, KEYS.c.roles, KEYS.c.expires_at)
        with anyio.fail_after(DEADLINE_SECONDS):
            async with self._engine.connect() as connection:
                rows = (await connection.execute(select(*columns).where(_is_active(self._now())))).all()
        self._keys = {
            key_id: _ActiveKey(digest, expires_at, _principal_of(tenant, key_id, frozenset(roles.split()) & KEY_ROLES))
            for key_id, digest, tenant, roles, expires_at in rows
        }
        self._read_at = began


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _is_active(now: float) -> Any:
    return KEYS.c.revoked_at.is_(None) & (KEYS.c.expires_at > now)


def _principal_of(tenant: str, key_id: str, roles: frozenset[str]) -> Principal:
    groups = frozenset((EVERY_CUSTOMER,)) if roles else frozenset[str]()
    return Principal(tenant=tenant, sub=MACHINE + key_id, roles=roles, groups=groups)


def _key_of(row: Row[Any]) -> ServiceKey:
    columns = row._asdict()
    del columns["digest"]
    return ServiceKey(**columns | {"roles": frozenset(row.roles.split())})


async def person_behind(connection: AsyncConnection, tenant: str, subject: str) -> str:
    """Return the subject of the person who created a service key, in the caller's transaction.

    A subject that is not a service key is returned as it is.
    """
    if not subject.startswith(MACHINE):
        return subject
    made_by = select(KEYS.c.made_by).where(KEYS.c.id == subject.removeprefix(MACHINE), KEYS.c.tenant == tenant)
    maker = (await connection.execute(made_by)).scalar_one_or_none()
    return subject if maker is None else str(maker).removeprefix(f"{tenant}/")


async def load_service_keys(
    engine: AsyncEngine, settings: ServiceKeySettings | None = None, *, now: Callable[[], float]
) -> ServiceKeys:
    """Migrate the tables, and return the service keys after one read, without polling.

    Raises:
        UNAVAILABLE: the table cannot be read.
    """
    await migrate(engine, SCHEMA)
    keys = ServiceKeys(engine, settings or ServiceKeySettings(), now=now)
    await keys.read()
    return keys


@asynccontextmanager
async def open_service_keys(
    engine: AsyncEngine,
    settings: ServiceKeySettings | None = None,
    *,
    now: Callable[[], float],
    on_failure: OnFailure = uncounted,
) -> AsyncGenerator[ServiceKeys]:
    """Migrate the tables, read the active keys, and poll them while the block runs."""
    keys = await load_service_keys(engine, settings, now=now)
    async with polled("service_keys", keys.read, every=POLL_SECONDS, on_failure=on_failure):
        yield keys
