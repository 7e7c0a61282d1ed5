"""Proving an answer: its audit rows are verified, its prompt is rebuilt, and the model is asked again."""

from chatbot.proof.audit_replay import replay
from chatbot.proof.context import ReplayContext, Replayed
from chatbot.proof.report import replay_remotely, report

__all__ = ["ReplayContext", "Replayed", "replay", "replay_remotely", "report"]
