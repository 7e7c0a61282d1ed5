"""Helm 3 and 4 render every values file to the same valid objects, which are those of the golden files."""

import json
import subprocess
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.rendering import (
    CHART,
    GOLDEN,
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
    of_kind,
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


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize("name", VALUES)
def test_lint_finds_nothing(name: str, major: int) -> None:
    completed = helm(major, "lint", "--strict", str(CHART), *values_of(name))
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "[WARNING]" not in completed.stdout


@pytest.mark.parametrize("name", VALUES)
def test_helm_3_and_4_render_the_same(name: str) -> None:
    assert render(name, major=3) == render(name, major=4)


@pytest.mark.parametrize("name", VALUES)
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


def test_the_schema_detects_an_unknown_key() -> None:
    docs = json.loads(json.dumps(of_kind(render(), "Deployment")))
    docs[0]["spec"]["template"]["spec"]["containers"][0]["livenes"] = {}
    assert "'livenes' was unexpected" in validated(docs).stderr


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


def test_the_types_detect_an_unknown_key_two_levels_down(tmp_path: Path) -> None:
    docs = json.loads(json.dumps(custom_resources()))
    of_kind(docs, "ScaledObject")[0]["spec"]["triggers"][0]["treshold"] = "1"
    assert "'\"treshold\"' does not exist" in typed(docs, tmp_path).stdout


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


class EachKeyOnce(yaml.CSafeLoader):
    """Reads YAML as Flux does, for which a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  as yaml calls it
        """Return the mapping."""
        names = [key.value for key, _ in node.value]
        assert len(names) == len(set(names)), f"twice in line {node.start_mark.line}: {names}"
        return super().construct_mapping(node, deep)


def test_what_values_add_to_what_the_chart_says_stands_there_once_and_as_they_say(tmp_path: Path) -> None:
    evict, size = "cluster-autoscaler.kubernetes.io/safe-to-evict", "nginx.ingress.kubernetes.io/proxy-body-size"
    own = {"release": "prometheus"}
    values: Doc = {
        "commonLabels": {"release": "bank", "grafana_dashboard": "0"},
        "podAnnotations": {evict: "true"},
        "monitoring": {"serviceMonitors": {"labels": own}, "rules": {"labels": own}, "dashboards": {"labels": own}},
        "ingress": {"enabled": True, "customerHosts": ["a.example"], "staffHosts": ["b.example"]},
    }
    values["ingress"]["annotations"] = {size: "200m"}
    (tmp_path / "values.yaml").write_text(json.dumps(values), "utf-8")
    rendered = helm(4, "template", "bank", str(CHART), "-f", str(tmp_path / "values.yaml"))
    assert rendered.returncode == 0, rendered.stderr
    docs = [doc for doc in yaml.load_all(rendered.stdout, Loader=EachKeyOnce) if doc]
    watched = of_kind(docs, "ServiceMonitor", "PrometheusRule")
    assert {doc["metadata"]["labels"]["release"] for doc in watched} == {"prometheus"}
    assert {doc["metadata"]["annotations"][size] for doc in of_kind(docs, "Ingress")} == {"200m"}
    (server,) = (doc for doc in of_kind(docs, "StatefulSet") if "llm" in doc["metadata"]["name"])
    assert server["spec"]["template"]["metadata"]["annotations"][evict] == "true"
