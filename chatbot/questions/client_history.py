"""Screen the earlier messages that a client sends with a question: untrusted context for a follow-up. No I/O.

An OpenAI client sends the whole conversation with each question. Its messages are bounded, screened and masked like a
question. They enter only the prompt, and are neither stored nor used as evidence: passages of this turn must still
support the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from chatbot.questions.screen import Verdict, screen


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """An earlier message, as claimed by the client."""

    role: Literal["user", "assistant"]
    text: str


MOST_MESSAGES: Final = 20
# All messages together may be as long as one question: the cost of screening grows with the length.
MOST_CHARACTERS: Final = 4000


def screened_messages(messages: Sequence[ClientMessage]) -> tuple[ClientMessage, ...]:
    """Return the newest messages within the bounds, oldest first, masked, without rejected messages.

    A rejected question is dropped with its answer.
    """
    accepted: list[ClientMessage] = []
    follows_accepted_question = False
    for message in _newest(messages):
        screened = screen(message.text)
        is_question = message.role == "user"
        passes = screened.verdict is Verdict.OK and bool(screened.text.strip())
        if passes and (is_question or follows_accepted_question):
            accepted.append(ClientMessage(message.role, screened.text))
        follows_accepted_question = passes and is_question
    return tuple(accepted)


def _newest(messages: Sequence[ClientMessage]) -> list[ClientMessage]:
    """Return the newest messages within the bounds, oldest first."""
    newest: list[ClientMessage] = []
    remaining = MOST_CHARACTERS
    for message in reversed(messages[-MOST_MESSAGES:]):
        remaining -= len(message.text)
        if remaining < 0:
            break
        newest.append(message)
    return newest[::-1]
