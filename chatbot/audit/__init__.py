"""The audit trail: two rows per answer in SQL, chained by HMAC, with the heads of the chains anchored elsewhere."""

from chatbot.audit.anchors import Anchors, AnchorsUnavailable, open_anchors
from chatbot.audit.chain import AuditKeys, AuditRow, ChainProblem, Closed, Opened, columns_match_body
from chatbot.audit.records import AuditClosed, AuditOpened, Versions, passage_hash
from chatbot.audit.trail import Audit, AuditSettings, open_audit

__all__ = [
    "Anchors",
    "AnchorsUnavailable",
    "Audit",
    "AuditClosed",
    "AuditKeys",
    "AuditOpened",
    "AuditRow",
    "AuditSettings",
    "ChainProblem",
    "Closed",
    "Opened",
    "Versions",
    "columns_match_body",
    "open_anchors",
    "open_audit",
    "passage_hash",
]
