"""Stored conversations: the history, the ratings of answers, and a cache of grounded answers."""

from chatbot.conversations.answer_cache import AnswerCache, AnswerCacheSettings, Basis, CachedAnswer
from chatbot.conversations.history import (
    Conversation,
    ConversationIds,
    Feedback,
    History,
    HistoryMessage,
    HistorySettings,
    StoredMessage,
    path_to,
    repeatable,
    window,
)
from chatbot.conversations.ratings import Ratings

__all__ = [
    "AnswerCache",
    "AnswerCacheSettings",
    "Basis",
    "CachedAnswer",
    "Conversation",
    "ConversationIds",
    "Feedback",
    "History",
    "HistoryMessage",
    "HistorySettings",
    "Ratings",
    "StoredMessage",
    "path_to",
    "repeatable",
    "window",
]
