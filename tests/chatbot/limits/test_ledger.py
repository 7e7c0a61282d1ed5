import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest
import redis.exceptions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import RateLimited, StoreUnavailable, TooLarge
from chatbot.events import Limits, Usage
from chatbot.limits.ledger import Caller, Ledger, Reservation
from chatbot.limits.limits import LedgerSettings, Limit, LimitSettings
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, in_time, open_redis
from tests.chatbot.conftest import PATIENT, LateBreaker
from tests.clock import Clock
from tests.conftest import redis_server
from tests.constants import settings_with, with_constants
from tests.e2e.relay import wired

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
    clock: Clock | None,
    on_forgotten: Callable[[], None] = lambda: None,
    **more: Any,
) -> Ledger:
    settings = settings_with(LedgerSettings, limits=limits, **more)
    return Ledger(
        redis,
        RedisBreaker(PATIENT),
        settings,
        clock=clock,
        on_forgotten=on_forgotten,
        deferred=DeferredWrites(DeferredSettings()),
    )


async def reserve(ledger: Ledger, who: Caller, tokens: int, *, lease: float = 300) -> Reservation:
    return await ledger.reserve(who, prompt_tokens=tokens, answer_tokens=0, lease_seconds=lease)


def spent(tokens: int) -> Usage:
    return Usage(prompt_tokens=tokens)


async def refused(ledger: Ledger, who: Caller, tokens: int) -> RateLimited:
    with pytest.raises(RateLimited) as refusal:
        await reserve(ledger, who, tokens)
    return refusal.value


def wait_of(refusal: RateLimited) -> float:
    assert refusal.retry_after is not None
    return refusal.retry_after


async def dump(redis: Redis, who: Caller) -> dict[bytes, object]:
    """Everything that Redis keeps of a tenant."""
    dumped: dict[bytes, object] = {}
    prefix = await tenant_prefix(redis, who)
    async for key in redis.scan_iter(match=prefix + b"*"):
        dumped[key] = await redis.dump(key)
    return dumped


async def tenant_prefix(redis: Redis, who: Caller) -> bytes:
    await redis.ping()
    return f"ledger:{{%EC%9D%80%ED%96%89-{who.tenant.split('-')[1]}}}".encode()


async def test_tokens_up_to_the_limit_pass_and_one_more_is_refused_by_scope_and_dimension(
    redis: Redis, clock: Clock
) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    assert (await reserve(ledger, who, 100)).limits.remaining_tokens == 0
    refusal = await refused(ledger, who, 1)
    assert (refusal.scope, refusal.dimension) == ("user", "tokens_per_minute")


async def forget(redis: Redis, who: Caller) -> None:
    """Let Redis lose what it has of a tenant, as in a failover."""
    await redis.delete(*await dump(redis, who))


@pytest.mark.parametrize("before", ["its extension", "its end"])
async def test_a_reservation_that_redis_forgot_is_charged_anew_once_and_counted(
    redis: Redis, clock: Clock, before: str
) -> None:
    forgotten: list[str] = []
    ledger, who = ledger_of(redis, limited(), clock, on_forgotten=lambda: forgotten.append("once")), someone()
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


async def test_a_reservation_that_is_too_large_by_now_is_not_made_anew(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    reservation = await reserve(ledger, who, 60)
    await forget(redis, who)
    await reserve(ledger, who, 60)
    assert await ledger.extend(reservation, more_tokens=1) is None
    await ledger.settle(reservation, spent(60))
    _, user, _ = await ledger.spending(who)
    assert user.use.tokens == 120, "it was used"


@pytest.mark.parametrize("scope", ["tenant", "user", "model"])
async def test_every_scope_has_its_own_limit(redis: Redis, clock: Clock, scope: str) -> None:
    limits = LimitSettings(user=HUGE, tenant=HUGE, model=HUGE).model_copy(
        update={scope: HUGE.model_copy(update={"requests_per_minute": 1})}
    )
    ledger, who = ledger_of(redis, limits, clock), someone()
    await reserve(ledger, who, 1)
    refusal = await refused(ledger, who, 1)
    assert (refusal.scope, refusal.dimension) == (scope, "requests_per_minute")
    other = Caller(tenant=who.tenant, sub="kim", model=who.model if scope == "user" else "other")
    if scope == "tenant":
        await refused(ledger, other, 1)
    else:
        await reserve(ledger, other, 1)


async def test_a_refusal_writes_nothing(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    await reserve(ledger, who, 60)
    clock.pass_seconds(3)
    before = await dump(redis, who)
    await refused(ledger, who, 41)
    assert await dump(redis, who) == before
    assert len(before) == 10  # three scopes of three, and the reservation


async def test_every_key_carries_the_tenant_in_braces(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    before = {key async for key in redis.scan_iter()}
    await ledger.settle(await reserve(ledger, who, 60), spent(50))
    prefix = await tenant_prefix(redis, who)
    new = {key async for key in redis.scan_iter()} - before
    assert new
    assert all(key.startswith(prefix) for key in new)


async def test_the_wait_of_a_refusal_is_true(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    for tokens in (30, 40, 30):
        await reserve(ledger, who, tokens)
        clock.pass_seconds(7)
    wait = wait_of(await refused(ledger, who, 50))
    clock.pass_seconds(wait - 1)
    await refused(ledger, who, 50)
    clock.pass_seconds(1)
    await reserve(ledger, who, 50)


async def test_larger_than_the_limit_is_too_large_without_a_wait(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    with pytest.raises(TooLarge) as refusal:
        await reserve(ledger, who, 101)
    assert refusal.value.retry_after is None
    assert await dump(redis, who) == {}


async def test_slots_are_leases_that_end_by_settling_or_by_time(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(concurrent=2), clock), someone()
    first = await reserve(ledger, who, 1, lease=30)
    await reserve(ledger, who, 1, lease=90)
    refusal = await refused(ledger, who, 1)
    assert (refusal.scope, refusal.dimension, refusal.retry_after) == ("user", "concurrent", None)
    await ledger.settle(first, spent(1))
    third = await reserve(ledger, who, 1, lease=60)
    assert third.limits.remaining_slots == 0
    await refused(ledger, who, 1)
    clock.pass_seconds(60)
    await reserve(ledger, who, 1)


async def test_of_a_full_minute_and_full_slots_the_known_wait_is_raised(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(concurrent=1, requests_per_minute=1), clock), someone()
    await reserve(ledger, who, 1)
    refusal = await refused(ledger, who, 1)
    assert (refusal.dimension, refusal.retry_after) == ("requests_per_minute", 60.75)


async def test_what_a_dead_process_has_reserved_is_given_back_when_its_lease_has_ended(
    redis: Redis, clock: Clock
) -> None:
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


async def test_who_settles_a_reservation_that_was_given_back_is_charged_what_was_used_once(
    redis: Redis, clock: Clock
) -> None:
    forgotten: list[str] = []
    ledger, who = ledger_of(redis, limited(), clock, on_forgotten=lambda: forgotten.append("once")), someone()
    reservation = await reserve(ledger, who, 60, lease=120)
    clock.pass_seconds(120)
    assert (await ledger.spending(who))[1].use.today == 0
    for _ in range(2):
        await ledger.settle(reservation, spent(45))
        assert [spending.use.today for spending in await ledger.spending(who)] == [45, 45, 45]
    assert forgotten == [], "nothing was: it took long"


async def test_the_lapsed_reservation_of_an_answer_that_goes_on_is_charged_whole_with_its_extension(
    redis: Redis, clock: Clock
) -> None:
    ledger, who = ledger_of(redis, limited(), clock), someone()
    reservation = await reserve(ledger, who, 60, lease=120)
    clock.pass_seconds(120)
    assert (await ledger.spending(who))[1].use.today == 0
    extended = await ledger.extend(reservation, more_tokens=40)
    assert extended is not None
    assert (await ledger.spending(who))[1].use.today == 100
    await ledger.settle(extended, spent(70))
    assert (await ledger.spending(who))[1].use.today == 70


async def test_of_many_lapsed_reservations_some_are_given_back_with_each_question(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(), clock), someone()
    for _ in range(25):
        await reserve(ledger, who, 4, lease=120)
    clock.pass_seconds(120)
    assert [(await ledger.spending(who))[1].use.today for _ in range(4)] == [60, 20, 0, 0]


async def test_limits_are_read_although_redis_takes_no_writes_and_something_has_lapsed(
    tmp_path: Path, clock: Clock
) -> None:
    """As with a full disk, or a memory that is full."""
    with redis_server(tmp_path / "redis") as server:
        async with Redis(port=server.port) as redis:
            ledger, who = ledger_of(redis, limited(), clock), someone()
            await reserve(ledger, who, 60, lease=120)
            clock.pass_seconds(120)
            await redis.config_set("min-replicas-to-write", 1)
            assert [spending.use.today for spending in await ledger.spending(who)] == [60, 60, 60]
            await redis.config_set("min-replicas-to-write", 0)
            assert [spending.use.today for spending in await ledger.spending(who)] == [0, 0, 0]


async def test_settling_corrects_the_bucket_and_the_day_once(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100, tokens_per_day=1000), clock), someone()
    reservation = await reserve(ledger, who, 100)
    clock.pass_seconds(5)
    limits = await ledger.settle(reservation, spent(30))
    assert limits is not None
    assert (limits.remaining_tokens, limits.remaining_today) == (70, 970)
    assert await ledger.settle(reservation, spent(0)) is None
    assert (await ledger.limits(who)).remaining_tokens == 70
    await reserve(ledger, who, 70)
    assert wait_of(await refused(ledger, who, 30)) == pytest.approx(61 - 5 - 0.25)


async def test_settling_after_the_window_has_passed_corrects_the_day_only(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100, tokens_per_day=1000), clock), someone()
    reservation = await reserve(ledger, who, 100)
    clock.pass_seconds(200)
    limits = await ledger.settle(reservation, spent(30))
    assert limits is not None
    assert (limits.remaining_tokens, limits.remaining_today) == (100, 970)


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


async def test_a_settled_reservation_cannot_be_extended(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    reservation = await reserve(ledger, who, 10)
    await ledger.settle(reservation, spent(10))
    assert await ledger.extend(reservation, more_tokens=5) is None
    assert (await ledger.limits(who)).remaining_tokens == 90


async def test_more_used_than_reserved_is_charged_too(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    limits = await ledger.settle(await reserve(ledger, who, 10), spent(25))
    assert limits is not None
    assert limits.remaining_tokens == 75


async def test_the_day_ends_at_midnight_in_the_tenants_zone(redis: Redis) -> None:
    clock = Clock(1_800_000_000 - 1_800_000_000 % 86400 + 14 * 3600 + 59 * 60)  # 23:59 in Seoul
    ledger, who = ledger_of(redis, limited(tokens_per_day=100), clock), someone()
    late = await reserve(ledger, who, 80)
    refusal = await refused(ledger, who, 21)
    assert (refusal.scope, refusal.dimension, refusal.retry_after) == ("user", "tokens_per_day", 60)
    clock.pass_seconds(59)
    await refused(ledger, who, 21)
    clock.pass_seconds(1)
    assert (await reserve(ledger, who, 100)).limits.remaining_today == 0
    # What was reserved yesterday is settled on yesterday.
    await ledger.settle(late, spent(10))
    assert (await ledger.limits(who)).remaining_today == 0


async def test_of_what_is_spent_every_day_the_last_days_are_kept_and_no_clock_makes_today_one_of_the_others(
    redis: Redis, clock: Clock
) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_day=100), clock), someone()
    for _ in range(6):
        clock.pass_seconds(86_400)
        await reserve(ledger, who, 60)
    kept = {key: await redis.hlen(key) for key in await dump(redis, who) if key.endswith(b":days")}
    assert len(kept) == 3
    assert set(kept.values()) == {3}
    clock.pass_seconds(-20 * 86_400.0)  # it was ahead all the time
    await reserve(ledger, who, 60)
    assert (await refused(ledger, who, 60)).dimension == "tokens_per_day"


@pytest.mark.parametrize("seconds", [-200_000, -600, -30, 600, 200_000])
async def test_a_clock_of_redis_that_is_set_locks_nobody_out_for_long(
    redis: Redis, clock: Clock, seconds: float
) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100), clock), someone()
    await reserve(ledger, who, 100)
    clock.pass_seconds(seconds)
    if seconds == -30:
        assert wait_of(await refused(ledger, who, 100)) == 61 + 30 - 0.25
    else:
        await reserve(ledger, who, 100)


async def test_a_day_is_the_stores_and_no_clock_of_this_process(redis: Redis) -> None:
    up = 200 * 86_400.0  # seconds since this machine was started
    ledger, who = (
        Ledger(
            redis,
            RedisBreaker(PATIENT),
            LedgerSettings(),
            monotonic=lambda: up,
            deferred=DeferredWrites(DeferredSettings()),
        ),
        someone(),
    )
    zone = ZoneInfo(limited().zone)

    async def day() -> bytes:
        return f"{datetime.fromtimestamp((await redis.time())[0], zone):%Y%m%d}".encode()

    before = await day()
    await reserve(ledger, who, 60)
    charged = [key for key in await dump(redis, who) if key.endswith(b":days")]
    days = {day for key in charged for day in await redis.hkeys(key)}
    assert days
    assert days <= {before, await day()}


async def test_the_longest_of_several_waits_is_told(redis: Redis, clock: Clock) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=100, requests_per_minute=2), clock), someone()
    await reserve(ledger, who, 10)
    clock.pass_seconds(10)
    await reserve(ledger, who, 90)
    refusal = await refused(ledger, who, 100)
    assert refusal.dimension == "tokens_per_minute"
    clock.pass_seconds(wait_of(refusal))
    await reserve(ledger, who, 100)


async def test_fifty_at_once_exactly_at_the_limit_admit_no_more_than_the_limit(redis: Redis) -> None:
    ledger, who = ledger_of(redis, limited(tokens_per_minute=250), None), someone()
    admitted: list[Reservation] = []
    refusals: list[RateLimited] = []

    async def one() -> None:
        try:
            admitted.append(await reserve(ledger, who, 10))
        except RateLimited as refusal:
            refusals.append(refusal)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(one)
    assert (len(admitted), len(refusals)) == (25, 25)
    assert all(59 < wait_of(refusal) <= 61 for refusal in refusals)


async def test_limits_follow_the_tenant(redis: Redis, clock: Clock) -> None:
    who = someone()
    own_limits = {who.tenant: limited(tokens_per_minute=7)}
    ledger = ledger_of(redis, limited(tokens_per_minute=100), clock, tenants=own_limits)
    assert (await ledger.limits(who)).limit_tokens == 7
    assert (await ledger.limits(someone())).limit_tokens == 100


async def test_cached_prompt_tokens_cost_their_weight_in_the_minute_and_the_day(redis: Redis, clock: Clock) -> None:
    plan = limited(tokens_per_minute=100, tokens_per_day=1000).model_copy(update={"cached_weight": 0.25})
    ledger, who = ledger_of(redis, plan, clock), someone()
    usage = Usage(prompt_tokens=60, cached_tokens=40, answer_tokens=10)
    left = await ledger.settle(await reserve(ledger, who, 100), usage)
    assert left is not None
    assert (left.remaining_tokens, left.remaining_today) == (100 - 40, 1000 - 40)


async def test_limits_say_what_is_left_and_when_all_of_it_is_back(redis: Redis, clock: Clock) -> None:
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


# --- properties ------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.integers(0, 25_000), st.integers(1, 100), st.sampled_from(["keep", "settle", "extend", "late"])),
    min_size=1,
    max_size=40,
)


@dataclass
class Charge:
    at: float
    tokens: int


def most_in_any_minute(charges: list[Charge]) -> int:
    return max((sum(c.tokens for c in charges if start.at <= c.at < start.at + 60) for start in charges), default=0)


async def play(ledger: Ledger, who: Caller, clock: Clock, steps: list[tuple[int, int, str]]) -> list[Charge]:
    """Act as the steps say, and return what was charged, when."""
    charges: list[Charge] = []
    pending: list[tuple[Reservation, Charge]] = []
    for millis, tokens, then in steps:
        clock.pass_seconds(millis / 1000)
        try:
            reservation = await reserve(ledger, who, tokens)
        except RateLimited as refusal:
            await assert_true(refusal, ledger, who, tokens, clock)
            charges.append(Charge(clock.now, tokens))
            continue
        charge = Charge(clock.now, tokens)
        charges.append(charge)
        if then == "settle":
            charge.tokens = tokens // 2
            assert await ledger.settle(reservation, spent(charge.tokens)) is not None
        elif then == "extend" and await ledger.extend(reservation, more_tokens=10) is not None:
            charges.append(Charge(clock.now, 10))
        elif then == "late":
            pending.append((reservation, charge))
        if len(pending) > 2:
            held, old = pending.pop(0)
            old.tokens //= 3
            assert await ledger.settle(held, spent(old.tokens)) is not None
    return charges


async def assert_true(refusal: RateLimited, ledger: Ledger, who: Caller, tokens: int, clock: Clock) -> None:
    """The wait is true: after it the same passes, and not a second earlier."""
    wait = wait_of(refusal)
    assert 0 < wait <= 61
    if wait > 1:
        clock.pass_seconds(wait - 1)
        await refused(ledger, who, tokens)
        wait = 1
    clock.pass_seconds(wait + 1e-6)  # a float of today's seconds is exact to 0.24 µs
    await reserve(ledger, who, tokens)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_never_more_than_the_limit_in_any_minute_and_every_wait_is_true(
    redis: Redis, steps: list[tuple[int, int, str]]
) -> None:
    clock, who = Clock(START), someone()
    ledger = ledger_of(redis, limited(tokens_per_minute=100, requests_per_minute=6), clock)
    charges = await play(ledger, who, clock, steps)
    assert most_in_any_minute(charges) <= 100
    assert most_in_any_minute([Charge(c.at, 1) for c in charges if c.tokens != 10]) <= 6


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
    clock = Clock(1000)
    ledger = Ledger(
        redis,
        RedisBreaker(PATIENT, clock=clock),
        settings_with(LedgerSettings, limits=limits, **more),
        monotonic=clock,
        deferred=DeferredWrites(DeferredSettings()),
    )
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


async def test_an_answer_that_was_admitted_without_redis_is_charged_once_when_redis_is_back(redis: Redis) -> None:
    forgotten: list[str] = []
    ledger = ledger_of(redis, limited(), None, on_forgotten=lambda: forgotten.append("once"))
    outage = Outage(ledger, Clock(1000), redis, redis.connection_pool.connection_kwargs["port"])
    who = someone()
    await outage.begin()
    reservation = await reserve(ledger, who, 30)
    with pytest.raises(StoreUnavailable):
        await ledger.settle(reservation, spent(10))
    await outage.end()
    with anyio.fail_after(5):
        while await settled_at_last(ledger, reservation) is None:
            await anyio.sleep(0.05)
    assert await ledger.settle(reservation, spent(10)) is None
    assert await use_of(ledger, who) == (10, 0)
    assert forgotten == [], "Redis never had it"


async def settled_at_last(ledger: Ledger, reservation: Reservation) -> Limits | None:
    with suppress(StoreUnavailable):
        return await ledger.settle(reservation, spent(10))
    return None


async def use_of(ledger: Ledger, who: Caller) -> tuple[int, int]:
    """Return the tokens of the user's day, and the slots that are taken in all scopes together."""
    tenant, user, model = await ledger.spending(who)
    return user.use.today, tenant.use.slots + user.use.slots + model.use.slots


@pytest.mark.parametrize("delivered", ["before it is settled", "after it is settled"])
async def test_a_reservation_that_redis_executes_late_is_charged_what_was_used_and_keeps_no_slot(
    redis: Redis, delivered: str
) -> None:
    breaker, who = LateBreaker(), someone()
    ledger = Ledger(redis, breaker, LedgerSettings(limits=limited()), deferred=DeferredWrites(DeferredSettings()))
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
    settings = LedgerSettings(limits=limited(tokens_per_minute=100), replicas=2)
    ledger = Ledger(redis, breaker, settings, deferred=deferred)
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


@pytest.mark.parametrize("refusing", [("--replicaof", "127.0.0.1 1"), ("--maxmemory", "1")])
async def test_a_reservation_whose_reply_was_lost_is_released_although_another_redis_refused_it_then(
    tmp_path: Path, refusing: tuple[str, str]
) -> None:
    """redis-py sends a command again over another connection: the second error says nothing of the first time."""
    who, deferred, clock = someone(), DeferredWrites(DeferredSettings()), Clock(1000)
    settings = LedgerSettings(limits=limited(tokens_per_minute=100), replicas=2)
    with redis_server(tmp_path / "first") as first, redis_server(tmp_path / "second", *refusing) as second:
        async with wired(first.url) as wire, open_redis(wire.url.replace("http", "redis")) as redis:
            ledger = Ledger(redis, RedisBreaker(PATIENT, clock=clock), settings, deferred=deferred)
            await ledger.settle(await reserve(ledger, who, 1), spent(0))  # the next command reserves
            wire.on_reply = partial(wire.lead_to, second.url)
            with pytest.raises(StoreUnavailable):
                await reserve(ledger, who, 51)
            wire.lead_to(first.url)
            clock.pass_seconds(1)
            assert await use_of(ledger, who) == (51, 3)
            await deferred.retry()
            assert await use_of(ledger, who) == (0, 0)


async def test_a_reservation_that_was_never_sent_is_not_released(redis: Redis) -> None:
    breaker, deferred = RedisBreaker(PATIENT), DeferredWrites(DeferredSettings())
    settings = LedgerSettings(limits=limited(tokens_per_minute=100), replicas=2)
    ledger, who = Ledger(redis, breaker, settings, deferred=deferred), someone()
    outage = Outage(ledger, Clock(1000), redis, redis.connection_pool.connection_kwargs["port"])
    await outage.begin()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await reserve(ledger, who, 26)
    assert deferred.waiting == 1, "of the first one nobody knows: it was sent"


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


async def test_while_redis_only_reads_the_share_lasts_a_minute_and_the_day_is_not_spent_twice(tmp_path: Path) -> None:
    """As with a full disk, or without the replica that it needs; each reply with the limits' headers reads them."""
    with redis_server(tmp_path / "redis") as server:
        async with Redis(port=server.port) as redis:
            outage, who = outage_of(redis, limited(tokens_per_minute=200, tokens_per_day=250)), someone()
            await reserve(outage.ledger, who, 1)
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
    ledger = ledger_of(nowhere, limited(requests_per_minute=2), None)
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


async def test_what_redis_has_added_to_an_answer_counts_in_the_outage_too(redis: Redis) -> None:
    outage, who = outage_of(redis, limited(tokens_per_minute=100)), someone()
    assert await outage.ledger.extend(await reserve(outage.ledger, who, 20), more_tokens=10) is not None
    await outage.begin()
    await refused(outage.ledger, who, 21)
    await reserve(outage.ledger, who, 20)


async def test_while_redis_is_away_an_answer_it_knows_goes_on_from_the_share(redis: Redis) -> None:
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


# --- the breaker -----------------------------------------------------------------------------------------------------


async def test_the_first_slow_command_opens_the_breaker_and_one_probe_a_period_closes_it() -> None:
    clock, asked = Clock(0), 0
    breaker = RedisBreaker(with_constants(RedisBreakerSettings(slow_after=0.05), probe_timeout=0.05), clock=clock)

    async def hang() -> None:
        nonlocal asked
        asked += 1
        await anyio.sleep_forever()

    async def answer() -> str:
        nonlocal asked
        asked += 1
        return "PONG"

    with pytest.raises(StoreUnavailable):
        await breaker.call(hang)
    for _ in range(50):
        with pytest.raises(StoreUnavailable):
            await breaker.call(answer)
    assert (asked, breaker.is_open) == (1, True)
    clock.pass_seconds(0.5)
    with pytest.raises(StoreUnavailable):
        await breaker.call(hang)
    clock.pass_seconds(0.49)
    with pytest.raises(StoreUnavailable):
        await breaker.call(answer)
    clock.pass_seconds(0.01)
    assert breaker.back_for == 0
    assert (await breaker.call(answer), breaker.is_open, asked) == ("PONG", False, 3)
    clock.pass_seconds(7)
    assert breaker.back_for == 7


async def test_half_open_lets_one_through_whoever_else_arrives() -> None:
    clock, inside, release = Clock(0), 0, anyio.Event()
    breaker = RedisBreaker(with_constants(RedisBreakerSettings(), probe_timeout=20), clock=clock)

    async def broken() -> None:
        raise redis.exceptions.ConnectionError

    async def probe() -> None:
        nonlocal inside
        inside += 1
        await release.wait()

    async def one() -> None:
        try:
            await breaker.call(probe)
        except StoreUnavailable:
            if not release.is_set():
                release.set()

    with pytest.raises(StoreUnavailable):
        await breaker.call(broken)
    clock.pass_seconds(1)
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(one)
    assert (inside, breaker.is_open) == (1, False)


async def test_a_late_event_loop_is_not_held_against_redis() -> None:
    async def answered_while_the_loop_slept() -> str:
        await anyio.sleep(0.06)
        return "PONG"

    async def hold_the_loop() -> None:
        await anyio.sleep(0.01)
        deadline = anyio.current_time() + 0.1
        while anyio.current_time() < deadline:
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(hold_the_loop)
        assert await in_time(answered_while_the_loop_slept, 0.05) == "PONG"


ERRORS = [
    kind
    for kind in vars(redis.exceptions).values()
    if isinstance(kind, type) and issubclass(kind, RedisError) and kind.__module__ == "redis.exceptions"
]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
async def test_every_error_of_the_driver_is_translated(kind: type[RedisError]) -> None:
    async def fail() -> None:
        raise kind.__new__(kind)

    with pytest.raises(StoreUnavailable):
        await RedisBreaker(RedisBreakerSettings()).call(fail)


@pytest.mark.parametrize("kind", [ConnectionRefusedError, TimeoutError])
async def test_the_systems_errors_are_translated_too(kind: type[OSError]) -> None:
    async def fail() -> None:
        raise kind

    breaker = RedisBreaker(RedisBreakerSettings())
    with pytest.raises(StoreUnavailable):
        await breaker.call(fail)
    assert breaker.is_open
