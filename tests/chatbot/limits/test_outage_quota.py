"""The share of a replica while Redis is away: what it admits, extends, settles, and shows as use."""

import pytest

from chatbot.errors import RateLimited, StoreUnavailable
from chatbot.limits.limits import Limit
from chatbot.limits.outage_quota import MOST_SCOPES, WINDOW_SECONDS, ChargedScope, OutageQuota, QuotaClaim

LIMIT = Limit(tokens_per_minute=2_000, requests_per_minute=8, concurrent=4, tokens_per_day=10_000)
USER = ChargedScope(scope="user", key="lee", limit=LIMIT)
AWAY = 90.0


def quota() -> OutageQuota:
    return OutageQuota(replicas=2, seconds=AWAY)


def claim(name: str, tokens: int, *, now: float = 0.0, lease: float = 30.0) -> QuotaClaim:
    return QuotaClaim(id=name, scopes=[USER], tokens=tokens, now=now, until=now + lease)


def test_a_replica_admits_its_part_of_the_rate_and_says_when_there_is_room_again() -> None:
    own = quota()
    own.note_remainder(USER, 10_000, now=0.0)
    own.reserve(claim("a", 400))
    own.reserve(claim("b", 600, now=5.0))
    with pytest.raises(RateLimited) as refused:
        own.reserve(claim("c", 1, now=20.0))
    assert refused.value.retry_after == 40.0
    own.reserve(claim("c", 400, now=WINDOW_SECONDS))
    with pytest.raises(StoreUnavailable):
        own.reserve(claim("d", 1_001, now=30.0))


def test_slots_and_requests_are_a_part_too() -> None:
    own = quota()
    own.reserve(claim("a", 1, lease=50.0))
    own.reserve(claim("b", 1, now=1.0, lease=20.0))
    with pytest.raises(RateLimited) as refused:
        own.reserve(claim("c", 1, now=2.0))
    assert refused.value.retry_after == 19.0, "the first of the two leases to end"
    for name in ("c", "d"):
        own.settle([USER], "a" if name == "c" else "b", 1)
        own.reserve(claim(name, 1, now=3.0))
    own.settle([USER], "c", 1)
    with pytest.raises(RateLimited) as requests:
        own.reserve(claim("e", 1, now=4.0))
    assert requests.value.retry_after == 56.0


def test_more_tokens_are_charged_where_there_is_room_and_nothing_where_there_is_none() -> None:
    own = quota()
    own.reserve(claim("a", 400))
    assert own.extend([USER], "a", more=600, now=1.0)
    assert own.use(USER, now=1.0).tokens == 1_000
    assert not own.extend([USER], "a", more=1, now=1.0)
    assert own.use(USER, now=1.0).tokens == 1_000
    assert not own.extend([USER], "nobody's", more=1, now=1.0)
    assert not own.extend([USER], "a", more=1, now=AWAY + 1.0), "Redis is away for too long"


def test_the_day_s_remainder_is_shared_and_what_is_spent_since_counts() -> None:
    own = quota()
    own.note_remainder(USER, 1_000, now=0.0)
    own.reserve(claim("a", 300))
    assert own.use(USER, now=0.0).today == 5_000 - 200
    assert not own.extend([USER], "a", more=201, now=1.0)
    assert own.extend([USER], "a", more=200, now=1.0)
    with pytest.raises(StoreUnavailable):
        own.reserve(claim("b", 1, now=2.0))
    own.settle([USER], "a", 100)
    own.reserve(claim("b", 400, now=2.0))


def test_a_settlement_charges_once_and_frees_the_slot() -> None:
    own = quota()
    own.reserve(claim("a", 400))
    assert own.use(USER, now=1.0).slots == 1
    own.settle([USER], "a", 150)
    own.settle([USER], "a", 900)
    use = own.use(USER, now=1.0)
    assert (use.tokens, use.slots, use.requests) == (150, 0, 1)


def test_a_lease_that_has_run_out_frees_its_slot_and_the_minute_passes() -> None:
    own = quota()
    own.reserve(claim("a", 400, lease=10.0))
    assert own.use(USER, now=9.9).slots == 1
    assert own.use(USER, now=10.0).slots == 0
    assert own.use(USER, now=59.9).tokens == 400
    assert own.use(USER, now=WINDOW_SECONDS).tokens == 0
    own.settle([USER], "a", 900)
    assert own.use(USER, now=WINDOW_SECONDS).tokens == 0


def test_it_admits_until_the_last_instant_of_its_time_and_anew_after_redis_was_there() -> None:
    own = quota()
    own.reserve(claim("a", 1, lease=600.0))
    assert own.extend([USER], "a", more=1, now=AWAY - 0.001)
    assert not own.extend([USER], "a", more=1, now=AWAY)
    own.reserve(claim("b", 1, now=AWAY - 0.001))
    with pytest.raises(StoreUnavailable):
        own.reserve(claim("c", 1, now=AWAY))
    own.settle([USER], "b", 1)
    own.end_outage()
    own.reserve(claim("c", 1, now=AWAY))


def test_the_whole_part_may_be_taken_at_once_and_one_more_never() -> None:
    own = quota()
    own.reserve(claim("a", 1_000))
    with pytest.raises(StoreUnavailable):
        own.reserve(claim("b", 1_001))


def test_the_wait_for_tokens_ends_with_the_first_that_makes_exactly_enough_room() -> None:
    own = quota()
    own.note_remainder(USER, 10_000, now=0.0)
    own.reserve(claim("a", 400))
    own.reserve(claim("b", 600, now=5.0))
    with pytest.raises(RateLimited) as refused:
        own.reserve(claim("c", 400, now=20.0))
    assert (refused.value.dimension, refused.value.retry_after) == ("tokens_per_minute", 40.0)


def test_a_limit_of_which_no_whole_request_is_left_for_a_replica_admits_none() -> None:
    own, few = quota(), ChargedScope(scope="user", key="kim", limit=LIMIT.model_copy(update={"requests_per_minute": 1}))
    with pytest.raises(StoreUnavailable):
        own.reserve(QuotaClaim(id="a", scopes=[few], tokens=1, now=0.0, until=9.0))


def test_a_reservation_whose_lease_has_ended_is_settled_no_more() -> None:
    own = quota()
    own.reserve(claim("a", 400, lease=10.0))
    before = own.use(USER, now=10.0).today
    own.settle([USER], "a", 900)
    assert own.use(USER, now=10.0).today == before


def test_the_longest_wait_of_all_scopes_is_told() -> None:
    own = quota()
    tenant = ChargedScope(scope="tenant", key="hanbit", limit=LIMIT)
    for scope in (USER, tenant):
        own.note_remainder(scope, 10_000, now=0.0)
    own.reserve(QuotaClaim(id="a", scopes=[USER], tokens=600, now=0.0, until=9.0))
    own.reserve(QuotaClaim(id="b", scopes=[tenant], tokens=600, now=10.0, until=19.0))
    with pytest.raises(RateLimited) as refused:
        own.reserve(QuotaClaim(id="c", scopes=[USER, tenant], tokens=500, now=20.0, until=29.0))
    assert (refused.value.scope, refused.value.retry_after) == ("tenant", 50.0)


def test_its_use_tells_the_newest_and_what_was_spent_without_redis() -> None:
    own = quota()
    own.note_remainder(USER, 10_000, now=0.0)
    own.record(claim("known to redis", 100, now=3.0))
    own.reserve(claim("a", 200, now=7.5))
    use = own.use(USER, now=8.0)
    assert (use.newest_tokens, use.newest_request, use.requests, use.tokens, use.today) == (7, 7, 2, 300, 200)
    own.note_remainder(USER, 9_000, now=8.0)
    assert own.use(USER, now=8.0).today == 500, "Redis knows of it by now"


def test_of_more_scopes_than_are_remembered_those_used_lately_are() -> None:
    own = quota()
    scopes = [ChargedScope(scope="user", key=f"user {n}", limit=LIMIT) for n in range(MOST_SCOPES - 1)]
    other = ChargedScope(scope="user", key="kim", limit=LIMIT)
    own.reserve(claim("a", 400))
    own.reserve(QuotaClaim(id="b", scopes=[other], tokens=400, now=0.0, until=30.0))
    assert own.use(USER, now=1.0).tokens == 400
    for scope in scopes:
        own.use(scope, now=1.0)
    assert own.use(USER, now=1.0).tokens == 400
    assert own.use(other, now=1.0).tokens == 0, "it was used before all others"
