"""What an answer stood on: its audit rows replayed, its prompt rebuilt, the model asked again."""

from chatbot.proof.audit_replay import replay
from chatbot.proof.context import ReplayContext, Replayed
from chatbot.proof.report import replay_elsewhere, report

__all__ = ["ReplayContext", "Replayed", "replay", "replay_elsewhere", "report"]
