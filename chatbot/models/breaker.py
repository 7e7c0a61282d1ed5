"""One endpoint's circuit breaker: closed, open, half open with exactly one probe. Own code, since the libraries that we
tried let 50 of 50 concurrent calls through when half open (facts.md section 1).

Every call takes a `Permit` and gives it back with its outcome, which counts only for the state it was permitted in:
a call that began before the breaker opened cannot close it.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, Field


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CallResult(StrEnum):
    OK = "ok"
    SLOW = "slow"  # answered, but the first token came late
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave for one call; `probe` marks the one that decides whether a half-open breaker closes."""

    era: int
    probe: bool


class BreakerSettings(BaseModel, frozen=True):
    """When an endpoint is given up and when it is tried again."""

    window: int = Field(10, ge=1, description="how many of the latest calls are looked at")
    least: int = Field(5, ge=1, description="below this many calls nothing is concluded")
    failure_rate: float = Field(0.5, gt=0, le=1)
    slow_rate: float = Field(0.8, gt=0, le=1)
    open_seconds: float = Field(5.0, gt=0, description="how long before one probe is let through")


class Breaker:
    """Counts outcomes; never waits, never calls anything."""

    def __init__(self, settings: BreakerSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._outcomes: deque[CallResult] = deque(maxlen=settings.window)
        self._state = BreakerState.CLOSED
        self._era = 0
        self._open_until = 0.0

    @property
    def state(self) -> BreakerState:
        """The state now; an open breaker whose time has come counts as half open."""
        if self._state is BreakerState.OPEN and self._clock() >= self._open_until:
            return BreakerState.HALF_OPEN
        return self._state

    @property
    def willing(self) -> bool:
        """Whether `admit` would permit a call now."""
        return self._state is BreakerState.CLOSED or (
            self._state is BreakerState.OPEN and self.state is BreakerState.HALF_OPEN
        )

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be permitted again."""
        return max(0.0, self._open_until - self._clock()) if self._state is BreakerState.OPEN else 0.0

    def admit(self) -> Permit | None:
        """Return leave for one call, or None while the endpoint is to be left alone."""
        if not self.willing:
            return None
        if self._state is BreakerState.OPEN:
            self._enter(BreakerState.HALF_OPEN)
        return Permit(self._era, probe=self._state is BreakerState.HALF_OPEN)

    def overruled(self) -> Permit:
        """Return leave for one call whatever the state, whose outcome counts for nothing: else an answer is lost."""
        return Permit(-1, probe=False)

    def record(self, permit: Permit, outcome: CallResult) -> None:
        """Count a call's outcome."""
        if permit.era != self._era:
            return
        if permit.probe:
            self._enter(BreakerState.OPEN if outcome is CallResult.FAILED else BreakerState.CLOSED)
            return
        self._outcomes.append(outcome)
        if self._too_many():
            self.trip()

    def abandon(self, permit: Permit) -> None:
        """Take a permit back without an outcome (the client left): the next call may probe."""
        if permit.probe and permit.era == self._era:
            self._enter(BreakerState.OPEN)
            self._open_until = self._clock()

    def trip(self) -> None:
        """Open at once (the endpoint did not answer at boot)."""
        self._enter(BreakerState.OPEN)

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._era += 1
        self._outcomes.clear()
        if state is BreakerState.OPEN:
            self._open_until = self._clock() + self._settings.open_seconds

    def _too_many(self) -> bool:
        seen = len(self._outcomes)
        failed = self._outcomes.count(CallResult.FAILED)
        late = failed + self._outcomes.count(CallResult.SLOW)
        rules = self._settings
        return seen >= rules.least and (failed >= rules.failure_rate * seen or late >= rules.slow_rate * seen)
