"""What a caller says was said before: taken as context for a follow-up, never as the bank's own words (pure).

An OpenAI client sends the whole conversation with every question, and may send anything. So it is bounded, screened
and masked as a question is, goes into the prompt only, and is neither stored nor compared with: what an answer claims
must still stand in the passages of this turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from chatbot.questions.screen import Verdict, screen


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """One message by the caller's account."""

    role: Literal["user", "assistant"]
    text: str


# Together no more than one question may have: screening costs by the character, and the prompt takes less anyway.
MOST_MESSAGES: Final = 20
MOST_CHARACTERS: Final = 4000


def screened_messages(earlier: Sequence[ClientMessage]) -> tuple[ClientMessage, ...]:
    """Return the newest messages within the bounds, oldest first, masked, without any that is not answered as asked.

    An answer goes with its question: where that one is left out, so is the answer.
    """
    kept: list[ClientMessage] = []
    asked = False
    for message in _newest(earlier):
        screened = screen(message.text)
        passes = screened.verdict is Verdict.OK and bool(screened.text.strip())
        if passes and (message.role == "user" or asked):
            kept.append(ClientMessage(message.role, screened.text))
        asked = passes and message.role == "user"
    return tuple(kept)


def _newest(earlier: Sequence[ClientMessage]) -> list[ClientMessage]:
    newest: list[ClientMessage] = []
    left = MOST_CHARACTERS
    for message in reversed(earlier[-MOST_MESSAGES:]):
        left -= len(message.text)
        if left < 0:
            break
        newest.append(message)
    return newest[::-1]
