import pytest

from chatbot.errors import RateLimited
from chatbot.limits.attempts import Attempts
from tests.clock import Clock


def test_a_user_is_refused_at_twice_their_limit_and_let_in_when_the_oldest_request_is_a_minute_old() -> None:
    clock = Clock(100.0)
    attempts = Attempts(clock=clock)
    for _ in range(6):
        attempts.count("lee", requests_per_minute=3)
        clock.pass_seconds(1)
    with pytest.raises(RateLimited) as refused:
        attempts.count("lee", requests_per_minute=3)
    assert refused.value.retry_after == 54
    clock.pass_seconds(54)
    attempts.count("lee", requests_per_minute=3)


def test_of_more_users_than_are_remembered_those_who_asked_lately_are() -> None:
    attempts = Attempts(clock=Clock(0.0))
    for user in ("lee", "kim"):
        attempts.count(user, requests_per_minute=1)
    attempts.count("lee", requests_per_minute=1)
    for n in range(9_999):
        attempts.count(f"user {n}", requests_per_minute=1)
    with pytest.raises(RateLimited):
        attempts.count("lee", requests_per_minute=1)
    for _ in range(2):
        attempts.count("kim", requests_per_minute=1)
