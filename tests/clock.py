"""A clock for tests."""

from dataclasses import dataclass


@dataclass(slots=True)
class Clock:
    """A clock in seconds that a test advances."""

    now: float

    def __call__(self) -> float:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds
