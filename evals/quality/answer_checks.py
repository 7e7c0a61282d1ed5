"""The checks of a turn, applied to an answer that is complete (pure)."""

from collections.abc import Sequence

from chatbot.events import Event
from chatbot.grounding import GroundingStream
from knowledge.bank import Bank
from knowledge.passage import Passage, language_of


def checked_answer(
    question: str, passages: Sequence[Passage], text: str, *, bank: Bank | None = None
) -> tuple[GroundingStream, list[Event]]:
    """Return the checks after all of the text, and the events that they make of it."""
    checks = GroundingStream(passages, question=question, language=language_of(question), bank=bank)
    return checks, [*checks.feed(text), *checks.close()]
