"""Count the requests of each user in this process in the last minute, before any other work is done for a request."""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from chatbot.errors import RateLimited

_WINDOW_SECONDS: Final = 60.0
_MOST_USERS: Final = 10_000
_LIMIT_FACTOR: Final = 2
"""Requests that this count allows, as a multiple of the user's limit: the ledger does not count rejected requests."""


class Attempts:
    """Rejects a user who sends far more requests than the ledger would admit, without asking Redis.

    The ledger needs the length of the prompt, and so comes after the screening, which costs processor time.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        """`clock` returns monotonic seconds."""
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, user: str, *, requests_per_minute: int) -> None:
        """Count a request, or raise `RateLimited` if the user has sent twice the limit in the last minute."""
        now = self._clock()
        times = self._times.setdefault(user, deque())
        self._times.move_to_end(user)
        while times and times[0] <= now - _WINDOW_SECONDS:
            times.popleft()
        if len(times) >= _LIMIT_FACTOR * requests_per_minute:
            wait = times[0] + _WINDOW_SECONDS - now
            raise RateLimited(scope="user", dimension="requests_per_minute", retry_after=wait)
        times.append(now)
        if len(self._times) > _MOST_USERS:
            self._times.popitem(last=False)
