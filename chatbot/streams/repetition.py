"""What a successor repeats and the log has already: dropped, so that customers see one answer (pure).

A successor (docs/decisions/0005-leases-and-epochs.md) runs the turn again on the same tokens, so it produces the same
events in the same order. A text may be cut at other places; notices about a writer itself (its queue, its model, its
log, what it can do) are not repeated and do not count.
"""

from collections import deque
from collections.abc import Sequence

from chatbot.events import ABOUT_THE_WRITER, Citation, Event, Notice, Queued, Token


class Diverged(Exception):
    """The successor's events differ from the logged ones: to continue would make two answers of one."""


class RepetitionCheck:
    """The logged events that a successor has not repeated yet."""

    def __init__(self, logged: Sequence[Event]) -> None:
        self._expected = deque(event for event in logged if not about_the_writer(event))

    @property
    def complete(self) -> bool:
        """Whether every logged event has been repeated."""
        return not self._expected

    def new_events(self, events: Sequence[Event]) -> list[Event]:
        """Return those of the events that the log does not have.

        Raises:
            Diverged: the log continues differently.
        """
        new: list[Event] = []
        for event in events:
            if self.complete or about_the_writer(event) or event.ends:
                new.append(event)
            elif isinstance(event, Token):
                new += self._new_text(event.text)
            elif repeats(event, self._expected[0]):
                self._expected.popleft()
            else:
                raise Diverged
        return new

    def _new_text(self, text: str) -> list[Event]:
        while text and self._expected:
            logged = self._expected.popleft()
            if not isinstance(logged, Token):
                raise Diverged
            common = min(len(logged.text), len(text))
            if logged.text[:common] != text[:common]:
                raise Diverged
            if len(logged.text) > common:
                self._expected.appendleft(Token(text=logged.text[common:]))
            text = text[common:]
        return [Token(text=text)] if text else []


def about_the_writer(event: Event) -> bool:
    """Return whether the event reports what happened to its writer, which a successor does not repeat."""
    return isinstance(event, Queued) or (isinstance(event, Notice) and event.code in ABOUT_THE_WRITER)


def repeats(event: Event, logged: Event) -> bool:
    """Return whether an event repeats a logged one; of `accepted` and `sources` only the place counts."""
    if isinstance(event, Citation):
        return logged == event
    if isinstance(event, Notice):
        return isinstance(logged, Notice) and logged.code == event.code
    return type(logged) is type(event)
