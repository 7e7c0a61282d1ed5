"""Helm 3 and 4 render every values file to the same valid objects, which are those of the golden files."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.charts.rendering import (
    CHART,
    GOLDEN,
    GOLDEN_VALUES,
    MESH,
    NAME,
    ROOT,
    SCALED,
    SEPARATE,
    TLS,
    VALUES,
    Doc,
    golden_text,
    helm,
    render,
    tool,
    values_of,
)

TYPES = {
    "ScaledObject": "keda/keda.sh/v1alpha1",
    "HTTPRoute": "gateway-api/gateway.networking.k8s.io/v1",
    "ServiceMonitor": "prometheus-operator/monitoring.coreos.com/v1",
    "PrometheusRule": "prometheus-operator/monitoring.coreos.com/v1",
    "Application": "argo-cd/argoproj.io/v1alpha1",
    "BackendTLSPolicy": "gateway-api/gateway.networking.k8s.io/v1",
    "Certificate": "cert-manager/cert-manager.io/v1",
    "PeerAuthentication": "istio/security.istio.io/v1",
    "AuthorizationPolicy": "istio/security.istio.io/v1",
}
CANARY = (
    "--set", "chatbot.canary.enabled=true", "--set", "chatbot.canary.tag=0.2.0", "--set", "ingress.enabled=true",
    "--set", "ingress.customerHosts={chat.example.com}",
)  # fmt: skip
PAY_DAY = json.dumps(
    [{"name": "pay-day", "start": "30 8 25 * *", "end": "0 13 25 * *", "timezone": "Asia/Seoul", "replicas": 8}]
)
CALENDAR = (
    "--set-json",
    f"chatbot.scaling.calendar={PAY_DAY}",
    "--set-json",
    f"llm.pools.h100.scaling.calendar={PAY_DAY}",
)
RENDERS = [
    *((name,) for name in VALUES),
    ("values", *SCALED),
    ("values-prod", *CANARY),
    ("values-prod", *CALENDAR),
    ("values-prod", *TLS),
    ("values-airgapped", *TLS, *SEPARATE),
    ("values-staging", *MESH),
    ("values-prod", "--set", "scaling.authentication.name=prometheus,caBundle.configMap=bank-ca"),
]


@pytest.mark.parametrize("name", VALUES)
def test_lint_finds_nothing(name: str) -> None:
    completed = helm(4, "lint", "--strict", str(CHART), *values_of(name))
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "[WARNING]" not in completed.stdout


@pytest.mark.parametrize("name", VALUES)
def test_helm_3_and_4_render_the_same(name: str) -> None:
    assert render(name, major=3) == render(name, major=4)


@pytest.mark.parametrize("name", GOLDEN_VALUES)
def test_a_render_is_its_golden_file(name: str) -> None:
    golden = (GOLDEN / f"{name}.yaml").read_text("utf-8")
    assert golden_text(name) == golden, "read the difference, then: python -m tests.charts.rendering"


def test_kubernetes_objects_are_valid_by_its_schema() -> None:
    completed = validated([doc for arguments in RENDERS for doc in render(*arguments)])
    assert completed.returncode == 0, completed.stderr


# As its command does, which reads the schema's three megabytes anew for each object.
VALIDATE = """
import functools, json, sys
from kubernetes_validate import utils
utils.schema_contents = functools.cache(utils.schema_contents)
for doc in json.load(sys.stdin):
    utils.validate(doc, "1.37", strict=True)
"""


def validated(docs: list[Doc]) -> subprocess.CompletedProcess[str]:
    """Validate the objects of Kubernetes' own kinds against its schema; unknown keys are refused."""
    # Renders share most objects.
    different = {json.dumps(doc, sort_keys=True) for doc in docs if doc["kind"] not in TYPES}
    command = [tool("tools/bin/python"), "-c", VALIDATE]
    return subprocess.run(  # noqa: S603
        command, input=f"[{','.join(different)}]", capture_output=True, text=True, check=False
    )


def typed(docs: list[Doc], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Compile custom resources as literals of their published types; TypeScript refuses keys that a type lacks."""
    kinds = sorted({doc["kind"] for doc in docs})
    lines = [f'import type {{ I{kind} }} from "@kubernetes-models/{TYPES[kind]}/{kind}";' for kind in kinds]
    lines += [f"const o{n}: I{doc['kind']} = {json.dumps(doc)};" for n, doc in enumerate(docs)]
    (tmp_path / "objects.ts").write_text("\n".join(lines), "utf-8")
    (tmp_path / "node_modules").symlink_to(tool("npm/node_modules"))
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    command = [tool("npm/node_modules/.bin/tsc"), *options, "objects.ts"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603


def custom_resources() -> list[Doc]:
    """Return the custom resources of all renders and the example of Argo CD."""
    example = yaml.safe_load((ROOT / "charts/argocd-application.yaml").read_text("utf-8"))
    return [*(doc for arguments in RENDERS for doc in render(*arguments) if doc["kind"] in TYPES), example]


def test_custom_resources_have_no_key_that_their_types_lack(tmp_path: Path) -> None:
    docs = custom_resources()
    assert {doc["kind"] for doc in docs} == set(TYPES)
    completed = typed(docs, tmp_path)
    assert completed.returncode == 0, completed.stdout


def test_every_object_belongs_to_the_release_and_its_namespace() -> None:
    for arguments in RENDERS:
        for doc in render(*arguments):
            cluster_wide = doc["kind"] == "PriorityClass"
            prefix = f"bank-{NAME}" if cluster_wide else NAME
            assert doc["metadata"]["name"].startswith(prefix), doc["metadata"]["name"]
            assert doc["metadata"]["labels"]["app.kubernetes.io/instance"] == "bank"
            assert cluster_wide or doc["metadata"]["namespace"] == "bank"


def test_no_name_is_rendered_twice() -> None:
    for arguments in RENDERS:
        names = [(doc["kind"], doc["metadata"]["name"]) for doc in render(*arguments)]
        assert len(names) == len(set(names))
