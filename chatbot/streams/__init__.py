"""Answers that outlive their connections: event log, writers, readers, takeover, Idempotency-Keys.

An event is in the log before it is on the wire; the holder of the answer's lease writes
(docs/decisions/0005-leases-and-epochs.md).
"""

from chatbot.streams.idempotency import IdempotencyKeys, IdempotencySettings, StartedAnswer
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import AnswerId, AnswerLog, AnswerLogSettings, LogOpening, TakenOver, open_answer_log
from chatbot.streams.readers import Answers, Readers
from chatbot.streams.writers import AnswerParts, AnswerSettings

__all__ = [
    "AnswerId",
    "AnswerLog",
    "AnswerLogSettings",
    "AnswerParts",
    "AnswerSettings",
    "Answers",
    "IdempotencyKeys",
    "IdempotencySettings",
    "LiveAnswer",
    "LogOpening",
    "Readers",
    "StartedAnswer",
    "TakenOver",
    "open_answer_log",
]
