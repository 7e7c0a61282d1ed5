"""Drop the events that a successor repeats from the log, so that customers see one answer (pure).

A successor (docs/decisions/0005-leases-and-epochs.md) runs the turn again on the same tokens, so it emits the same
events in the same order. It may split the text at other places. Events about the writer itself (its queue, model, log
and abilities) are not compared: a successor does not repeat them.
"""

from collections import deque
from collections.abc import Sequence

from chatbot.events import ABOUT_THE_WRITER, Citation, Event, Notice, Queued, Token


class Diverged(Exception):
    """The successor's events differ from the logged ones: the customer would see parts of two answers."""


class RepetitionCheck:
    """The logged events that a successor has not repeated yet."""

    def __init__(self, logged: Sequence[Event]) -> None:
        self._expected = deque(event for event in logged if not about_the_writer(event))

    @property
    def complete(self) -> bool:
        """Whether every logged event has been repeated."""
        return not self._expected

    def new_events(self, events: Sequence[Event]) -> list[Event]:
        """Return the events that the log lacks.

        Raises:
            Diverged: the next logged event is different.
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
        """Return the part of a text that the log lacks, as a list of at most one `Token`."""
        while text and self._expected:
            logged = self._expected.popleft()
            if not isinstance(logged, Token):
                raise Diverged
            length = min(len(logged.text), len(text))
            if logged.text[:length] != text[:length]:
                raise Diverged
            if len(logged.text) > length:
                self._expected.appendleft(Token(text=logged.text[length:]))
            text = text[length:]
        return [Token(text=text)] if text else []


def about_the_writer(event: Event) -> bool:
    """Return whether the event is about its writer, so that a successor does not repeat it."""
    return isinstance(event, Queued) or (isinstance(event, Notice) and event.code in ABOUT_THE_WRITER)


def repeats(event: Event, logged: Event) -> bool:
    """Return whether an event repeats a logged one; for `accepted` and `sources` the same type is enough."""
    if isinstance(event, Citation):
        return logged == event
    if isinstance(event, Notice):
        return isinstance(logged, Notice) and logged.code == event.code
    return type(logged) is type(event)
