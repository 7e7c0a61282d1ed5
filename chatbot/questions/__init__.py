"""Screen questions, and return the canned replies to questions that are not answered. No I/O."""

from chatbot.questions.canned_replies import CAUSED_BY_QUESTION, HANDOFFS, CannedReply, canned_reply, handoff
from chatbot.questions.client_history import ClientMessage, screened_messages
from chatbot.questions.scope import ExcludedTopic, excluded_topic
from chatbot.questions.screen import ScreenedQuestion, Verdict, screen
from chatbot.questions.small_talk import SmallTalk, small_talk

__all__ = [
    "CAUSED_BY_QUESTION",
    "HANDOFFS",
    "CannedReply",
    "ClientMessage",
    "ExcludedTopic",
    "ScreenedQuestion",
    "SmallTalk",
    "Verdict",
    "canned_reply",
    "excluded_topic",
    "handoff",
    "screen",
    "screened_messages",
    "small_talk",
]
