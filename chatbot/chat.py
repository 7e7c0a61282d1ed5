"""The messages of a prompt (pure)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import msgspec

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """The messages of one prompt; `tokens` is their count or an estimate of it.

    `thinks` allows a reasoning model to think before it answers.
    """

    messages: Sequence[Message]
    tokens: int
    thinks: bool = True

    @property
    def json(self) -> str:
        """The messages as JSON, of which the audit keeps a keyed hash."""
        return msgspec.json.encode(self.messages).decode()


def alternating(messages: Iterable[Message]) -> list[Message]:
    """Join consecutive messages of one role, because many chat templates reject them."""
    runs = groupby(messages, key=lambda message: message.role)
    return [Message(role, "\n\n".join(message.content for message in run)) for role, run in runs]
