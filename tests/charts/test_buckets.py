"""Originals and audit anchors in buckets: the pods' settings, service accounts and egress rules."""

import json
from pathlib import Path

import pytest

from tests.charts.rendering import NAME, Doc, containers, environment, named, of_kind, pods, render

STORAGE = [{"ipBlock": {"cidr": "10.40.0.0/28"}}]
VAULT = [{"ipBlock": {"cidr": "10.50.0.0/28"}}]
ROLE = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/originals"}
BUCKETS = {
    "ingest": {
        "blobs": {"url": "s3://bank-originals/chatbot", "accessMode": "ReadWriteOnce"},
        "settings": {"AWS_ENDPOINT_URL": "https://s3.bank.internal", "AWS_DEFAULT_REGION": "kr-1"},
    },
    "chatbot": {"settings": {"AUDIT_ANCHORS": "s3://bank-anchors/chatbot"}},
    "networkPolicy": {"egress": {"blobs": {"to": STORAGE, "port": 443}, "anchors": {"to": VAULT, "port": 9000}}},
}


def rendered(folder: Path, *more: Doc) -> list[Doc]:
    """Render with the values of the buckets and more values."""
    files = []
    for n, values in enumerate((BUCKETS, *more)):
        (folder / f"{n}.yaml").write_text(json.dumps(values), "utf-8")
        files += ["-f", str(folder / f"{n}.yaml")]
    return list(render("values", *files))


def container_of(docs: list[Doc], component: str) -> Doc:
    """Return the container of a Deployment, which has one."""
    (container,) = named(docs, "Deployment", f"{NAME}-{component}")["spec"]["template"]["spec"]["containers"]
    return dict(container)


def from_secret(container: Doc) -> dict[str, str]:
    """Return the Secret's key of each variable that comes from the Secret."""
    return {
        entry["name"]: entry["valueFrom"]["secretKeyRef"]["key"] for entry in container["env"] if "valueFrom" in entry
    }


def test_originals_in_a_bucket_need_no_volume(tmp_path: Path) -> None:
    docs = rendered(tmp_path)
    assert f"{NAME}-blobs" not in {doc["metadata"]["name"] for doc in of_kind(docs, "PersistentVolumeClaim")}
    for component in ("ingest", "ingest-worker"):
        deployment = named(docs, "Deployment", f"{NAME}-{component}")["spec"]
        assert deployment["strategy"]["type"] == "RollingUpdate"
        assert "blobs" not in {volume["name"] for volume in deployment["template"]["spec"]["volumes"]}
        container = container_of(docs, component)
        assert "/blobs" not in {mount["mountPath"] for mount in container["volumeMounts"]}
        variables = environment(container)
        assert variables["BLOB_URL"] == "s3://bank-originals/chatbot"
        assert variables["AWS_ENDPOINT_URL"] == "https://s3.bank.internal"


@pytest.mark.parametrize(
    ("component", "peers", "port"),
    [("ingest", STORAGE, 443), ("ingest-worker", STORAGE, 443), ("chatbot", VAULT, 9000)],
)
def test_each_bucket_is_reached_by_its_users_only(component: str, peers: list[Doc], port: int, tmp_path: Path) -> None:
    policies = of_kind(rendered(tmp_path), "NetworkPolicy")
    rule = {"to": peers, "ports": [{"port": port, "protocol": "TCP"}]}
    assert rule in named(policies, "NetworkPolicy", f"{NAME}-{component}")["spec"]["egress"]
    allowed = {policy["metadata"]["name"] for policy in policies if rule in policy["spec"].get("egress", [])}
    users = {"ingest", "ingest-worker"} if peers is STORAGE else {"chatbot"}
    assert allowed == {f"{NAME}-{name}" for name in users}


def test_a_tier_is_identified_by_its_service_account_and_needs_no_key(tmp_path: Path) -> None:
    docs = rendered(tmp_path, {"serviceAccount": {"annotations": {"ingest": ROLE}}})
    accounts = {doc["metadata"]["name"]: doc["metadata"].get("annotations") for doc in of_kind(docs, "ServiceAccount")}
    assert {name for name, annotations in accounts.items() if annotations} == {f"{NAME}-ingest"}
    assert accounts[f"{NAME}-ingest"] == ROLE
    for where, pod in pods(docs):
        for container in containers(pod):
            assert not {name for name in from_secret({"env": [], **container}) if name.startswith("AWS_")}, where


def test_keys_come_from_the_secret_and_the_anchors_have_their_own(tmp_path: Path) -> None:
    docs = rendered(tmp_path, {"ingest": {"blobs": {"keysInSecret": True}}, "chatbot": {"anchorKeysInSecret": True}})
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for component, prefix in (("ingest", ""), ("ingest-worker", ""), ("chatbot", "ANCHORS_")):
        keys = from_secret(container_of(docs, component))
        assert {name: keys.get(name) for name in names} == {name: f"{prefix}{name}" for name in names}
