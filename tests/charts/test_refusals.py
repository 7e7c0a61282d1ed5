"""Mistakes in values: each is refused before anything is rendered, with a message that names the mistake."""

import json
from pathlib import Path

import pytest

from tests.charts.rendering import CHART, helm, template

DIGEST = "sha256:" + "0" * 64
OFFICE = [{"ipBlock": {"cidr": "10.0.0.0/24"}}]
PAY_DAY = {"name": "pay-day", "start": "30 8 25 * *", "end": "0 13 25 * *", "timezone": "Asia/Seoul", "replicas": 12}
# (name in the message, values file, mistaken values)
SCHEMA: list[tuple[str, str, object]] = [
    ("replicaCount", "values", {"replicaCount": 3}),
    ("minReplicas", "values", {"chatbot": {"scaling": {"minReplicas": 0}}}),
    ("tag", "values", {"images": {"chatbot": {"tag": "latest"}}}),
    ("digest", "values", {"images": {"chatbot": {"digest": "sha256:abc"}}}),
    ("user", "values", {"podSecurity": {"user": 0}}),
    ("app.kubernetes.io/component", "values", {"commonLabels": {"app.kubernetes.io/component": "x"}}),
    ("auditKey", "values", {"secrets": {"auditKey": "hunter2"}}),
    ("jwksUrl", "values", {"auth": {"jwksUrl": "http://login.example.com/keys"}}),
    ("roleMap", "values", {"auth": {"roleMap": {"Chat Staff": ["boss"]}}}),
    ("subjectPrefix", "values", {"auth": {"roles": ["staff"], "issuers": [
        {"issuer": "https://a", "audience": "a", "jwksUrl": "https://a/keys", "roles": ["staff"]}]}}),
    ("clientSecret", "values", {"signIn": {"ingest": {"clientSecret": "hunter2"}}}),
    ("OIDC__SESSION_KEY", "values", {"ingest": {"settings": {"OIDC__SESSION_KEY": "hunter2"}}}),
    ("AUDIT_KEY", "values", {"chatbot": {"settings": {"AUDIT_KEY": "hunter2"}}}),
    ("DEMO_KEY_FILE", "values", {"chatbot": {"settings": {"DEMO_KEY_FILE": "/tmp/key"}}}),  # noqa: S108
    ("AWS_SECRET_ACCESS_KEY", "values", {"ingest": {"settings": {"AWS_SECRET_ACCESS_KEY": "hunter2"}}}),
    ("AWS_SECRET_ACCESS_KEY", "values", {"weights": {"fetch": {"environment": {"AWS_SECRET_ACCESS_KEY": "hunter2"}}}}),
    ("HF_TOKEN", "values", {"weights": {"fetch": {"environment": {"HF_TOKEN": "hf_x"}}}}),
    ("limits", "values", {"chatbot": {"resources": {"limits": None}}}),
    ("maxUnavailable", "values", {"chatbot": {"disruption": {"maxUnavailable": 0}}}),
    ("folder", "values", {"embedder": {"folder": "../etc"}}),
    ("names", "values", {"weights": {"fetch": {"names": ["https://a/$(id)@" + "0" * 64]}}}),
    ("EMBEDDER__API_KEY", "values", {"chatbot": {"settings": {"EMBEDDER__API_KEY": "hunter2"}}}),
    ("cidr", "values", {"networkPolicy": {"egress": {"models": {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}}}}),
    ("kind", "values", {"extraObjects": [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}]}),
    ("hostPath", "values", {"extra": {"chatbot": {"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}}}),
    ("value", "values", {"extra": {"llm": {"env": [{"name": "HF_TOKEN", "value": "hf_x"}]}}}),
    ("key", "values", {"caBundle": {"configMap": "a", "key": "../ca"}}),
    ("gatewayFrom", "values", {"networkPolicy": {"gatewayFrom": []}}),
    ("proxy-buffering", "values-airgapped",
     {"ingress": {"annotations": {"nginx.ingress.kubernetes.io/proxy-buffering": "on"}}}),
    ("appendfsync", "values", {"redis": {"appendfsync": "always"}}),
]  # fmt: skip
CHECKS: list[tuple[str, str, object]] = [
    ("image-without-digest", "values", {"images": {"requireDigest": True}}),
    ("chatbot-grace-too-short", "values", {"chatbot": {"terminationGraceSeconds": 180}}),
    ("chatbot-min-above-max", "values", {"chatbot": {"scaling": {"minReplicas": 20}}}),
    ("chatbot-fallback-out-of-range", "values", {"chatbot": {"scaling": {"fallbackReplicas": 1}}}),
    ("scaling-without-prometheus", "values", {"scaling": {"prometheus": ""}}),
    ("no-models", "values", {"llm": {"pools": {"h100": None}}}),
    ("no-primary", "values", {"llm": {"pools": {"h100": {"group": "fallback"}}}}),
    ("llm-grace-too-short", "values", {"llm": {"pools": {"h100": {"terminationGraceSeconds": 90}}}}),
    ("pool-min-above-max", "values", {"llm": {"pools": {"h100": {"minReplicas": 9}}}}),
    ("pool-fallback-out-of-range", "values", {"llm": {"pools": {"h100": {"scaling": {"fallbackReplicas": 9}}}}}),
    ("cooldown-shorter-than-load", "values", {"llm": {"pools": {"h100": {"scaling": {"cooldownSeconds": 120}}}}}),
    ("calm-shorter-than-load", "values", {"llm": {"pools": {"h100": {"scaling": {"calmSeconds": 120}}}}}),
    ("startup-shorter-than-load", "values",
     {"llm": {"pools": {"h100": {"loadSeconds": 1000, "scaling": {"calmSeconds": 1200, "cooldownSeconds": 1200}}}}}),
    ("zero-needs-keda", "values", {"scaling": {"engine": "hpa"}, "llm": {"pools": {"h100": {"minReplicas": 0}}}}),
    ("fallback-asleep", "values-prod",
     {"llm": {"pools": {"l4": {"minReplicas": 0}}}}),
    ("mig-with-tensor-parallel", "values",
     {"llm": {"pools": {"h100": {"profile": "a100", "gpu": {"resource": "nvidia.com/mig-3g.40gb", "count": 2}}}}}),
    ("gpu-count", "values", {"llm": {"pools": {"h100": {"profile": "a100"}}}}),
    ("gpu-for-cpu-profile", "values", {"llm": {"pools": {"h100": {"profile": "cpu"}}}}),
    ("placeholder-without-priority", "values", {"priorityClasses": {"create": False}}),
    ("placeholder-without-gpu", "values-dev", {"llm": {"pools": {"cpu": {"placeholders": 1}}}}),
    ("canary-without-weight", "values-prod", {"llm": {"pools": {"next": {"profile": "h100", "group": "canary"}}}}),
    ("weight-without-trial", "values", {"llm": {"pools": {"h100": {"weight": 0.1}}}}),
    ("two-canaries", "values",
     {"llm": {"pools": {name: {"profile": "h100", "group": "canary", "weight": 0.1} for name in ("b", "c")}}}),
    ("primaries-differ", "values", {"llm": {"pools": {"l4": {"profile": "l4", "group": "primary"}}}}),
    ("pool-anywhere", "values-prod",
     {"llm": {"pools": {"next": {"profile": "h100", "group": "canary", "weight": 0.1}}}}),
    ("name-twice", "values-prod",
     {"llm": {"external": [{"name": "h100", "urls": ["http://a:1"], "group": "primary", "tokenizer": "/models/a",
                            "profile": "h100"}]}}),
    ("redis-twice", "values", {"redis": {"external": {"inSecret": True}}}),
    ("no-redis", "values", {"redis": {"enabled": False}}),
    ("postgres-twice", "values", {"postgres": {"external": {"inSecret": True}}}),
    ("no-postgres", "values", {"postgres": {"enabled": False}}),
    ("no-qdrant", "values", {"qdrant": {"enabled": False, "snapshots": {"enabled": False}}}),
    ("qdrant-twice", "values", {"qdrant": {"external": {"url": "http://qdrant.stores:6333"}}}),
    ("qdrant-tls", "values", {"qdrant": {"tls": {"secret": "q"}}}),
    ("snapshots-of-nothing", "values-prod", {"qdrant": {"snapshots": {"enabled": True}}}),
    ("issuer-without-roles", "values", {"auth": {"issuers": [{"issuer": "https://a", "audience": "a",
        "jwksUrl": "https://a/keys", "roles": ["staff"], "subjectPrefix": "a:"}]}}),
    ("sign-in-without-client", "values", {"signIn": {"chatbot": {"issuer": "https://login.example.com"}}}),
    ("sign-in-not-accepted", "values", {"signIn": {"ingest": {"issuer": "https://a", "clientId": "a"}}}),
    ("tenant-twice", "values", {"auth": {"tenant": "a", "tenantClaim": "tid"}}),
    ("flow-not-named", "values-prod", {"networkPolicy": {"egress": {"redis": {"to": []}}}}),
    ("flow-not-named", "values", {"traces": {"otlpEndpoint": "http://collector:4318"}}),
    ("flow-not-named", "values", {"networkPolicy": {"egress": {"identityProvider": {"to": []}}}}),
    ("flow-not-named", "values", {"istio": {"enabled": True}}),
    ("flow-not-named", "values-airgapped", {"weights": {"fetch": {"enabled": True}}}),
    ("flow-not-named", "values", {"ingest": {"blobs": {"url": "s3://originals"}}}),
    ("flow-not-named", "values", {"chatbot": {"settings": {"AUDIT_ANCHORS": "s3://anchors"}}}),
    ("blobs-twice", "values",
     {"ingest": {"blobs": {"url": "s3://originals", "existingClaim": "a"}},
      "networkPolicy": {"egress": {"blobs": {"to": OFFICE}}}}),
    ("keys-of-nothing", "values", {"ingest": {"blobs": {"keysInSecret": True}}}),
    ("weights-without-way", "values", {"weights": {"fetch": {"environment": {"HTTPS_PROXY": None}}}}),
    ("unknown-profile", "values", {"llm": {"pools": {"h100": {"profile": "tpu"}}}}),
    ("group-of-another-task", "values", {"llm": {"pools": {"h100": {"profile": "reranking"}}}}),
    ("two-of-a-kind", "values", {"llm": {"pools": {
        "one": {"profile": "embedding", "group": "embedder"}, "two": {"profile": "embedding", "group": "embedder"}}}}),
    ("two-places", "values", {"embedder": {"folder": "a", "model": "b/c", "revision": "0" * 40}}),
    ("model-not-named", "values",
     {"embedder": {"url": "http://embed"}, "networkPolicy": {"egress": {"embedder": {"to": OFFICE}}}}),
    ("model-nowhere", "values", {"reranker": {"model": "bge-reranker"}}),
    ("key-of-nothing", "values", {"embedder": {"keyInSecret": True}}),
    ("retrieval-tls", "values", {"embedder": {"tls": {"secret": "a"}}}),
    ("tokenizer-of-nothing", "values", {"embedder": {"tokenizer": "bge-m3"}}),
    ("flow-not-named", "values", {"reranker": {"url": "http://rerank", "model": "bge"}}),
    ("weights-claim-twice", "values", {"weights": {"existingClaim": "a", "storageClass": "b"}}),
    ("weights-not-shared", "values", {"weights": {"accessMode": "ReadWriteOnce"}}),
    ("redis-memory", "values", {"redis": {"maxMemory": "8gb"}}),
    ("blobs-not-shared", "values", {"ingest": {"blobs": {"accessMode": "ReadWriteOnce"}}}),
    ("worker-min-above-max", "values", {"ingest": {"worker": {"scaling": {"minReplicas": 9}}}}),
    ("gateway-without-authority", "values-prod", {"tls": {"enabled": True}}),
    ("issuer-of-nothing", "values", {"tls": {"issuer": {"name": "bank-ca"}}}),
    ("encrypted-twice", "values", {"tls": {"enabled": True}, "istio": {"enabled": True}}),
    ("mesh-without-gateway", "values-prod", {"istio": {"enabled": True}}),
    ("gateway-not-named", "values-prod", {"gateway": {"parentRefs": []}}),
    ("no-hosts", "values-prod", {"gateway": {"customerHosts": []}}),
    ("stream-cut", "values-prod", {"gateway": {"streamSeconds": 60}}),
    ("stream-cut", "values-airgapped", {"ingress": {"streamSeconds": 60}}),
    ("question-without-token", "values", {"test": {"question": {"text": "hello"}}}),
    ("calendar-needs-keda", "values-airgapped", {"chatbot": {"scaling": {"calendar": [PAY_DAY]}}}),
    ("calendar-above-max", "values", {"llm": {"pools": {"h100": {"scaling": {"calendar": [PAY_DAY]}}}}}),
    ("canary-of-itself", "values-prod", {"chatbot": {"canary": {"enabled": True}}}),
    ("canary-without-gateway", "values", {"chatbot": {"canary": {"enabled": True, "tag": "0.2.0"}}}),
]  # fmt: skip


def refusal(values: str, mistake: object, tmp_path: Path) -> str:
    """Return Helm's message about a mistake that it must refuse."""
    (tmp_path / "mistake.yaml").write_text(json.dumps(mistake), "utf-8")
    completed = template(values, "-f", str(tmp_path / "mistake.yaml"))
    assert completed.returncode != 0, "it was rendered"
    assert completed.stdout == ""
    return completed.stderr


@pytest.mark.parametrize(("name", "values", "mistake"), SCHEMA, ids=lambda part: part if isinstance(part, str) else "")
def test_the_schema_refuses(name: str, values: str, mistake: object, tmp_path: Path) -> None:
    message = refusal(values, mistake, tmp_path)
    assert "values don't meet the specifications of the schema" in message
    assert name in message


@pytest.mark.parametrize(("name", "values", "mistake"), CHECKS, ids=lambda part: part if isinstance(part, str) else "")
def test_a_check_refuses(name: str, values: str, mistake: object, tmp_path: Path) -> None:
    assert f"{name}: " in refusal(values, mistake, tmp_path)


@pytest.mark.parametrize(("name", "values"), [
    ("ADMISSION__SLOTS", {"chatbot": {"settings": {"ADMISSION__SLOTS": 8}}}),
    ("LOG_LEVEL", {"extra": {"ingest": {"env": [{"name": "LOG_LEVEL", "value": "INFO"}]}}}),
    ("HTTPS_PROXY", {"chatbot": {"settings": {"HTTPS_PROXY": "a"}},
                     "extra": {"chatbot": {"env": [{"name": "HTTPS_PROXY", "value": "b"}]}}}),
    ("HF_HOME", {"weights": {"fetch": {"environment": {"HF_HOME": "/a"}}}}),
    ("HF_HOME", {"llm": {"pools": {"h100": {"environment": {"HF_HOME": "/a"}}}}}),
])  # fmt: skip
def test_a_variable_that_the_chart_sets_itself_is_refused(name: str, values: object, tmp_path: Path) -> None:
    assert f"set-twice: {name} " in refusal("values", values, tmp_path)


def test_a_release_whose_pods_would_have_names_too_long_is_refused() -> None:
    completed = helm(4, "template", "a-very-long-name-for-a-release", str(CHART))
    assert "name-too-long: " in completed.stderr


def test_every_check_has_a_mistake() -> None:
    text = (CHART / "templates/checks.yaml").read_text("utf-8")
    names = {part.split(":")[0].removeprefix('"') for part in text.split("fail ")[1:]}
    names = {name.removeprefix("(printf ").strip('"(') for name in names}
    assert {name.split(" ")[-1].strip('"') for name in names} == {name for name, _, _ in CHECKS} | {
        "name-too-long",
        "volume-differs",  # test_upgrades.py
    }
