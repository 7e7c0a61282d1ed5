"""What scripts/token_way counts: functions that most tokens call, each start of one, and each step of a generator."""

import sys
from collections.abc import Iterator
from types import CodeType, FrameType

import anyio
import anyio.lowlevel
import pytest

from scripts.token_way import goes_on, way_of


def often() -> None:
    """Is called for every token."""


def seldom() -> None:
    """Is called for one token in three."""


def generator() -> Iterator[int]:
    yield 1
    yield 2


def test_a_function_is_on_the_way_where_half_of_the_tokens_call_it() -> None:
    ends = [often.__code__, seldom.__code__] * 9
    middle = [[often.__code__, generator.__code__, generator.__code__]] * 4 + [[often.__code__, seldom.__code__]] * 2
    way = way_of([ends, *middle, ends])
    assert [(step.name, step.generator) for step in way.steps] == [("generator", True), ("often", False)]
    assert (way.tokens, way.calls, way.files) == (6, 3, {"tests/test_token_way.py"})


async def waits() -> None:
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_a_coroutine_that_goes_on_is_no_call_and_a_generator_is() -> None:
    calls: list[CodeType] = []

    def on_event(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and not goes_on(frame):
            calls.append(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        await waits()
        assert list(generator()) == [1, 2]
    finally:
        sys.setprofile(before)
    assert calls.count(waits.__code__) == 1
    assert calls.count(generator.__code__) == 3
