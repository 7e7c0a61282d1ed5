"""Whatever each write to index and catalogue takes, customers find one version or the other at every instant."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from ingest.catalogue.approvals import ApprovalDecision
from ingest.catalogue.validity import midnight
from ingest.catalogue.versions import Dates
from ingest.pipeline import activate, update_index, write_pending_windows
from ingest.services import Services
from knowledge.index import IndexUnavailable
from tests.clock import Clock
from tests.ingest.documents import indexed_terms, versions_found

pytestmark = pytest.mark.anyio

SLOWED = {"set_visibility", "set_first_day", "confirm_window", "version", "approve", "postpone_late_start"}
SLICE = 0.5
"""Seconds between two looks of a customer."""
ROUNDS = range(5)


class Customer:
    """Looks as time passes, and notes what is found then."""

    def __init__(self, services: Services, clock: Clock) -> None:
        self._services = services
        self._clock = clock
        self.found: list[set[int]] = []

    async def pass_seconds(self, seconds: float) -> None:
        ends = self._clock.now + seconds
        while True:
            self.found.append(await versions_found(self._services, at=self._clock.now))
            if self._clock.now >= ends:
                return
            self._clock.now = min(ends, self._clock.now + SLICE)


class Slow:
    """A part that takes its time before and behind everything that it does, and may fail before or behind it."""

    def __init__(self, part: object, customer: Customer, dice: random.Random, *, fails: float = 0.0) -> None:
        self._part = part
        self._customer = customer
        self._dice = dice
        self._fails = fails

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)
        if name not in SLOWED:
            return method

        async def slowly(*args: Any, **kwargs: Any) -> Any:
            await self._wait()
            done = await method(*args, **kwargs)
            await self._wait()
            return done

        return slowly

    async def _wait(self) -> None:
        if self._dice.random() < 0.6:
            await self._customer.pass_seconds(self._dice.uniform(0, 4))
        if self._dice.random() < self._fails:
            raise IndexUnavailable("it took too long, or was never told")


def slowed(services: Services, customer: Customer, dice: random.Random, *, fails: float = 0.0) -> Services:
    slow: Callable[[object], Any] = lambda part: Slow(part, customer, dice)  # noqa: E731
    index: Any = Slow(services.index, customer, dice, fails=fails)
    return replace(services, index=index, catalogue=slow(services.catalogue), approvals=slow(services.approvals))


async def one_answers(services: Services, clock: Clock) -> None:
    first = await indexed_terms(services, "2.35")
    await activate(first.key, "lee", services)
    clock.now += 60


@pytest.mark.parametrize("seed", ROUNDS)
async def test_a_version_replaces_another_without_a_moment_in_which_none_or_both_are_found(
    services: Services, clock: Clock, seed: int
) -> None:
    dice, customer = random.Random(seed), Customer(services, clock)  # noqa: S311  a test's dice
    await one_answers(services, clock)
    second = await indexed_terms(services, "2.75")
    slow = slowed(services, customer, dice, fails=0.1 * (seed % 2))
    try:
        await activate(second.key, "lee", slow)
    except IndexUnavailable:
        await customer.pass_seconds(dice.uniform(0, 5))
        await write_pending_windows(slowed(services, customer, dice))
    await customer.pass_seconds(5)
    assert [found for found in customer.found if len(found) != 1] == []
    assert customer.found[-1] == {2}


@pytest.mark.parametrize("seed", ROUNDS)
async def test_a_version_that_is_moved_leaves_no_moment_in_which_none_or_both_are_found(
    services: Services, clock: Clock, seed: int
) -> None:
    dice, customer = random.Random(seed), Customer(services, clock)  # noqa: S311  a test's dice
    june = date(2026, 6, 1)
    await one_answers(services, clock)
    second = await indexed_terms(services, "2.75", effective_from=june)
    await activate(second.key, "lee", services)
    clock.now = midnight(june, services.zone) - dice.uniform(2.1, 12)
    later = Dates(effective_from=dice.choice([None, date(2026, 6, 2), date(2026, 6, 3)]), effective_until=None)
    decision = ApprovalDecision(by="lee", at=clock.now)
    changed = await services.approvals.set_dates(second.key, later, decision, may_approve=True)
    if seed % 2:
        await update_index(second.key, changed, slowed(services, customer, dice))
    else:  # its process died behind the decision
        await write_pending_windows(slowed(services, customer, dice))
    await customer.pass_seconds(5)
    assert [found for found in customer.found if len(found) != 1] == []
    clock.now += 3 * 86_400
    assert await versions_found(services, at=clock.now) == {2}
