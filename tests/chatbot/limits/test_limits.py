"""Limits as values: the tightest of each dimension, when it is whole again, and when a day ends."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from chatbot.events import Usage
from chatbot.limits.limits import (
    BUCKET_SPAN,
    MICRO,
    Limit,
    LimitSettings,
    Use,
    day_at,
    seconds_until_gone,
    tightest,
)

LARGE = Limit(tokens_per_minute=1_000, requests_per_minute=100, concurrent=10, tokens_per_day=10_000)
SMALL = Limit(tokens_per_minute=600, requests_per_minute=50, concurrent=4, tokens_per_day=5_000)
UNUSED = Use(tokens=0, newest_tokens=0, requests=0, newest_request=0, slots=0, today=0)
NOW = 1_800_000_000 * MICRO


def test_the_scope_with_the_least_left_of_each_dimension_is_reported() -> None:
    used = Use(tokens=900, newest_tokens=1_800_000_000, requests=95, newest_request=1_799_999_990, slots=9, today=9_500)
    left = tightest([LARGE, SMALL], [used, UNUSED], NOW)
    assert (left.limit_tokens, left.remaining_tokens, left.reset_tokens) == (1_000, 100, BUCKET_SPAN)
    assert (left.limit_requests, left.remaining_requests, left.reset_requests) == (100, 5, BUCKET_SPAN - 10)
    assert (left.remaining_slots, left.remaining_today) == (1, 500)
    left = tightest([LARGE, SMALL], [UNUSED, UNUSED], NOW)
    assert (left.limit_tokens, left.limit_requests, left.remaining_slots, left.remaining_today) == (600, 50, 4, 5_000)


def test_nothing_is_left_where_more_was_used_than_there_is() -> None:
    used = Use(tokens=601, newest_tokens=0, requests=51, newest_request=0, slots=5, today=5_001)
    left = tightest([SMALL], [used], NOW)
    remainders = (left.remaining_tokens, left.remaining_requests, left.remaining_slots, left.remaining_today)
    assert remainders == (0, 0, 0, 0)


def test_a_bucket_is_gone_61_seconds_after_its_second_began() -> None:
    second = 1_800_000_000
    assert seconds_until_gone(second, second * MICRO) == 61.0
    assert seconds_until_gone(second, (second + 60) * MICRO + 500_000) == 0.5
    assert seconds_until_gone(second, (second + 61) * MICRO) == 0.0
    assert seconds_until_gone(second, (second + 62) * MICRO) == 0.0
    assert seconds_until_gone(0, 1) == 0.0, "there is none"


def test_a_day_ends_at_midnight_of_its_zone_also_where_clocks_change() -> None:
    for at, name, ends in (
        (datetime(2027, 3, 1, 14, 59, 59, tzinfo=UTC), "20270301", datetime(2027, 3, 1, 15, tzinfo=UTC)),
        (datetime(2027, 3, 1, 15, tzinfo=UTC), "20270302", datetime(2027, 3, 2, 15, tzinfo=UTC)),
    ):
        day = day_at(round(at.timestamp()) * MICRO, "Asia/Seoul")
        assert (day.name, day.ends) == (name, round(ends.timestamp()) * MICRO)
    new_york = ZoneInfo("America/New_York")
    day = day_at(round(datetime(2027, 3, 14, tzinfo=new_york).timestamp()) * MICRO, "America/New_York")
    assert day.ends - datetime(2027, 3, 14, tzinfo=new_york).timestamp() * MICRO == 23 * 3600 * MICRO


def test_a_replicas_part_is_whole_and_at_least_one() -> None:
    third = SMALL.share(3)
    assert (third.tokens_per_minute, third.requests_per_minute) == (200, 16)
    assert (third.concurrent, third.tokens_per_day) == (1, 1_666)
    tiny = SMALL.share(10_000)
    assert (tiny.tokens_per_minute, tiny.requests_per_minute, tiny.concurrent, tiny.tokens_per_day) == (1, 1, 1, 1)


def test_cached_tokens_are_at_most_those_of_the_prompt() -> None:
    usage = Usage(prompt_tokens=100, cached_tokens=140, answer_tokens=7, thinking_tokens=5)
    assert LimitSettings(cached_weight=0.5).charge(usage) == 50 + 12
    assert LimitSettings(cached_weight=0).charge(usage) == 12


def test_an_unknown_zone_and_a_limit_of_zero_stop_the_boot() -> None:
    for wrong in ({"zone": "Asia/Atlantis"}, {"zone": "../etc"}, {"cached_weight": 1.1}):
        with pytest.raises(ValidationError):
            LimitSettings.model_validate(wrong)
    with pytest.raises(ValidationError):
        Limit(tokens_per_minute=0, requests_per_minute=1, concurrent=1, tokens_per_day=1)


def test_of_several_roles_the_largest_of_each_dimension_counts() -> None:
    staff = SMALL.model_copy(update={"tokens_per_minute": 500, "concurrent": 1})
    service = SMALL.model_copy(update={"tokens_per_minute": 50, "concurrent": 9})
    plan = LimitSettings(user=SMALL, roles={"staff": staff, "service": service})
    assert plan.limits_of({"staff", "service"})[1] == SMALL.model_copy(
        update={"tokens_per_minute": 500, "concurrent": 9}
    )
