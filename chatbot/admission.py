"""Who gets a model slot when: first come, first served, behind a bounded queue whose places are told."""

import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
from pydantic import BaseModel

from chatbot.errors import Overloaded


class AdmissionSettings(BaseModel, frozen=True):
    """How many answers the models serve at once here, and how many may wait."""

    slots: int = 16
    queue: int = 64


class Admission:
    """A bounded queue before a bounded number of slots."""

    def __init__(self, settings: AdmissionSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._busy = 0
        self._waiting: deque[anyio.Event] = deque()
        self._seconds_a_slot = 10.0

    @property
    def waiting(self) -> int:
        """How many answers wait for a slot."""
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """How many slots are taken."""
        return self._busy

    def check(self) -> None:
        """Refuse before the first byte when the queue is full.

        Raises:
            Overloaded: with the time until a place in the queue is likely.
        """
        if len(self._waiting) >= self._settings.queue:
            raise Overloaded(retry_after=max(1.0, self.estimate(1)))

    def estimate(self, position: int) -> float:
        """Return the seconds until the answer at this place in the queue gets a slot, by the recent pace."""
        return position * self._seconds_a_slot / self._settings.slots

    @asynccontextmanager
    async def slot(self, on_wait: Callable[[int, float], None]) -> AsyncGenerator[None]:
        """Hold a slot; `on_wait(position, seconds)` is called once if it is not free at once."""
        await self._enter(on_wait)
        began = self._clock()
        try:
            yield
        finally:
            self._seconds_a_slot += 0.1 * (self._clock() - began - self._seconds_a_slot)
            self._leave()

    async def _enter(self, on_wait: Callable[[int, float], None]) -> None:
        if self._busy < self._settings.slots:
            self._busy += 1
            return
        turn = anyio.Event()
        self._waiting.append(turn)
        on_wait(len(self._waiting), self.estimate(len(self._waiting)))
        try:
            await turn.wait()
        except BaseException:
            # Cancelled while waiting: give the place back, or the slot if it was handed over in the same moment.
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._leave()
            raise

    def _leave(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()  # the slot is handed over: `busy` stays
        else:
            self._busy -= 1
