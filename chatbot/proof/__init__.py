"""Prove an answer: verify its audit rows, rebuild its prompt, and repeat its checks."""

from chatbot.proof.audit_replay import replay
from chatbot.proof.context import ReplayContext, Replayed
from chatbot.proof.report import report

__all__ = ["ReplayContext", "Replayed", "replay", "report"]
