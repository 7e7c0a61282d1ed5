"""May a question be answered, and what does a customer read where not: masking, injections, scope, canned replies.
Pure.
"""

from chatbot.questions.client_history import ClientMessage, admitted
from chatbot.questions.scope import outside
from chatbot.questions.screen import CannedReply, Screened, Verdict, canned_reply, handoff, screen

__all__ = [
    "CannedReply",
    "ClientMessage",
    "Screened",
    "Verdict",
    "admitted",
    "canned_reply",
    "handoff",
    "outside",
    "screen",
]
