"""Every security event is valid by the published schema of OCSF 1.6.0."""

import json

import pytest

from telemetry.ocsf import KINDS, Class, Code, SecurityEvent, as_ocsf
from tests.ocsf import valid_event

EVENT = SecurityEvent(
    code=Code.KEY_MADE, at=1_800_000_000.25, tenant="hanbit", by="park", about="service:1", detail="why", count=3
)


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("known", [True, False])
def test_every_event_is_valid_whatever_is_known_of_it(code: Code, known: bool) -> None:  # noqa: FBT001  a parameter
    event = SecurityEvent(code=code, at=EVENT.at, about="a/1", tenant="hanbit", by="park", detail="d", count=2)
    written = valid_event(
        json.dumps(as_ocsf(event if known else SecurityEvent(code=code, at=EVENT.at, about="a/1"), "chatbot"))
    )
    kind = KINDS[code]
    assert written["type_uid"] == kind.ocsf_class * 100 + kind.activity
    assert written["category_uid"] == kind.ocsf_class // 1000
    assert written["time"] == 1_800_000_000_250
    assert written["metadata"]["event_code"] == code
    assert len(written["metadata"]["uid"]) == 32


def test_an_event_has_actor_action_object_and_tenant() -> None:
    written = as_ocsf(EVENT, "ingest")
    assert written["actor"] == {"user": {"uid": "park"}}
    assert written["user"]["uid"] == "service:1"
    assert written["metadata"]["tenant_uid"] == "hanbit"
    assert written["metadata"]["product"]["feature"] == {"name": "ingest"}
    assert (written["status_id"], written["status_detail"], written["count"]) == (1, "why", 3)


def test_a_refused_sign_in_is_a_failure_of_nobody_known() -> None:
    written = as_ocsf(SecurityEvent(code=Code.SIGN_IN_REFUSED, at=1.0), "chatbot")
    assert (written["class_uid"], written["status_id"]) == (Class.AUTHENTICATION, 2)
    assert written["user"] == {"uid": "unknown"}
    assert "actor" not in written
