import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from redis.asyncio import Redis

from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import RateLimited, StoreUnavailable, TooLarge
from chatbot.events import Limits, Usage
from chatbot.limits.ledger import Caller, Ledger, Reservation
from chatbot.limits.limits import LedgerSettings, Limit, LimitSettings
from chatbot.redis_client import RedisBreaker
from tests.chatbot.conftest import PATIENT, LateBreaker
from tests.clock import Clock
from tests.conftest import redis_server

pytestmark = pytest.mark.anyio

START = 1_800_000_000.25  # Unix seconds
HUGE = Limit(tokens_per_minute=10**9, requests_per_minute=10**6, concurrent=10**6, tokens_per_day=10**12)


@pytest.fixture
def clock() -> Clock:
    return Clock(START)


def someone() -> Caller:
    return Caller(tenant=f"은행-{uuid.uuid4().hex}", sub="lee", model="qwen")


def limited(**limits: int) -> LimitSettings:
    return LimitSettings(user=HUGE.model_copy(update=limits), tenant=HUGE, model=HUGE)


def ledger_of(
    redis: Redis,
    limits: LimitSettings,
    clock: Clock | None = None,
    *,
    breaker: RedisBreaker | None = None,
    deferred: DeferredWrites | None = None,
    replicas: int = 1,
    **more: Any,
) -> Ledger:
    settings = LedgerSettings(limits=limits, replicas=replicas)
    deferred = deferred or DeferredWrites(DeferredSettings())
    return Ledger(redis, breaker or RedisBreaker(PATIENT), settings, clock=clock, deferred=deferred, **more)


async def reserve(ledger: Ledger, who: Caller, tokens: int, *, lease: float = 300) -> Reservation:
    return await ledger.reserve(who, prompt_tokens=tokens, answer_tokens=0, lease_seconds=lease)


def spent(tokens: int) -> Usage:
    return Usage(prompt_tokens=tokens)


async def refused(ledger: Ledger, who: Caller, tokens: int) -> RateLimited:
    with pytest.raises(RateLimited) as refusal:
        await reserve(ledger, who, tokens)
    return refusal.value


async def dump(redis: Redis, who: Caller) -> dict[bytes, object]:
    """Return all keys of a tenant in Redis with their contents."""
    prefix = f"ledger:{{{quote(who.tenant)}}}"
    return {key: await redis.dump(key) async for key in redis.scan_iter(match=f"{prefix}*")}


async def forget(redis: Redis, who: Caller) -> None:
    """Let Redis lose what it has of a tenant, as in a failover."""
    await redis.delete(*await dump(redis, who))


@pytest.mark.parametrize("before", ["its extension", "its end"])
async def test_a_reservation_that_redis_forgot_is_charged_again_once_and_counted(
    redis: Redis, clock: Clock, before: str
) -> None:
    forgotten: list[str] = []
    ledger, who = ledger_of(redis, limited(), clock, on_lost=lambda: forgotten.append("once")), someone()
    reservation = await reserve(ledger, who, 60)
    await forget(redis, who)
    if before == "its extension":
        more = await ledger.extend(reservation, more_tokens=40)
        assert more is not None
        _, user, _ = await ledger.spending(who)
        assert (user.use.tokens, user.use.today, user.use.requests, user.use.slots) == (100, 100, 1, 1)
        reservation = more
    for _ in range(2):
        await ledger.settle(reservation, spent(45))
        _, user, _ = await ledger.spending(who)
        assert (user.use.tokens, user.use.today, user.use.requests, user.use.slots) == (45, 45, 1, 0)
    assert forgotten == ["once"]
    assert await ledger.extend(reservation, more_tokens=1) is None, "it is settled"


async def test_larger_than_the_limit_is_too_large_without_a_wait(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    with pytest.raises(TooLarge) as refusal:
        await reserve(ledger, who, 101)
    assert refusal.value.retry_after is None
    assert await dump(redis, who) == {}


async def test_a_reservation_of_a_dead_process_is_released_after_its_lease(redis: Redis, clock: Clock) -> None:
    """The next question of the bank does it, whoever asks it; also where that question is refused."""
    ledger, dead = ledger_of(redis, limited(tokens_per_day=100), clock), someone()
    other = replace(dead, sub="kim", model="smaller")
    await reserve(ledger, dead, 60, lease=120)
    await ledger.extend(await reserve(ledger, dead, 10, lease=120), more_tokens=30)
    clock.pass_seconds(119)
    await reserve(ledger, other, 100)
    assert [spending.use.today for spending in await ledger.spending(dead)] == [200, 100, 100]
    clock.pass_seconds(1)
    assert (await refused(ledger, other, 1)).dimension == "tokens_per_day"
    assert [spending.use.today for spending in await ledger.spending(dead)] == [100, 0, 0]
    assert [spending.use.slots for spending in await ledger.spending(dead)] == [1, 0, 0]
    await reserve(ledger, dead, 100)


async def test_a_reservation_settled_after_its_release_is_charged_its_usage_once(redis: Redis, clock: Clock) -> None:
    forgotten: list[str] = []
    ledger, who = ledger_of(redis, limited(), clock, on_lost=lambda: forgotten.append("once")), someone()
    reservation = await reserve(ledger, who, 60, lease=120)
    clock.pass_seconds(120)
    assert (await ledger.spending(who))[1].use.today == 0
    for _ in range(2):
        await ledger.settle(reservation, spent(45))
        assert [spending.use.today for spending in await ledger.spending(who)] == [45, 45, 45]
    assert forgotten == [], "nothing was: it took long"


async def test_an_extension_is_charged_when_it_is_made_and_given_back_first(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    reservation = await reserve(ledger, who, 60)
    clock.pass_seconds(20)
    extended = await ledger.extend(reservation, more_tokens=40)
    assert extended is not None
    assert (extended.tokens, extended.limits.remaining_tokens) == (100, 0)
    before = await dump(redis, who)
    assert await ledger.extend(extended, more_tokens=1) is None
    assert await dump(redis, who) == before
    limits = await ledger.settle(extended, spent(70))
    assert limits is not None
    assert limits.remaining_tokens == 30
    clock.pass_seconds(41)  # the first part has left, 10 of the extension are still there
    assert (await ledger.limits(who)).remaining_tokens == 90


async def test_a_command_sent_twice_is_charged_once(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    reservation = await reserve(ledger, who, 10)
    first = await ledger.extend(reservation, more_tokens=5)
    again = await ledger.extend(reservation, more_tokens=5)
    assert first == again
    assert (await ledger.limits(who)).remaining_tokens == 85


@pytest.mark.parametrize("seconds", [-200_000, -600, -30, 600, 200_000])
async def test_a_clock_of_redis_that_is_set_locks_nobody_out_for_long(
    redis: Redis, clock: Clock, seconds: float
) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    await reserve(ledger, who, 100)
    clock.pass_seconds(seconds)
    if seconds == -30:
        assert (await refused(ledger, who, 100)).retry_after == 61 + 30 - 0.25
    else:
        await reserve(ledger, who, 100)


async def test_a_day_is_the_stores_and_no_clock_of_this_process(redis: Redis) -> None:
    up = 200 * 86_400.0  # seconds since this machine was started
    ledger, who = ledger_of(redis, LimitSettings(), monotonic=lambda: up), someone()
    zone = ZoneInfo(limited().zone)

    async def day() -> bytes:
        return f"{datetime.fromtimestamp((await redis.time())[0], zone):%Y%m%d}".encode()

    before = await day()
    await reserve(ledger, who, 60)
    charged = [key for key in await dump(redis, who) if key.endswith(b":days")]
    days = {day for key in charged for day in await redis.hkeys(key)}
    assert days
    assert days <= {before, await day()}


async def test_cached_prompt_tokens_cost_their_weight_in_the_minute_and_the_day(redis: Redis, clock: Clock) -> None:
    plan = limited(tokens_per_minute=100, tokens_per_day=1000).model_copy(update={"cached_weight": 0.25})
    ledger, who = ledger_of(redis, plan, clock), someone()
    usage = Usage(prompt_tokens=60, cached_tokens=40, answer_tokens=10)
    left = await ledger.settle(await reserve(ledger, who, 100), usage)
    assert left is not None
    assert (left.remaining_tokens, left.remaining_today) == (100 - 40, 1000 - 40)


async def test_limits_have_the_remainder_and_the_time_of_their_reset(redis: Redis, clock: Clock) -> None:
    ledger = ledger_of(redis, limited(tokens_per_minute=100, requests_per_minute=5, tokens_per_day=900), clock)
    who = someone()
    await reserve(ledger, who, 40)
    clock.pass_seconds(10)
    assert await ledger.limits(who) == Limits(
        limit_tokens=100,
        remaining_tokens=60,
        reset_tokens=50.75,
        limit_requests=5,
        remaining_requests=4,
        reset_requests=50.75,
        remaining_slots=10**6 - 1,
        remaining_today=860,
    )


async def test_expected_answer_tokens_are_the_tenants_95th_percentile(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(), clock), someone()
    assert await ledger.expected_answer_tokens(who.tenant, 400) == 400
    for answer in range(1, 41):
        reservation = await ledger.reserve(who, prompt_tokens=1000, answer_tokens=400, lease_seconds=60)
        await ledger.settle(reservation, Usage(prompt_tokens=1000, answer_tokens=answer))
    assert await ledger.expected_answer_tokens(who.tenant, 400) == 38
    assert await ledger.expected_answer_tokens(who.tenant, 20) == 20
    elsewhere = ledger_of(redis, limited(), clock)
    assert await elsewhere.expected_answer_tokens(who.tenant, 400) == 38


# --- Redis away ------------------------------------------------------------------------------------------------------


@dataclass
class Outage:
    """A ledger whose Redis may go and come back, and the clock of its process."""

    ledger: Ledger
    clock: Clock
    redis: Redis
    port: int

    async def begin(self) -> None:
        """Take Redis away."""
        await self._use_port(1)

    async def end(self) -> None:
        """Let it be found again by the next probe."""
        await self._use_port(self.port)
        self.clock.pass_seconds(1)

    async def _use_port(self, port: int) -> None:
        pool: Any = self.redis.connection_pool
        await pool.disconnect()
        pool.reset()
        pool.connection_kwargs["port"] = port


def outage_of(redis: Redis, limits: LimitSettings, **more: Any) -> Outage:
    clock = Clock(200 * 86_400.0)  # seconds since this machine was started
    ledger = ledger_of(redis, limits, breaker=RedisBreaker(PATIENT, clock=clock), monotonic=clock, **more)
    return Outage(ledger, clock, redis, redis.connection_pool.connection_kwargs["port"])


async def test_without_redis_a_replica_spends_its_share_for_a_minute(redis: Redis) -> None:
    outage, who = outage_of(redis, limited(tokens_per_minute=200), replicas=2), someone()
    await outage.begin()
    first = await reserve(outage.ledger, who, 30)
    assert first.local
    assert (first.limits.limit_tokens, first.limits.remaining_tokens) == (100, 20)
    assert (await refused(outage.ledger, who, 21)).dimension == "tokens_per_minute"
    with pytest.raises(StoreUnavailable):
        await outage.ledger.settle(first, spent(10))
    second = await reserve(outage.ledger, who, 20)
    assert second.limits.remaining_tokens == 20, "of the first 10 were used"
    assert (await outage.ledger.extend(second, more_tokens=21)) is None
    outage.clock.pass_seconds(59)
    longer = await outage.ledger.extend(await reserve(outage.ledger, who, 15), more_tokens=5)
    assert longer is not None
    assert (longer.tokens, longer.limits.remaining_tokens) == (20, 30)
    outage.clock.pass_seconds(1)
    with pytest.raises(StoreUnavailable):
        await reserve(outage.ledger, who, 1)


async def test_an_answer_admitted_without_redis_is_charged_once_redis_returns(redis: Redis) -> None:
    forgotten: list[str] = []
    outage, who = outage_of(redis, limited(), on_lost=lambda: forgotten.append("once")), someone()
    await outage.begin()
    reservation = await reserve(outage.ledger, who, 30)
    with pytest.raises(StoreUnavailable):
        await outage.ledger.settle(reservation, spent(10))
    await outage.end()
    assert await outage.ledger.settle(reservation, spent(10)) is not None
    assert await outage.ledger.settle(reservation, spent(10)) is None
    assert await use_of(outage.ledger, who) == (10, 0)
    assert forgotten == [], "Redis never had it"


async def use_of(ledger: Ledger, who: Caller) -> tuple[int, int]:
    """Return the tokens of the user's day, and the slots that are taken in all scopes together."""
    tenant, user, model = await ledger.spending(who)
    return user.use.today, tenant.use.slots + user.use.slots + model.use.slots


@pytest.mark.parametrize("delivered", ["before it is settled", "after it is settled"])
async def test_a_late_reservation_is_charged_its_usage_and_holds_no_slot(redis: Redis, delivered: str) -> None:
    breaker, who = LateBreaker(), someone()
    ledger = ledger_of(redis, limited(), breaker=breaker)
    await ledger.limits(who)
    breaker.is_late = True
    reservation = await reserve(ledger, who, 30)
    assert reservation.local
    if delivered == "before it is settled":
        await breaker.deliver()
        assert await use_of(ledger, who) == (30, 3)
    breaker.is_late = False
    assert await ledger.settle(reservation, spent(10)) is not None
    await breaker.deliver()
    assert await use_of(ledger, who) == (10, 0)


@pytest.mark.parametrize("delivered", ["before it is released", "after it is released"])
async def test_a_reservation_that_is_refused_here_and_redis_executes_late_is_released(
    redis: Redis, delivered: str
) -> None:
    breaker, who, deferred = LateBreaker(), someone(), DeferredWrites(DeferredSettings())
    ledger = ledger_of(redis, limited(tokens_per_minute=100), breaker=breaker, deferred=deferred, replicas=2)
    await ledger.limits(who)
    breaker.is_late = True
    with pytest.raises(StoreUnavailable):
        await reserve(ledger, who, 51)
    if delivered == "before it is released":
        await breaker.deliver()
        assert await use_of(ledger, who) == (51, 3)
    breaker.is_late = False
    await deferred.retry()
    await breaker.deliver()
    assert await use_of(ledger, who) == (0, 0)
    assert deferred.waiting == 0


async def test_each_outage_has_a_minute_of_its_own(redis: Redis) -> None:
    outage, who = outage_of(redis, limited(tokens_per_minute=100, tokens_per_day=1000)), someone()
    await reserve(outage.ledger, who, 1)  # shows what the day has left
    await outage.begin()
    await reserve(outage.ledger, who, 1)
    outage.clock.pass_seconds(60)
    with pytest.raises(StoreUnavailable):
        await reserve(outage.ledger, who, 1)
    await outage.end()
    assert not (await reserve(outage.ledger, who, 1)).local
    await outage.begin()
    assert (await reserve(outage.ledger, who, 1)).local


async def test_while_redis_only_reads_the_share_lasts_a_minute(tmp_path: Path) -> None:
    """As with a full disk, or without the replica that it needs; each reply with the limits' headers reads them."""
    with redis_server(tmp_path / "redis") as server:
        async with Redis(port=server.port) as redis:
            outage, who = outage_of(redis, limited(tokens_per_minute=200, tokens_per_day=250)), someone()
            await reserve(outage.ledger, who, 1, lease=0)  # has lapsed, and cannot be given back yet
            await redis.config_set("min-replicas-to-write", 1)
            with pytest.raises(StoreUnavailable):
                await outage.ledger.settle(await reserve(outage.ledger, who, 90), spent(150))
            assert (await outage.ledger.limits(who)).remaining_today == 249
            outage.clock.pass_seconds(59.5)
            await reserve(outage.ledger, who, 9)
            with pytest.raises(StoreUnavailable):
                await reserve(outage.ledger, who, 91)
            outage.clock.pass_seconds(0.5)
            with pytest.raises(StoreUnavailable):
                await reserve(outage.ledger, who, 1)
            await redis.config_set("min-replicas-to-write", 0)
            assert not (await reserve(outage.ledger, who, 1)).local


async def test_a_flood_of_one_user_is_refused_before_any_work() -> None:
    nowhere, who = Redis(port=1), someone()
    ledger = ledger_of(nowhere, limited(requests_per_minute=2))
    for _ in range(4):
        ledger.count_request(who)
    with pytest.raises(RateLimited):
        ledger.count_request(who)
    ledger.count_request(replace(who, sub="kim"))


async def test_an_outage_opens_no_second_window_beside_the_first(redis: Redis) -> None:
    outage, who = outage_of(redis, limited(tokens_per_minute=100)), someone()
    await reserve(outage.ledger, who, 100)
    await outage.begin()
    assert (await refused(outage.ledger, who, 20)).retry_after == pytest.approx(84), "nothing before a minute is over"
    outage.clock.pass_seconds(59)
    await refused(outage.ledger, who, 1)


async def test_an_extension_charged_by_redis_counts_in_the_outage(redis: Redis) -> None:
    outage, who = outage_of(redis, limited(tokens_per_minute=100)), someone()
    assert await outage.ledger.extend(await reserve(outage.ledger, who, 20), more_tokens=10) is not None
    await outage.begin()
    await refused(outage.ledger, who, 21)
    await reserve(outage.ledger, who, 20)


async def test_while_redis_is_away_a_known_answer_extends_from_the_share(redis: Redis) -> None:
    outage, who = outage_of(redis, limited(tokens_per_minute=100)), someone()
    reservation = await reserve(outage.ledger, who, 30)
    await outage.begin()
    longer = await outage.ledger.extend(reservation, more_tokens=20)
    assert longer is not None
    assert await outage.ledger.extend(longer, more_tokens=1) is None
    with pytest.raises(StoreUnavailable):
        await outage.ledger.settle(longer, spent(45))
    await outage.end()
    left = await outage.ledger.settle(longer, spent(45))
    assert left is not None
    assert left.remaining_tokens == 55
