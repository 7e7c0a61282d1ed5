"""The breaker opens on failures, and lets exactly one probe through."""

import pytest
from anyio import create_task_group, lowlevel
from hypothesis import given
from hypothesis import strategies as st

from knowledge.breaker import Breaker, BreakerSettings, BreakerState, CallResult, Permit
from tests.clock import Clock

SETTINGS = BreakerSettings(window=10, least=5, failure_rate=0.5, open_seconds=5)


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(SETTINGS, clock=clock)


def state(breaker: Breaker) -> BreakerState:
    return breaker.state  # through a function, because mypy treats a property as constant


def call(breaker: Breaker, result: CallResult) -> None:
    breaker.record(permitted(breaker), result)


def permitted(breaker: Breaker) -> Permit:
    permit = breaker.permit()
    assert permit is not None
    return permit


def probe(breaker: Breaker) -> Permit:
    permit = breaker.probe()
    assert permit is not None
    return permit


def opened(breaker: Breaker) -> Breaker:
    for _ in range(5):
        call(breaker, CallResult.FAILED)
    assert state(breaker) is BreakerState.OPEN
    return breaker


def test_five_failures_open_it_and_then_nothing_passes(breaker: Breaker, clock: Clock) -> None:
    for _ in range(4):
        call(breaker, CallResult.FAILED)
    assert state(breaker) is BreakerState.CLOSED
    call(breaker, CallResult.FAILED)
    assert state(breaker) is BreakerState.OPEN
    clock.now += 4.999
    assert breaker.permit() is None
    assert breaker.retry_after == pytest.approx(0.001)


def test_after_a_good_hour_at_most_five_failures_open_it(breaker: Breaker) -> None:
    for _ in range(1000):
        call(breaker, CallResult.OK)
    failures = 0
    while state(breaker) is BreakerState.CLOSED:
        call(breaker, CallResult.FAILED)
        failures += 1
    assert failures == 5


@pytest.mark.anyio
async def test_of_fifty_concurrent_probes_exactly_one_passes(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 5
    passed: list[Permit] = []

    async def ask() -> None:
        permit = breaker.probe()
        if permit is not None:
            passed.append(permit)
            for _ in range(10):  # the others call while this one is pending
                await lowlevel.checkpoint()
            breaker.record(permit, CallResult.FAILED)

    async with create_task_group() as group:
        for _ in range(50):
            group.start_soon(ask)
    assert [permit.probe for permit in passed] == [True]
    assert state(breaker) is BreakerState.OPEN


def test_a_good_probe_closes_it(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 5
    assert breaker.permit() is None, "no customer probes"
    breaker.record(probe(breaker), CallResult.OK)
    assert state(breaker) is BreakerState.CLOSED
    assert not permitted(breaker).probe


def test_each_failed_probe_doubles_the_time_until_the_next(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    for wait in (5, 10, 12, 12):
        clock.now += wait - 0.1
        assert breaker.probe() is None
        clock.now += 0.1
        breaker.record(probe(breaker), CallResult.FAILED)
    clock.now += 12
    breaker.record(probe(breaker), CallResult.OK)
    opened(breaker)
    clock.now += 5
    assert breaker.due, "after a good one the waits are short again"


def test_probes_of_several_breakers_are_spread(clock: Clock) -> None:
    breaker = Breaker(SETTINGS, clock=clock, jitter=lambda: 0.8)
    breaker.trip()
    assert breaker.retry_after == pytest.approx(4)


def test_a_cancelled_probe_lets_the_next_one_through(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 5
    breaker.record(probe(breaker), None)
    assert probe(breaker).probe
    assert breaker.probe() is None


def test_a_call_from_before_the_opening_is_ignored(breaker: Breaker, clock: Clock) -> None:
    early = permitted(breaker)
    opened(breaker)
    breaker.record(early, CallResult.OK)
    assert state(breaker) is BreakerState.OPEN
    clock.now += 5
    out = probe(breaker)
    breaker.record(early, CallResult.OK)
    breaker.record(early, None)
    assert breaker.probe() is None, "the probe is still out"
    breaker.record(out, CallResult.OK)
    assert state(breaker) is BreakerState.CLOSED


def test_cancelled_calls_are_not_counted(breaker: Breaker) -> None:
    for _ in range(100):
        breaker.record(permitted(breaker), None)
    assert state(breaker) is BreakerState.CLOSED


@given(st.lists(st.tuples(st.sampled_from([*CallResult, None]), st.floats(0, 7))))
def test_there_is_never_a_second_probe_and_never_a_lasting_refusal(
    steps: list[tuple[CallResult | None, float]],
) -> None:
    clock = Clock(100.0)
    breaker = Breaker(SETTINGS, clock=clock)
    for result, wait in steps:
        clock.now += wait
        permit = breaker.permit() or breaker.probe()
        if permit is None:
            assert breaker.retry_after > 0
            continue
        if permit.probe:
            assert breaker.permit() is breaker.probe() is None
        breaker.record(permit, result)
    clock.now += SETTINGS.longest_open_seconds + 1e-6
    assert breaker.available or breaker.due
