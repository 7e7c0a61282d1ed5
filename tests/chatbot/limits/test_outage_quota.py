"""The share of a replica while Redis is away: what it admits, extends, settles, and shows as use."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.errors import RateLimited, StoreUnavailable
from chatbot.limits.limits import Limit
from chatbot.limits.outage_quota import ChargedScope, OutageQuota

LIMIT = Limit(tokens_per_minute=2_000, requests_per_minute=8, concurrent=4, tokens_per_day=10_000)
SHARE = 1_000
LEE, HANBIT = (ChargedScope(scope=scope, key=scope, limit=LIMIT) for scope in ("user", "tenant"))
AWAY = 90.0


def quota(*, left: int = 10_000) -> OutageQuota:
    own = OutageQuota(replicas=2, seconds=AWAY)
    for scope in (LEE, HANBIT):
        own.set_remainder(scope, left, now=0.0)
    return own


TAKES = st.lists(st.tuples(st.floats(0, 20), st.integers(1, SHARE // 2)), max_size=40)


@settings(deadline=None)
@given(TAKES)
def test_no_minute_exceeds_the_share_and_every_wait_is_true(takes: list[tuple[float, int]]) -> None:
    own, now, taken = OutageQuota(replicas=2, seconds=10**6), 0.0, list[tuple[float, int]]()
    own.set_remainder(LEE, 10**9, now=0.0)
    for n, (pause, tokens) in enumerate(takes):
        now += pause
        try:
            own.admit([LEE], str(n), tokens, now=now)
        except RateLimited as refused:
            now += (refused.retry_after or 0) + 1e-6
            own.admit([LEE], str(n), tokens, now=now)
        taken.append((now, tokens))
        assert sum(amount for at, amount in taken if at > now - 60) <= SHARE + 1e-3


def test_half_of_the_share_fits_at_once_and_more_never_does() -> None:
    own = quota()
    with pytest.raises(StoreUnavailable):
        own.admit([LEE], "a", SHARE // 2 + 1, now=0.0)
    own.admit([LEE], "a", SHARE // 2, now=0.0)
    with pytest.raises(RateLimited) as refused:
        own.admit([LEE], "b", 1, now=0.0)
    assert (refused.value.dimension, refused.value.retry_after) == ("tokens_per_minute", 0.12)


def test_the_remainder_of_the_day_is_shared_and_later_spending_counts() -> None:
    own = quota(left=1_000)
    own.admit([LEE], "a", 300, now=0.0)
    assert own.use(LEE, now=0.0).today == 5_000 - 200
    with pytest.raises(StoreUnavailable):
        own.admit([LEE], "a", 201, now=1.0)
    own.admit([LEE], "a", 200, now=1.0)
    with pytest.raises(StoreUnavailable):
        own.admit([LEE], "b", 1, now=2.0)
    own.settle([LEE], "a", 100, now=2.0)
    own.admit([LEE], "b", 400, now=2.0)
    own.set_remainder(LEE, 9_000, now=2.0)
    assert own.use(LEE, now=2.0).today == 500, "Redis knows of it by now"


def test_an_unknown_remainder_is_a_minutes_tokens() -> None:
    own = OutageQuota(replicas=2, seconds=AWAY)
    own.admit([LEE], "a", 500, now=0.0)
    own.admit([LEE], "b", 500, now=60.0)
    with pytest.raises(StoreUnavailable):
        own.admit([LEE], "c", 1, now=80.0)


def test_a_settlement_charges_once() -> None:
    own = quota()
    own.admit([LEE], "a", 400, now=0.0)
    own.settle([LEE], "a", 150, now=0.0)
    own.settle([LEE], "a", 900, now=0.0)
    assert own.use(LEE, now=0.0).tokens == 150 + SHARE // 2


def test_its_use_ends_when_the_bucket_is_empty() -> None:
    own = quota()
    assert own.use(LEE, now=100.0).newest_tokens == 0
    own.admit([LEE], "a", 250, now=100.0)  # a quarter of the share leaks in 30 s
    assert own.use(LEE, now=100.0).newest_tokens == 130 - 61
    assert own.use(LEE, now=130.0).tokens == SHARE // 2


def test_the_longest_wait_of_all_scopes_is_raised_and_nothing_is_recorded() -> None:
    own = quota()
    own.admit([LEE], "a", 400, now=0.0)
    own.admit([HANBIT], "b", 400, now=10.0)
    before = own.use(LEE, now=10.0).tokens
    with pytest.raises(RateLimited) as refused:
        own.admit([LEE, HANBIT], "c", 300, now=10.0)
    assert refused.value.scope == "tenant"
    assert own.use(LEE, now=10.0).tokens == before
