"""Security events in the Open Cybersecurity Schema Framework (OCSF 1.6.0, https://schema.ocsf.io/1.6.0).

An event identifies the actor and the object by ids, and describes the action in fixed words. It contains no text that a
person wrote: questions, answers, reasons, titles and file names stay in SQL (docs/identity.md).
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Final, NamedTuple
from uuid import uuid4

VERSION: Final = "1.6.0"


class Class(IntEnum):
    """The OCSF classes in use, with their `class_uid`."""

    DETECTION_FINDING = 2004
    ACCOUNT_CHANGE = 3001
    AUTHENTICATION = 3002
    ENTITY_MANAGEMENT = 3004


class Code(StrEnum):
    """The kinds of security events (`metadata.event_code`)."""

    SIGN_IN_REFUSED = "sign_in_refused"
    KEY_MADE = "key_made"
    KEY_REVOKED = "key_revoked"
    ANSWERS_STOPPED = "answers_stopped"
    ANSWERS_RESUMED = "answers_resumed"
    LIMITS_RESET = "limits_reset"
    ANSWER_REPLAYED = "answer_replayed"
    AUDIT_PRUNED = "audit_pruned"
    DOCUMENT_UPLOADED = "document_uploaded"
    VERSION_APPROVED = "version_approved"
    VERSION_REJECTED = "version_rejected"
    VERSION_EXPIRED = "version_expired"
    VERSION_DATED = "version_dated"
    VERSION_TITLED = "version_titled"
    VERSION_DISMISSED = "version_dismissed"
    DOCUMENT_ROLLED_BACK = "document_rolled_back"
    DOCUMENT_DELETED = "document_deleted"
    ORIGINAL_DOWNLOADED = "original_downloaded"
    AUDIT_DIFFERS = "audit_differs"
    ORIGINAL_CHANGED = "original_changed"


class _Kind(NamedTuple):
    ocsf_class: Class
    activity: int
    severity: int
    message: str
    entity: str = ""
    """The type of the object that the event is about."""


_INFORMATIONAL, _LOW, _MEDIUM, _HIGH = 1, 2, 3, 4
_CREATE, _READ, _UPDATE, _DELETE, _ENABLE, _DISABLE, _ACTIVATE, _DEACTIVATE = 1, 2, 3, 4, 8, 9, 10, 11
_CREATE_ACCOUNT, _DELETE_ACCOUNT, _LOGON, _CREATE_FINDING = 1, 6, 1, 1
_DOCUMENT, _VERSION, _ANSWER = "document", "document version", "audit record of an answer"
KINDS: Final[dict[Code, _Kind]] = {
    Code.SIGN_IN_REFUSED: _Kind(Class.AUTHENTICATION, _LOGON, _LOW, "A token or a service key was refused"),
    Code.KEY_MADE: _Kind(Class.ACCOUNT_CHANGE, _CREATE_ACCOUNT, _MEDIUM, "A service key was made"),
    Code.KEY_REVOKED: _Kind(Class.ACCOUNT_CHANGE, _DELETE_ACCOUNT, _INFORMATIONAL, "A service key was revoked"),
    Code.ANSWERS_STOPPED: _Kind(Class.ENTITY_MANAGEMENT, _DISABLE, _HIGH, "Answers were stopped", "what answers"),
    Code.ANSWERS_RESUMED: _Kind(Class.ENTITY_MANAGEMENT, _ENABLE, _MEDIUM, "Answers were resumed", "what answers"),
    Code.LIMITS_RESET: _Kind(Class.ENTITY_MANAGEMENT, _UPDATE, _LOW, "A limit was reset", "limit"),
    Code.ANSWER_REPLAYED: _Kind(Class.ENTITY_MANAGEMENT, _READ, _INFORMATIONAL, "An answer was replayed", _ANSWER),
    Code.AUDIT_PRUNED: _Kind(Class.ENTITY_MANAGEMENT, _DELETE, _MEDIUM, "Old audit rows were removed", "audit trail"),
    Code.DOCUMENT_UPLOADED: _Kind(Class.ENTITY_MANAGEMENT, _CREATE, _INFORMATIONAL, "A document came in", _VERSION),
    Code.VERSION_APPROVED: _Kind(Class.ENTITY_MANAGEMENT, _ACTIVATE, _LOW, "A version was approved", _VERSION),
    Code.VERSION_REJECTED: _Kind(Class.ENTITY_MANAGEMENT, _DELETE, _INFORMATIONAL, "A draft was rejected", _VERSION),
    Code.VERSION_EXPIRED: _Kind(Class.ENTITY_MANAGEMENT, _DEACTIVATE, _LOW, "A version was withdrawn", _VERSION),
    Code.VERSION_DATED: _Kind(Class.ENTITY_MANAGEMENT, _UPDATE, _LOW, "A version's dates were changed", _VERSION),
    Code.VERSION_TITLED: _Kind(Class.ENTITY_MANAGEMENT, _UPDATE, _LOW, "A version's title was changed", _VERSION),
    Code.VERSION_DISMISSED: _Kind(
        Class.ENTITY_MANAGEMENT, _DELETE, _INFORMATIONAL, "A failed version was dismissed", _VERSION
    ),
    Code.DOCUMENT_ROLLED_BACK: _Kind(Class.ENTITY_MANAGEMENT, _UPDATE, _MEDIUM, "A version was brought back", _VERSION),
    Code.DOCUMENT_DELETED: _Kind(Class.ENTITY_MANAGEMENT, _DELETE, _MEDIUM, "A document was withdrawn", _DOCUMENT),
    Code.ORIGINAL_DOWNLOADED: _Kind(
        Class.ENTITY_MANAGEMENT, _READ, _INFORMATIONAL, "An original was downloaded", _VERSION
    ),
    Code.AUDIT_DIFFERS: _Kind(
        Class.DETECTION_FINDING, _CREATE_FINDING, _HIGH, "Audit rows are not what was written", "audit trail"
    ),
    Code.ORIGINAL_CHANGED: _Kind(
        Class.DETECTION_FINDING, _CREATE_FINDING, _HIGH, "An original is not what was approved", "original"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEvent:
    """A security event; with a `count` above 1 it stands for that many events of one kind."""

    code: Code
    at: float
    """Unix seconds."""
    tenant: str = ""
    by: str = ""
    """The subject who acted."""
    about: str = ""
    """The id of the object."""
    detail: str = ""
    """A fixed text that gives the reason."""
    count: int = 1


def as_ocsf(event: SecurityEvent, service: str) -> dict[str, Any]:
    """Return the event as a JSON object."""
    kind = KINDS[event.code]
    has_failed = kind.ocsf_class is Class.AUTHENTICATION  # the only event of this class is a refusal
    record: dict[str, Any] = {
        "class_uid": int(kind.ocsf_class),
        "category_uid": kind.ocsf_class // 1000,
        "activity_id": kind.activity,
        "type_uid": kind.ocsf_class * 100 + kind.activity,
        "severity_id": kind.severity,
        "status_id": 2 if has_failed else 1,
        "time": int(event.at * 1000),
        "message": kind.message,
        "metadata": _metadata(event, service),
        **_about(event, kind, service),
    }
    if event.detail:
        record["status_detail"] = event.detail
    if event.count > 1:
        record["count"] = event.count
    if event.by and kind.ocsf_class is not Class.DETECTION_FINDING:
        record["actor"] = {"user": {"uid": event.by}}
    return record


def _metadata(event: SecurityEvent, service: str) -> dict[str, Any]:
    product = {"name": "bank-chatbot", "vendor_name": "bank-chatbot", "feature": {"name": service}}
    metadata = {"version": VERSION, "product": product, "uid": uuid4().hex, "event_code": str(event.code)}
    if event.tenant:
        metadata["tenant_uid"] = event.tenant
    return metadata


def _about(event: SecurityEvent, kind: _Kind, service: str) -> dict[str, Any]:
    """Return the object of the event, in the fields that its OCSF class has for it."""
    match kind.ocsf_class:
        case Class.AUTHENTICATION:  # a rejected token's claims cannot be trusted
            return {"user": {"uid": "unknown"}, "service": {"name": service}}
        case Class.ACCOUNT_CHANGE:
            return {"user": {"uid": event.about, "type_id": 4}}  # a service
        case Class.ENTITY_MANAGEMENT:
            return {"entity": {"uid": event.about, "type": kind.entity, "type_id": 99}}  # another type
        case Class.DETECTION_FINDING:
            finding = {"uid": f"{event.code}:{event.about}", "title": kind.message}
            return {"finding_info": finding, "resources": [{"uid": event.about, "type": kind.entity}]}
