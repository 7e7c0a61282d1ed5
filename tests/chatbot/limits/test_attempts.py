import pytest

from chatbot.errors import RateLimited
from chatbot.limits.attempts import Attempts
from tests.clock import Clock


def test_a_user_is_refused_at_twice_the_limit_for_a_minute() -> None:
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
