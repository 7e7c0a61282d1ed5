"""What a successor says again and the log has already: dropped, so that customers see one answer (pure).

A successor goes through the same steps as the writer before it, on the same turn and the same tokens, so it says the
same events first. Texts may be cut elsewhere; notices of what happened to a writer (its queue, its model, its log) are
not said again and do not count.
"""

from collections import deque
from collections.abc import Callable, Sequence

from chatbot.events import LAST, Citation, Event, Notice, NoticeCode, Queued, Token

_INCIDENTAL = frozenset({NoticeCode.MODEL_SWITCHED, NoticeCode.DEGRADED})


class Diverged(Exception):
    """The successor says something else than the log: to go on would make two answers of one."""


class Replay:
    """The log's events, dropped one by one as they are said again."""

    def __init__(self, logged: Sequence[Event]) -> None:
        self._logged = deque(event for event in logged if not incidental(event))

    @property
    def over(self) -> bool:
        """Whether everything in the log has been said again."""
        return not self._logged

    def ends_with(self, events: Sequence[Event]) -> bool:
        """Return whether these events are exactly what the log still has to be said again."""
        ahead = Replay(self._logged)
        try:
            return not ahead.fresh(events) and ahead.over and not self.over
        except Diverged:
            return False

    def fresh(self, events: Sequence[Event]) -> list[Event]:
        """Return what of the events the log does not have.

        Raises:
            Diverged: the log goes on differently.
        """
        if self.over:
            return list(events)
        fresh: list[Event] = []
        for event in events:
            if self.over or incidental(event) or isinstance(event, LAST):
                fresh.append(event)
            elif isinstance(event, Token):
                fresh += self._fresh_text(event.text)
            elif same(self._logged[0], event):
                self._logged.popleft()
            else:
                raise Diverged
        return fresh

    def _fresh_text(self, text: str) -> list[Event]:
        while text and self._logged:
            logged = self._logged.popleft()
            if not isinstance(logged, Token):
                raise Diverged
            common = min(len(logged.text), len(text))
            if logged.text[:common] != text[:common]:
                raise Diverged
            if len(logged.text) > common:
                self._logged.appendleft(Token(text=logged.text[common:]))
            text = text[common:]
        return [Token(text=text)] if text else []


def incidental(event: Event) -> bool:
    """Return whether the event tells of its writer's fortunes, which another one does not share."""
    return isinstance(event, Queued) or (isinstance(event, Notice) and event.code in _INCIDENTAL)


def same(logged: Event, said: Event) -> bool:
    """Return whether an event says what the log says; of `accepted` and `sources` only their place counts."""
    if isinstance(said, Citation):
        return logged == said
    if isinstance(said, Notice):
        return isinstance(logged, Notice) and logged.code == said.code
    return type(logged) is type(said)


def whole_tokens(token_ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> tuple[int, ...]:
    """Return the ids up to the last one that completes a character: a successor goes on after it."""
    kept = next(
        n for n in range(len(token_ids), -1, -1) if not decode(token_ids[:n]).endswith("\N{REPLACEMENT CHARACTER}")
    )
    return tuple(token_ids[:kept])
