"""The requests of each user in this process in the last minute, counted before anything is done for one of them."""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from chatbot.errors import RateLimited

_WINDOW_SECONDS: Final = 60.0
_MOST_USERS: Final = 10_000
_LENIENCE: Final = 2
"""A request that is refused later does not count in the ledger, so this count lets through twice the user's limit."""


class Attempts:
    """Refuses a user who sends far more requests than the ledger would let through, without asking Redis.

    Screening costs processor time before the ledger can be asked, since a reservation needs the length of the prompt.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        """`clock` returns monotonic seconds."""
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, user: str, *, requests_per_minute: int) -> None:
        """Count a request of the user.

        Raises:
            RateLimited: there are twice as many in this minute as the limit; this one is not counted.
        """
        now = self._clock()
        times = self._times.setdefault(user, deque())
        self._times.move_to_end(user)
        while times and times[0] <= now - _WINDOW_SECONDS:
            times.popleft()
        if len(times) >= _LENIENCE * requests_per_minute:
            wait = times[0] + _WINDOW_SECONDS - now
            raise RateLimited(scope="user", dimension="requests_per_minute", retry_after=wait)
        times.append(now)
        if len(self._times) > _MOST_USERS:
            self._times.popitem(last=False)
