"""The earlier messages that a client sends along: context for a follow-up, never the bank's own words. No I/O.

An OpenAI client sends the whole conversation with every question, and its content cannot be trusted. So it is bounded,
screened and masked as a question is, goes into the prompt only, and is neither stored nor used as evidence: the claims
of an answer must still stand in the passages of this turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from chatbot.questions.screen import Verdict, screen


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """A message that the client says was sent before."""

    role: Literal["user", "assistant"]
    text: str


# Characters of all messages together, as many as one question may have: the cost of screening grows with them.
MOST_MESSAGES: Final = 20
MOST_CHARACTERS: Final = 4000


def screened_messages(messages: Sequence[ClientMessage]) -> tuple[ClientMessage, ...]:
    """Return the newest messages within the bounds, oldest first, masked, without those that the screen refuses.

    Where a question is left out, so is the answer to it.
    """
    kept: list[ClientMessage] = []
    question_kept = False
    for message in _newest(messages):
        screened = screen(message.text)
        passes = screened.verdict is Verdict.OK and bool(screened.text.strip())
        if passes and (message.role == "user" or question_kept):
            kept.append(ClientMessage(message.role, screened.text))
        question_kept = passes and message.role == "user"
    return tuple(kept)


def _newest(messages: Sequence[ClientMessage]) -> list[ClientMessage]:
    newest: list[ClientMessage] = []
    remaining = MOST_CHARACTERS
    for message in reversed(messages[-MOST_MESSAGES:]):
        remaining -= len(message.text)
        if remaining < 0:
            break
        newest.append(message)
    return newest[::-1]
