"""Stored conversations: the history and the ratings of answers."""

from chatbot.conversations.history import (
    Conversation,
    ConversationIds,
    Feedback,
    History,
    HistoryMessage,
    HistorySettings,
    StoredMessage,
    allowed_in_prompt,
    path_to,
    window,
)
from chatbot.conversations.ratings import Ratings

__all__ = [
    "Conversation",
    "ConversationIds",
    "Feedback",
    "History",
    "HistoryMessage",
    "HistorySettings",
    "Ratings",
    "StoredMessage",
    "allowed_in_prompt",
    "path_to",
    "window",
]
