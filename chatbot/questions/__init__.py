"""May a question be answered, and what does a customer read where not: masking, injections, scope, canned replies.
Pure.
"""

from chatbot.questions.client_history import ClientMessage, screened_messages
from chatbot.questions.scope import excluded_topic
from chatbot.questions.screen import CannedReply, ScreenedQuestion, Verdict, canned_reply, handoff, screen

__all__ = [
    "CannedReply",
    "ClientMessage",
    "ScreenedQuestion",
    "Verdict",
    "canned_reply",
    "excluded_topic",
    "handoff",
    "screen",
    "screened_messages",
]
