"""A turn of a conversation, by phase: opening, answering, closing; and its takeover where its writer died."""

from chatbot.turns.abandoned import AbandonedOpenings
from chatbot.turns.answering import answer
from chatbot.turns.closing import EndedAnswer, abandon, remember_answer
from chatbot.turns.opening import open_turn
from chatbot.turns.quoting import CHOSEN_FROM, choice_prompts, chosen_units, prompts_json
from chatbot.turns.state import Question, Turn, checkpoint, is_over, messages_json, passage_refs
from chatbot.turns.takeover import resume

__all__ = [
    "CHOSEN_FROM",
    "AbandonedOpenings",
    "EndedAnswer",
    "Question",
    "Turn",
    "abandon",
    "answer",
    "checkpoint",
    "choice_prompts",
    "chosen_units",
    "is_over",
    "messages_json",
    "open_turn",
    "passage_refs",
    "prompts_json",
    "remember_answer",
    "resume",
]
