"""The checks of a turn, applied to an answer that is complete (pure)."""

from collections.abc import Sequence

from chatbot.events import Event
from chatbot.grounding import GroundingMode, GroundingStream, Quote, grounding_stream
from knowledge.bank import Bank
from knowledge.passage import Passage


def checked_answer(
    question: str,
    passages: Sequence[Passage],
    text: str,
    *,
    grounding: GroundingMode,
    bank: Bank | None = None,
    leading: Sequence[Quote] = (),
) -> tuple[GroundingStream, list[Event]]:
    """Return the checks after all of the text, and the events that they make of it."""
    checks = grounding_stream(question, passages, grounding=grounding, bank=bank, leading=leading)
    return checks, [*checks.feed(text), *checks.close()]
