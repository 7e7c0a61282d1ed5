"""The circuit breaker of one endpoint: closed, open, half open with exactly one probe (Nygard, "Release It!", 2007).

Calls pass only while it is closed. While it is open, single probes decide when it closes; each failed probe doubles
the time until the next. Every call acquires a `Permit` and records its result with it. A result counts only if the
breaker has not changed state since: a call that began before the breaker opened cannot close it.

This is our own code because the libraries we tried let 50 of 50 concurrent calls through when half open.
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
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission for one call; `period` counts state changes; the result of a `probe` opens or closes the breaker."""

    period: int
    probe: bool


class BreakerSettings(BaseModel, frozen=True):
    """The thresholds for opening a breaker, and the times between probes."""

    window: int = Field(10, ge=1, description="The breaker counts this many of the latest calls.")
    least: int = Field(5, ge=1, description="The breaker stays closed with fewer calls than this.")
    failure_rate: float = Field(0.5, gt=0, le=1)
    open_seconds: float = Field(5.0, gt=0, description="The first probe comes after this time.")
    longest_open_seconds: float = Field(12.0, gt=0, description="Two probes are at most this far apart.")


class Breaker:
    """Counts the results of calls; it neither waits nor makes calls."""

    def __init__(
        self,
        settings: BreakerSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """`jitter` returns a factor for each wait, so that many breakers do not probe at once."""
        self._settings = settings
        self._clock = clock
        self._jitter = jitter
        self._failed_probes = 0
        self._results: deque[CallResult] = deque(maxlen=settings.window)
        self._state = BreakerState.CLOSED
        self._period = 0
        self._open_until = 0.0

    @property
    def state(self) -> BreakerState:
        """The current state; half open while a probe is running."""
        return self._state

    @property
    def available(self) -> bool:
        """Whether `permit` would return a permit now."""
        return self._state is BreakerState.CLOSED

    @property
    def due(self) -> bool:
        """Whether `probe` would return a permit now."""
        return self._state is BreakerState.OPEN and self._clock() >= self._open_until

    @property
    def due_since(self) -> float:
        """The clock's time from which a probe is due."""
        return self._open_until

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be permitted again."""
        return max(0.0, self._open_until - self._clock()) if self._state is BreakerState.OPEN else 0.0

    def permit(self) -> Permit | None:
        """Return a permit for one call, or None while the endpoint must not be called."""
        return Permit(self._period, probe=False) if self.available else None

    def probe(self) -> Permit | None:
        """Return the permit for the one probe of an open breaker, or None if no probe is due."""
        if not self.due:
            return None
        self._enter(BreakerState.HALF_OPEN)
        return Permit(self._period, probe=True)

    def override(self) -> Permit:
        """Return a permit in any state, for a last attempt to complete an answer; its result does not count."""
        return Permit(-1, probe=False)

    def record(self, permit: Permit, result: CallResult | None) -> None:
        """Count the result of a call; None: it has no result, for instance because the client left.

        A probe without a result is due again at once.
        """
        if permit.period != self._period:
            return
        if result is None:
            if permit.probe:
                self._enter(BreakerState.OPEN)
                self._open_until = self._clock()
            return
        if permit.probe:
            failed = result is CallResult.FAILED
            self._failed_probes = self._failed_probes + 1 if failed else 0
            self._enter(BreakerState.OPEN if failed else BreakerState.CLOSED)
            return
        self._results.append(result)
        if self._over_threshold():
            self.trip()

    def trip(self) -> None:
        """Open now, for instance when the endpoint does not answer at boot."""
        self._enter(BreakerState.OPEN)

    def _enter(self, state: BreakerState) -> None:
        """Change the state, forget the results of earlier calls and, if it opens, set the time of the next probe."""
        self._state = state
        self._period += 1
        self._results.clear()
        if state is BreakerState.OPEN:
            wait = self._settings.open_seconds * 2 ** min(self._failed_probes, 10)
            longest = max(self._settings.longest_open_seconds, self._settings.open_seconds)
            self._open_until = self._clock() + min(wait, longest) * self._jitter()

    def _over_threshold(self) -> bool:
        calls, failed = len(self._results), self._results.count(CallResult.FAILED)
        return calls >= self._settings.least and failed >= self._settings.failure_rate * calls
