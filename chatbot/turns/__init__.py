"""A turn of a conversation, by phase: opening, answering, closing; and its takeover where its writer died."""

from chatbot.turns.answering import answer
from chatbot.turns.closing import EndedAnswer, discard_turn, remember_answer
from chatbot.turns.opening import open_turn
from chatbot.turns.orphaned import OrphanedRecords
from chatbot.turns.quoting import CHOSEN_FROM, choice_prompts, chosen_units
from chatbot.turns.state import Question, Turn, passage_refs
from chatbot.turns.takeover import continue_answer

__all__ = [
    "CHOSEN_FROM",
    "EndedAnswer",
    "OrphanedRecords",
    "Question",
    "Turn",
    "answer",
    "choice_prompts",
    "chosen_units",
    "continue_answer",
    "discard_turn",
    "open_turn",
    "passage_refs",
    "remember_answer",
]
