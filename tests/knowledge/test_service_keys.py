"""Service keys: their principal and validity, the stored data, and the cost of forged keys."""

from collections.abc import AsyncGenerator
from dataclasses import replace

import anyio
import pytest
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncEngine

from knowledge.access import EVERY_CUSTOMER
from knowledge.identity import ROLES, KeysUnavailable, Principal, TokenRefused
from knowledge.service_keys import (
    KEYS,
    KNOWN_FOR_SECONDS,
    MOST_KEYS_PER_TENANT,
    KeyRefused,
    NewKey,
    ServiceKeys,
    ServiceKeySettings,
    load_service_keys,
    open_service_keys,
    person_behind,
)
from knowledge.storage import open_engine
from tests.clock import Clock
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

BATCH = NewKey(tenant="hanbit", name="the nightly batch", roles=frozenset({"service"}), made_by="hanbit/park")
NOON = 1_800_000_000.0
DAY = 86_400.0


@pytest.fixture
def now() -> Clock:
    return Clock(NOON)


@pytest.fixture
def clock() -> Clock:
    """The monotonic clock."""
    return Clock(1000.0)


@pytest.fixture
async def keys(engine: AsyncEngine, now: Clock, clock: Clock) -> ServiceKeys:
    await load_service_keys(engine, now=now)  # creates the table
    keys = ServiceKeys(engine, ServiceKeySettings(), now=now, clock=clock)
    await keys.read()
    return keys


@pytest.fixture
async def replica(database_url: str, keys: ServiceKeys) -> AsyncGenerator[ServiceKeys]:  # noqa: ARG001  they make the table
    """Another process over the same database, which polls."""
    engine = open_engine(database_url)
    async with open_service_keys(engine, now=lambda: NOON) as other:
        yield other
    await engine.dispose()


def counted(engine: AsyncEngine) -> list[str]:
    """Return a list to which every further statement is appended."""
    statements: list[str] = []

    def keep(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", keep)
    return statements


def refused(keys: ServiceKeys, key: str) -> bool:
    try:
        keys.principal(key)
    except TokenRefused:
        return True
    return False


async def test_a_key_is_a_machine_of_its_tenant_until_it_expires(keys: ServiceKeys, now: Clock) -> None:
    made, key = await keys.make(replace(BATCH, roles=frozenset({"service", "staff"}), days=30))
    assert keys.principal(key) == Principal(
        tenant="hanbit",
        sub=f"service:{made.id}",
        roles=frozenset({"service", "staff"}),
        groups=frozenset({EVERY_CUSTOMER}),
    )
    now.pass_seconds(30 * DAY - 1)
    assert keys.principal(key).is_machine
    now.pass_seconds(1)
    assert refused(keys, key), "without another look at the table"
    await keys.read()
    assert refused(keys, key)


async def test_a_key_has_roles_of_machines_only(keys: ServiceKeys) -> None:
    for roles in (frozenset[str](), frozenset({"approver"}), ROLES, frozenset({"root"})):
        with pytest.raises(KeyRefused, match="one or more of the roles"):
            await keys.make(replace(BATCH, roles=roles))
    assert await keys.newest() == ()


async def test_the_stored_part_of_a_key_does_not_sign_in(keys: ServiceKeys, engine: AsyncEngine) -> None:
    made, key = await keys.make(BATCH)
    async with engine.connect() as connection:
        (row,) = (await connection.execute(select(KEYS))).all()
    secret = key.removeprefix(f"bck_{made.id}_")
    assert len(secret) == 64
    assert secret not in repr(row)
    assert secret not in repr(made)
    assert refused(keys, f"bck_{made.id}_{row.digest}")


async def test_anything_but_the_whole_key_is_refused(keys: ServiceKeys) -> None:
    (made, key), (other, _) = await keys.make(BATCH), await keys.make(replace(BATCH, tenant="other"))
    last = "0" if key[-1] != "0" else "1"
    swapped = key.replace(made.id, other.id)
    for wrong in (key[:-1] + last, key[:-1], key + "0", key.upper(), swapped, "bck_", f"bck_{made.id}_", f" {key}"):
        assert refused(keys, wrong), wrong
    assert not refused(keys, key)


async def test_a_flood_of_unknown_keys_never_reaches_the_database(keys: ServiceKeys, engine: AsyncEngine) -> None:
    await keys.make(BATCH)
    statements = counted(engine)
    for n in range(10_000):
        assert refused(keys, f"bck_{n:016x}_{n:064x}")
    assert statements == []
    assert len(keys._keys) == 1


async def test_a_revoked_key_is_refused_at_once_here_and_within_five_seconds_elsewhere(
    keys: ServiceKeys, replica: ServiceKeys
) -> None:
    made, key = await keys.make(BATCH)
    with anyio.fail_after(patient(5)):
        while refused(replica, key):
            await anyio.sleep(0.01)
    revoked = await keys.revoke(made.id, by="hanbit/kim")
    assert revoked is not None
    assert (revoked.revoked_by, revoked.revoked_at) == ("hanbit/kim", NOON)
    assert refused(keys, key)
    with anyio.fail_after(patient(5)):
        while not refused(replica, key):
            await anyio.sleep(0.01)
    again = await keys.revoke(made.id, by="hanbit/lee")
    assert again is not None
    assert again.revoked_by == "hanbit/kim", "who was first stays written down"


async def test_one_tenant_revokes_and_lists_no_key_of_another(keys: ServiceKeys) -> None:
    made, key = await keys.make(BATCH)
    other, _ = await keys.make(replace(BATCH, tenant="other"))
    assert await keys.revoke(made.id, by="other/kim", tenant="other") is None
    assert await keys.revoke("0" * 16, by="hanbit/kim") is None
    assert not refused(keys, key)
    assert [listed.id for listed in await keys.newest(tenant="other")] == [other.id]
    assert {listed.id for listed in await keys.newest()} == {made.id, other.id}


async def test_keys_read_more_than_five_seconds_ago_are_unavailable(keys: ServiceKeys, clock: Clock) -> None:
    _, key = await keys.make(BATCH)
    clock.pass_seconds(KNOWN_FOR_SECONDS)
    assert not refused(keys, key)
    clock.pass_seconds(0.1)
    for sent in (key, f"bck_{'0' * 16}_{'0' * 64}"):
        with pytest.raises(KeysUnavailable):
            keys.principal(sent)
    await keys.read()
    assert not refused(keys, key)


async def test_the_five_seconds_begin_before_the_table_is_read(
    keys: ServiceKeys, engine: AsyncEngine, clock: Clock
) -> None:
    _, key = await keys.make(BATCH)
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: clock.pass_seconds(3), once=True)
    await keys.read()
    clock.pass_seconds(2.1)
    with pytest.raises(KeysUnavailable):
        keys.principal(key)


async def test_a_tenant_has_a_hundred_keys_in_force_at_most(keys: ServiceKeys) -> None:
    made = [await keys.make(BATCH) for _ in range(MOST_KEYS_PER_TENANT)]
    with pytest.raises(KeyRefused, match="revoke one first"):
        await keys.make(BATCH)
    await keys.make(replace(BATCH, tenant="other"))
    await keys.revoke(made[0][0].id, by="hanbit/kim")
    await keys.make(BATCH)


@pytest.mark.parametrize(
    ("subject", "person"),
    [("kim", "kim"), ("{machine}", "park"), ("service:unknown", "service:unknown")],
)
async def test_the_person_behind_a_machine_made_its_key(
    keys: ServiceKeys, engine: AsyncEngine, subject: str, person: str
) -> None:
    made, _ = await keys.make(BATCH)
    await keys.revoke(made.id, by="hanbit/kim")
    async with engine.connect() as connection:
        assert await person_behind(connection, "hanbit", subject.format(machine=f"service:{made.id}")) == person
        assert await person_behind(connection, "other", f"service:{made.id}") == f"service:{made.id}"


async def test_a_key_is_valid_for_90_days_at_most(keys: ServiceKeys) -> None:
    made, _ = await keys.make(BATCH)
    assert made.expires_at == NOON + 90 * DAY
    for days in (0, -1, 91):
        with pytest.raises(KeyRefused, match="1 to 90 days"):
            await keys.make(replace(BATCH, days=days))
