"""An answer outlives its connection: its log in Redis, the writers and readers of it, resuming, Idempotency-Keys.

An event is in the log before it is on the wire; whoever holds the lease writes (docs/decisions/0005-leases-and-
epochs.md).
"""

from chatbot.streams.idempotency import Begun, IdempotencyKeys, IdempotencySettings
from chatbot.streams.live import Running
from chatbot.streams.log import AnswerId, AnswerLog, AnswerLogSettings, Taken
from chatbot.streams.pipelined_connection import open_line
from chatbot.streams.registry import Answers, AnswersSettings
from chatbot.streams.resume import whole_tokens

__all__ = [
    "AnswerId",
    "AnswerLog",
    "AnswerLogSettings",
    "Answers",
    "AnswersSettings",
    "Begun",
    "IdempotencyKeys",
    "IdempotencySettings",
    "Running",
    "Taken",
    "open_line",
    "whole_tokens",
]
